"""An English major: windows of 32 gathered on the fly, and a last LSTM whose outputs are the logits."""

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
    title="An English major: softmax inside the loss, and a checkpoint an epoch",
    note="99,993 characters of tinyshakespeare, 62 of them different, stand in for the article's 98 KB of verse.",
    experiments={
        "relu_logits": Experiment(
            summary="one-hot windows of 32, LSTM 62, LSTM 62 with ReLU cells whose last output is the logits",
            lesson="It works, with logits that are never below zero, and forgets all beyond 32 characters.",
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
                "Windows are gathered as indices from shuffled starts, so that an epoch's data costs a look-up: the "
                "article's pool of 32 workers, which built one-hot arrays, is not needed.",
                "A prompt shorter than 32 characters is refused: shorter texts are none that it was trained on.",
            ),
            quick=_QUICK,
            default={"phases": (Phase(0.001, 30),)},
        ),
        "softmax_cell": Experiment(
            summary="the first version: the second LSTM's cells are softmax, its outputs taken for probabilities",
            lesson="Outputs of a gated softmax do not sum to one; a softmax belongs into the loss.",
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
