import pytest

from charloom.studies.checkpoint_rule import CheckpointRule

EPOCHS = [{"epoch": 1, "loss": 2.0, "accuracy": 0.3, "val_loss": 2.375}]


def test_names_contain_the_figures_of_the_epoch():
    rule = CheckpointRule(template="weights.{epoch:02d}-{val_loss:.2f}")
    assert rule.name(EPOCHS[0]) == "weights.01-2.38.safetensors"
    assert rule.kept(EPOCHS) == 0


@pytest.mark.parametrize(
    ("direction", "values", "kept"),
    [
        ("min", [3, 2, 2, 1, 4], [0, 1, 1, 3, 3]),
        ("max", [3, 2, 2, 1, 4], [0, 0, 0, 0, 4]),
        ("min", [float("nan"), 2, float("nan"), 1], [-1, 1, 1, 3]),
    ],
)
def test_only_an_epoch_that_is_better_than_all_before_is_kept(direction, values, kept):
    rule = CheckpointRule(template="best", monitor="loss", direction=direction)
    epochs = [{"loss": value} for value in values]
    assert [rule.kept(epochs[: count + 1]) for count in range(len(epochs))] == kept
