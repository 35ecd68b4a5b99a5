import math

import pytest

from charloom.reports.study_figures import accuracy_text, bits_table, loss_text, sentences


def experiment(losses=(2.0, 1.5), **values):
    figures = {
        "losses": list(losses),
        "published_losses": None,
        "published": {},
        "accuracy": 0.5,
        "training_seconds": 60.0,
        "variants": {},
        "beats": [],
    }
    return figures | values


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([2.04, 1.5], "within 2.0% at each of 2 epochs. The hypothesis holds here"),
        ([2.1, 1.5], "within 5.0% at each of 2 epochs. The hypothesis does not hold here"),
        ([2.0, None], "NaN, so the hypothesis does not hold here"),
    ],
)
def test_the_hypothesis_must_hold_at_every_epoch(losses, words):
    figures = experiment([1.9, 1.3], published_losses=[2.0, 1.5], variants={"overwritten_state": experiment(losses)})
    (sentence,) = sentences("a", {"a": figures})
    assert words in sentence


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.25, "holds qualitatively"), (0.5, "does not hold")])
def test_without_published_losses_the_stalled_accuracy_decides(accuracy, verdict):
    variant = experiment(accuracy=accuracy)
    figures = experiment(accuracy=0.45, published={"accuracy": 0.3}, variants={"overwritten_state": variant})
    (sentence,) = sentences("a", {"a": figures})
    assert verdict in sentence
    assert "about 0.30" in sentence


@pytest.mark.parametrize(
    ("nats", "seconds", "verdict"), [(1.0, 30.0, "beats"), (1.0, 90.0, "does not beat"), (1.3, 30.0, "does not beat")]
)
def test_an_experiment_beats_another_with_fewer_bits_in_less_time(nats, seconds, verdict):
    ours = experiment(beats=["b", "missing"], held_out_score={"nats": nats, "accuracy": 0.6}, training_seconds=seconds)
    theirs = experiment(held_out_score={"nats": 1.2, "accuracy": 0.5})
    (sentence,) = sentences("a", {"a": ours, "b": theirs})
    assert sentence.startswith(f"a {verdict} b: {nats / math.log(2):.3f} held-out bits")


def test_a_published_nan_is_compared():
    published = {"nan_after_about_epoch": 12}
    assert "Here it is 1.5000 after 2 epochs" in sentences("a", {"a": experiment(published=published)})[0]
    assert "Here it is NaN after epoch 3" in sentences("a", {"a": experiment([2, 1, None], published=published)})[0]


def test_the_best_epoch_and_divergence_are_reported():
    figures = experiment(published={"held_out_loss": {"epoch": 2, "loss": 2.3}}, phases=[{"epochs": 3}])
    wanted = (
        "The published held-out loss was 2.30 after epoch 2. "
        "Here it is 1.9000 after that epoch, at best 1.8000 after epoch 3, the last."
    )
    assert sentences("a", {"a": figures | {"held_out_losses": [2.5, 1.9, 1.8]}}) == [wanted]
    (diverged,) = sentences("a", {"a": figures | {"held_out_losses": [2.5, 700.0]}})
    assert "at best 2.5000 after epoch 1, 700.0000 after epoch 2, where it diverged" in diverged
    (nan,) = sentences("a", {"a": figures | {"held_out_losses": [None]}})
    assert nan == "The held-out loss is NaN after every epoch."


def test_the_table_of_bits_has_every_experiment_with_held_out_text():
    score = {"nats": math.log(4), "accuracy": 0.5}
    scored = experiment(train_score=score, held_out_score={"nats": math.log(8), "accuracy": 0.4})
    diverged = experiment(train_score={"nats": None, "accuracy": 0}, held_out_score={"nats": None, "accuracy": 0})
    rows = bits_table({"a": scored | {"variants": {"other_way": scored}}, "b": diverged, "c": experiment()})
    assert [row["name"] for row in rows] == ["a", "a, other way"]
    assert (rows[0]["train_bits"], rows[0]["bits"]) == pytest.approx((2, 3))
    assert rows[0]["cold_bits"] is None


def test_losses_and_accuracies_are_formatted():
    assert loss_text(None) == "NaN"
    assert loss_text(1.23456) == "1.2346"
    assert accuracy_text({"accuracy": 0.5}) == "0.500"
    assert accuracy_text({"accuracy": 0.5, "accuracy_range": [0.1, 1], "seeds": 8}) == "0.500 (0.100 to 1.000, 8 seeds)"
