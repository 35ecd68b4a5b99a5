"""An English major: windows of 32 characters, and a last LSTM whose outputs are the logits."""

from dataclasses import replace

from charloom.settings import NetworkSettings
from charloom.studies.batching import ShuffledWindows
from charloom.studies.checkpoint_rule import CheckpointRule
from charloom.studies.experiment import Experiment, Study, StudyText
from charloom.studies.showcases import Greedy, Temperatures
from charloom.training import Phase

_TEXT = StudyText(source="tinyshakespeare", begin=205_000, characters=99_993, held_out=1025)
_PROMPTS = (
    "Get thee to a nunnery, go. Farew",
    "To be, or not to be, that is the",
    "Parting is such sweet sorrow.\nThy",
)
_RELU_LOGITS = NetworkSettings(layers=2, hidden=62, inputs="one-hot", last_cell_activation="relu", head="logits")
_QUICK = {"text": replace(_TEXT, first=15_000), "phases": (Phase(0.001, 4),)}

ENGLISH_MAJOR = Study(
    title="An English major: softmax in the loss, and a checkpoint per epoch",
    note="The article used 98 KB of verse. charloom uses 99,993 characters of tinyshakespeare, with 62 distinct ones.",
    experiments={
        "relu_logits": Experiment(
            summary="one-hot windows of 32, LSTM 62, LSTM 62 with ReLU; the last output is the logits",
            lesson="It works although its logits are never negative. It knows nothing beyond the last 32 characters.",
            text=_TEXT,
            batching=ShuffledWindows(length=32, stride=1, batch_size=32, drop_last=True),
            model=_RELU_LOGITS,
            phases=(Phase(0.001, 256),),
            checkpoints=(
                CheckpointRule(template="weights.{epoch:02d}-{val_loss:.2f}"),
                CheckpointRule(template="best", monitor="val_loss", direction="min"),
            ),
            showcases=(
                *(Greedy(prompt, 81, published=prompt == _PROMPTS[0], checkpoint="best") for prompt in _PROMPTS),
                Greedy(_PROMPTS[0], 81, published=False),
                Temperatures(_PROMPTS[0], 200, checkpoint="best"),
            ),
            notes=(
                "The article used a pool of 32 workers to build one-hot arrays. charloom looks windows up by index and "
                "needs no workers.",
                "charloom refuses prompts shorter than 32 characters, because the model was not trained on them.",
            ),
            quick=_QUICK,
            default={"phases": (Phase(0.001, 30),)},
        ),
        "softmax_cell": Experiment(
            summary="first version: the second LSTM uses softmax, and its outputs serve as probabilities",
            lesson="Outputs of a gated softmax do not sum to one. The softmax belongs in the loss.",
            text=_TEXT,
            batching=ShuffledWindows(length=32, stride=1, batch_size=32, drop_last=True),
            model=replace(_RELU_LOGITS, last_cell_activation="softmax", head="probabilities"),
            phases=(Phase(0.001, 30),),
            checkpoints=(CheckpointRule(template="weights.{epoch:02d}-{val_loss:.2f}"),),
            showcases=(Greedy(_PROMPTS[0], 81, published=False),),
            quick=_QUICK,
        ),
    },
)
