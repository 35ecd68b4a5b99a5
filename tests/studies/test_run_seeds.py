from dataclasses import replace

import numpy as np
import pytest

from charloom.studies import STUDIES
from charloom.studies.run_experiment import run_experiment
from charloom.studies.run_seeds import run_seeds
from charloom.studies.study_data import StudyData
from charloom.training import Phase, follow

ALPHABET = STUDIES["alphabet"].experiments


def cut(name, epochs=30, seeds=3):
    return replace(ALPHABET[name], phases=(Phase(0.01, epochs),), seeds=seeds)


@pytest.mark.parametrize("name", ["three_to_one", "stateful"])
def test_seeds_that_run_together_give_the_figures_of_separate_runs(name, tmp_path):
    experiment = cut(name)
    together = follow(run_seeds(experiment, {}, 5, tmp_path / "together"), lambda event: None)
    assert together["seeds"] == 3
    alone = [
        follow(
            run_experiment(replace(experiment, showcases=()), {}, seed, tmp_path / str(seed), {}),
            lambda event: None,
        )
        for seed in (5, 6, 7)
    ]
    losses = np.median([figures["losses"] for figures in alone], axis=0)
    np.testing.assert_allclose(together["losses"], losses, rtol=1e-3)


def test_the_accuracy_is_the_median_of_the_trained_models(tmp_path):
    figures = follow(run_seeds(cut("stateful", epochs=300), {}, 0, tmp_path), lambda event: None)
    assert figures["accuracy"] == np.median(figures["accuracy_of_seeds"])
    assert figures["accuracy_range"] == [min(figures["accuracy_of_seeds"]), max(figures["accuracy_of_seeds"])]
    # The model memorized the alphabet from A on. Started at K with a zero state, it predicts what follows A.
    assert figures["accuracy"] == 1
    walk, cold = figures["samples"]
    assert walk["text"] == "BCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert walk["note"] == "correct for 3 of 3 seeds"
    assert cold["text"].startswith("B")


def test_random_pieces_follow_the_notebook():
    experiment = ALPHABET["variable_length"]
    data = StudyData.of(experiment)
    block = experiment.batching.windows(data.train, seed=3, shuffled=False).block(0, 1000, 1000)
    rows = block.token_ids[:, 0]
    assert rows.shape == (1000, 6)
    lengths = []
    for row in rows.tolist():
        target = row[-1]
        # Consecutive letters up to the target, padded with zeros; an A may be one of the zeros.
        length = next(count for count in range(5, 0, -1) if row[5 - count : 5] == list(range(target - count, target)))
        lengths.append(length)
        assert row[: 5 - length] == [0] * (5 - length)
        assert 1 <= target <= 25
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert {row[-1] for row in rows.tolist()} == set(range(1, 26))
