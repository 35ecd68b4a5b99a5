from dataclasses import replace

import numpy as np
import pytest

from charloom.model import load
from charloom.runs.checkpoint import read_progress
from charloom.settings import NetworkSettings
from charloom.studies.batching import ContiguousStreams, ShuffledWindows, StatefulRows
from charloom.studies.checkpoint_rule import CheckpointRule
from charloom.studies.experiment import Experiment, StudyText
from charloom.studies.resuming import remove_spent
from charloom.studies.run_experiment import run_experiment
from charloom.studies.showcases import Greedy, Predictions, SlidingOnCarriedState, SpaceProbabilities, Temperatures
from charloom.training import EpochEnd, Notice, Phase, follow

TEXT = StudyText(source="the cat sat on the mat, and the rat sat on the hat.\n" * 6, literal=True)
EXPERIMENT = Experiment(
    summary="a small one",
    lesson="none",
    text=TEXT,
    batching=StatefulRows(length=5, batch_size=4),
    model=NetworkSettings(cell="elman", hidden=24, embedding=6),
    phases=(Phase(0.02, 3), Phase(0.002, 1)),
    showcases=(Predictions(("the ",)), Greedy("the ", 20), SlidingOnCarriedState("the ", 20, window=4)),
)


def run(experiment, folder, seed=0, stop_after=None, identity=None):
    events = []

    def should_stop():
        return stop_after is not None and sum(isinstance(event, EpochEnd) for event in events) >= stop_after

    figures = follow(
        run_experiment(experiment, {}, seed, folder, identity or {"experiment": "test"}, should_stop), events.append
    )
    return figures, events


def without_times(figures):
    return {name: value for name, value in figures.items() if "seconds" not in name}


