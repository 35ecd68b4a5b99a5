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


def test_a_experiment_learns_and_tells_what_came_of_it(tmp_path):
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


def test_a_stopped_experiment_goes_on_and_comes_to_the_same(tmp_path):
    whole, _ = run(EXPERIMENT, tmp_path / "whole")
    stopped, events = run(EXPERIMENT, tmp_path / "parts", stop_after=1)
    assert stopped is None
    assert 0 < sum(isinstance(event, EpochEnd) for event in events) < 4
    resumed, events = run(EXPERIMENT, tmp_path / "parts")
    assert notices_of(events)[0].startswith("going on after epoch")
    assert without_times(resumed) == without_times(whole)
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def checkpointed(tmp_path):
    """Returns a folder with a checkpoint of every epoch but the model, and the figures of the whole run."""
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
def test_any_kept_checkpoint_can_be_gone_on_from(tmp_path, kept):
    experiment, paths, whole = checkpointed(tmp_path)
    for path in paths[kept:]:
        path.unlink()
    resumed, events = run(experiment, tmp_path)
    assert notices_of(events) == [f"going on after epoch {kept}"]
    assert without_times(resumed) == without_times(whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    experiment, paths, whole = checkpointed(tmp_path)
    paths[3].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    resumed, events = run(experiment, tmp_path)
    damaged, going_on = notices_of(events)
    assert paths[2].name in damaged
    assert "The one before it is used" in damaged
    assert "\n" not in damaged
    assert going_on == "going on after epoch 2"
    assert without_times(resumed) == without_times(whole)


def test_where_every_checkpoint_is_damaged_training_begins_anew(tmp_path):
    whole, _ = run(EXPERIMENT, tmp_path)
    for path in tmp_path.glob("epoch-*"):
        path.write_bytes(b"what once was a checkpoint")
    again, events = run(EXPERIMENT, tmp_path)
    assert len(notices_of(events)) == 2
    assert all("Training starts again" in notice for notice in notices_of(events))
    assert without_times(again) == without_times(whole)


def test_another_runs_checkpoints_are_not_gone_on_from_and_not_in_the_way(tmp_path):
    run(EXPERIMENT, tmp_path, identity={"experiment": "test", "mode": "other"})
    assert len(list(tmp_path.glob("epoch-*"))) == 2  # epochs 3 and 4
    stopped, events = run(EXPERIMENT, tmp_path, stop_after=1)
    assert stopped is None
    assert notices_of(events) == []
    _, events = run(EXPERIMENT, tmp_path)
    assert notices_of(events)[0].startswith("going on after epoch")


def test_the_best_of_a_monitor_is_kept(tmp_path):
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


def test_a_best_checkpoint_that_is_damaged_is_named_and_costs_nothing_else(tmp_path):
    experiment = replace(
        EXPERIMENT,
        batching=ContiguousStreams(length=2, batch_size=4, epoch=30),
        checkpoints=(CheckpointRule(template="best_loss", monitor="loss"),),
        showcases=(SpaceProbabilities("on the mat,", "t", 5),),
    )
    whole, _ = run(experiment, tmp_path)
    (tmp_path / "best_loss.safetensors").write_bytes(b"damaged")
    again, events = run(experiment, tmp_path)
    assert any("best_loss" in notice and "Nothing is shown of it" in notice for notice in notices_of(events))
    assert again["losses"] == whole["losses"]
    assert len(again["samples"]) == len(whole["samples"]) - 1


def test_windows_are_written_with_as_they_were_read(tmp_path):
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


def test_rows_that_read_on_are_scored_from_their_own_state_and_from_zeros(tmp_path):
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
    # A space comes where it was the most likely of all, which it then is by at least one in as many as there are.
    chances = [chance for sample in figures["samples"] for chance in sample["space_probabilities"]]
    letters = [letter for sample in figures["samples"] for letter in sample["text"][1:]]
    assert min(chance for chance, letter in zip(chances, letters, strict=True) if letter == " ") > 0.1
    assert all(chance <= 0.5 for chance, letter in zip(chances, letters, strict=True) if letter != " ")


def test_a_loss_that_is_no_number_is_reported_as_none(tmp_path):
    figures, _ = run(replace(EXPERIMENT, phases=(Phase(1e38, 3),)), tmp_path)
    assert figures["losses"][-1] is None
    assert figures["samples"] == []
    again, _ = run(replace(EXPERIMENT, phases=(Phase(1e38, 3),)), tmp_path)  # over already
    assert again["losses"] == figures["losses"]