def test_an_experiment_learns_and_returns_its_figures(tmp_path):
    figures, _ = run(EXPERIMENT, tmp_path)
    assert len(figures["losses"]) == 4
    assert figures["losses"][-1] < 0.7 * figures["losses"][0]
    assert figures["parameters"] == load(tmp_path / "model.safetensors").network.parameters
    assert sum(layer["parameters"] for layer in figures["layers"]) == figures["parameters"]
    assert figures["batching"]["rows"] == 4 * (len(TEXT.source) // 4 // 5)
    greedy = load(tmp_path / "model.safetensors").generate("the ", 20, temperature=0)
    assert [sample["text"] for sample in figures["samples"]][1] == greedy
    remove_spent(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_a_resumed_experiment_equals_an_uninterrupted_one(tmp_path):
    whole, _ = run(EXPERIMENT, tmp_path / "whole")
    stopped, events = run(EXPERIMENT, tmp_path / "parts", stop_after=1)
    assert stopped is None
    assert 0 < sum(isinstance(event, EpochEnd) for event in events) < 4
    resumed, events = run(EXPERIMENT, tmp_path / "parts")
    assert notices_of(events)[0].startswith("resuming after epoch")
    assert without_times(resumed) == without_times(whole)
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def checkpointed(tmp_path):
    """Returns an experiment, its checkpoints of all epochs in `tmp_path`, and the figures of the run."""
    experiment = replace(EXPERIMENT, checkpoints=(CheckpointRule(template="weights.{epoch:02d}-{loss:.2f}"),))
    figures, _ = run(experiment, tmp_path)
    remove_spent(tmp_path)
    paths = sorted(tmp_path.glob("weights.*.safetensors"))
    assert [path.name for path in paths] == [
        f"weights.{epoch:02d}-{loss:.2f}.safetensors" for epoch, loss in enumerate(figures["losses"], 1)
    ]
    return experiment, paths, figures


def notices_of(events):
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_a_run_can_resume_from_any_kept_checkpoint(tmp_path, kept):
    experiment, paths, whole = checkpointed(tmp_path)
    for path in paths[kept:]:
        path.unlink()
    resumed, events = run(experiment, tmp_path)
    assert notices_of(events) == [f"resuming after epoch {kept}"]
    assert without_times(resumed) == without_times(whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path):
    experiment, paths, whole = checkpointed(tmp_path)
    paths[3].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    resumed, events = run(experiment, tmp_path)
    damaged, resuming = notices_of(events)
    assert paths[2].name in damaged
    assert "Using the one before it." in damaged
    assert "\n" not in damaged
    assert resuming == "resuming after epoch 2"
    assert without_times(resumed) == without_times(whole)


def test_if_every_checkpoint_is_damaged_training_starts_again(tmp_path):
    whole, _ = run(EXPERIMENT, tmp_path)
    for path in tmp_path.glob("epoch-*"):
        path.write_bytes(b"a damaged checkpoint")
    again, events = run(EXPERIMENT, tmp_path)
    assert len(notices_of(events)) == 2
    assert all("Training starts again." in notice for notice in notices_of(events))
    assert without_times(again) == without_times(whole)


def test_checkpoints_of_another_run_are_neither_used_nor_in_the_way(tmp_path):
    run(EXPERIMENT, tmp_path, identity={"experiment": "test", "mode": "other"})
    assert len(list(tmp_path.glob("epoch-*"))) == 2  # epochs 3 and 4
    stopped, events = run(EXPERIMENT, tmp_path, stop_after=1)
    assert stopped is None
    assert notices_of(events) == []
    _, events = run(EXPERIMENT, tmp_path)
    assert notices_of(events)[0].startswith("resuming after epoch")


def test_the_best_checkpoint_of_a_monitor_is_kept(tmp_path):
    rules = (
        CheckpointRule(template="best_loss", monitor="loss"),
        CheckpointRule(template="best_accuracy", monitor="accuracy", direction="max"),
        CheckpointRule(template="last"),
    )
    figures, _ = run(replace(EXPERIMENT, checkpoints=rules), tmp_path)
    paths = {rule.template: tmp_path / f"{rule.template}.safetensors" for rule in rules}
    epochs = {name: len(read_progress(path)["epochs"]) for name, path in paths.items()}
    assert epochs["last"] == 4
    assert figures["losses"].index(min(figures["losses"])) + 1 == epochs["best_loss"]
    assert figures["accuracies"].index(max(figures["accuracies"])) + 1 == epochs["best_accuracy"]


def test_a_damaged_best_checkpoint_is_named_and_only_its_samples_are_missing(tmp_path):
    experiment = replace(
        EXPERIMENT,
        batching=ContiguousStreams(length=2, batch_size=4, epoch=30),
        checkpoints=(CheckpointRule(template="best_loss", monitor="loss"),),
        showcases=(SpaceProbabilities("on the mat,", "t", 5),),
    )
    whole, _ = run(experiment, tmp_path)
    (tmp_path / "best_loss.safetensors").write_bytes(b"damaged")
    again, events = run(experiment, tmp_path)
    assert any("best_loss" in notice and "The report leaves it out." in notice for notice in notices_of(events))
    assert again["losses"] == whole["losses"]
    assert len(again["samples"]) == len(whole["samples"]) - 1


def test_a_model_trained_on_windows_generates_with_windows(tmp_path):
    experiment = replace(
        EXPERIMENT,
        batching=ShuffledWindows(length=6, stride=1, batch_size=16),
        text=replace(TEXT, held_out=40),
        showcases=(Greedy("the cat", 10), Temperatures("the cat", 10)),
    )
    figures, _ = run(experiment, tmp_path)
    model = load(tmp_path / "model.safetensors")
    assert model.window == 6
    assert figures["samples"][0]["text"] == model.generate("the cat", 10, temperature=0)
    assert len(figures["held_out_losses"]) == 4
    assert figures["held_out_losses"][-1] < figures["held_out_losses"][0]
    assert figures["held_out_score"]["nats"] == pytest.approx(figures["held_out_losses"][-1])
    assert figures["train_characters"] == len(TEXT.source) - 40


def test_rows_that_read_without_end_are_scored_from_their_state_and_from_zeros(tmp_path):
    experiment = replace(
        EXPERIMENT,
        batching=ContiguousStreams(length=1, batch_size=4, epoch=40, random_offsets=True),
        text=replace(TEXT, held_out=100),
        model=NetworkSettings(layers=2, hidden=12, inputs="one-hot"),
        checkpoints=(CheckpointRule(template="best_loss", monitor="loss"),),
        showcases=(SpaceProbabilities("on the mat,", "t", 12),),
    )
    figures, _ = run(experiment, tmp_path)
    scores = [figures[f"{name}_score"]["nats"] for name in ("train", "held_out", "held_out_cold")]
    assert len(set(scores)) == 3
    assert all(0 < score < np.log(40) for score in scores)
    titles = [sample["title"] for sample in figures["samples"]]
    assert titles == [
        "greedy, from a zero state",
        "greedy, from training's state",
        "greedy, checkpoint best_loss, from its training's state",
    ]
    for sample in figures["samples"]:
        assert len(sample["space_probabilities"]) == 12
        assert all(0 <= chance <= 1 for chance in sample["space_probabilities"])
    # Greedy text has a space only where the space is the most likely character.
    chances = [chance for sample in figures["samples"] for chance in sample["space_probabilities"]]
    letters = [letter for sample in figures["samples"] for letter in sample["text"][1:]]
    assert min(chance for chance, letter in zip(chances, letters, strict=True) if letter == " ") > 0.1
    assert all(chance <= 0.5 for chance, letter in zip(chances, letters, strict=True) if letter != " ")


def test_a_loss_that_is_not_finite_is_reported_as_none(tmp_path):
    figures, _ = run(replace(EXPERIMENT, phases=(Phase(1e38, 3),)), tmp_path)
    assert figures["losses"][-1] is None
    assert figures["samples"] == []
    again, _ = run(replace(EXPERIMENT, phases=(Phase(1e38, 3),)), tmp_path)  # already over
    assert again["losses"] == figures["losses"]
