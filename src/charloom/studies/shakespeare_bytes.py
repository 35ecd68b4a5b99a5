"""Bytes of Shakespeare: a question, its answer, and a better answer."""

from charloom.settings import NetworkSettings, TextSettings
from charloom.studies.batching import ContiguousStreams
from charloom.studies.checkpoint_rule import CheckpointRule
from charloom.studies.experiment import Experiment, Study, StudyText
from charloom.studies.overwritten_state import overwrite
from charloom.studies.showcases import Greedy, SpaceProbabilities, Temperatures
from charloom.training import Phase

_BYTES = StudyText(source="tinyshakespeare", settings=TextSettings(units="bytes"), held_out=0.1)
_CHARACTERS = StudyText(source="tinyshakespeare", held_out=0.1)
_PRIME = "I grant thou wert not married to my muse\nAnd therefore mayst without attaint o'erlook"
_SMALL = NetworkSettings(layers=2, hidden=128, inputs="one-hot")

SHAKESPEARE_BYTES = Study(
    title="Bytes of Shakespeare: a question, its answer, and a better answer",
    note="The question used the complete works, about 5 MB. charloom uses tinyshakespeare.",
    experiments={
        "question": Experiment(
            summary="one-hot bytes, LSTM 128, LSTM 128, softmax over 256; one character per step",
            lesson="With one character per step, no gradient says what the state should keep. It learns too little.",
            text=_BYTES,
            batching=ContiguousStreams(length=1, batch_size=32, epoch=10_000, random_offsets=True),
            model=_SMALL,
            phases=(Phase(0.001, 10),),
            checkpoints=(
                CheckpointRule(template="best_loss", monitor="loss", direction="min"),
                CheckpointRule(template="best_accuracy", monitor="accuracy", direction="max"),
                CheckpointRule(template="last"),
            ),
            showcases=(SpaceProbabilities(_PRIME, "T", 100), Temperatures("T", 200)),
            notes=(
                "At the end of the text, a row starts over with its state reset. The published code kept the state.",
            ),
            quick={
                "batching": ContiguousStreams(length=1, batch_size=32, epoch=1_000, random_offsets=True),
                "phases": (Phase(0.001, 2),),
            },
            variants={"overwritten_state": {"modify": overwrite, "checkpoints": ()}},
        ),
        "answer": Experiment(
            summary="one-hot over the bytes that occur, three LSTMs of 1,024, softmax; still one character per step",
            lesson="With sixty times the weights, and sampling instead of the arg max, the text gets livelier. "
            "It takes many times the work.",
            text=_CHARACTERS,
            batching=ContiguousStreams(length=1, batch_size=64, epoch=1_000),
            model=NetworkSettings(layers=3, hidden=1024, inputs="one-hot"),
            phases=(Phase(0.001, 30),),
            showcases=(Greedy("T", 200, published=False), Temperatures("T", 300)),
            notes=(
                "30,000 steps of 64 characters are less than two passes over this text. The author feared overfitting, "
                "which would show as a gap between training and held-out bits.",
            ),
            quick={
                "model": NetworkSettings(layers=3, hidden=256, inputs="one-hot"),
                "batching": ContiguousStreams(length=1, batch_size=64, epoch=100),
                "phases": (Phase(0.001, 3),),
                "text": StudyText(source="tinyshakespeare", first=200_000, held_out=0.1),
            },
        ),
        "longer_sequence": Experiment(
            summary="the network of the question with a sequence length of 32",
            lesson="The network of the question was large enough. What it lacked was a gradient that reaches back.",
            beats=("question", "answer"),
            text=_BYTES,
            batching=ContiguousStreams(length=32, batch_size=16, epoch=2_000),
            model=_SMALL,
            phases=(Phase(0.008, 2), Phase(0.002, 1), Phase(0.0005, 1)),
            showcases=(SpaceProbabilities(_PRIME, "T", 100), Temperatures("T", 300)),
            own=True,
            notes=("Our own experiment, for comparison. Its rates and length were chosen from six by held-out loss.",),
            quick={
                "batching": ContiguousStreams(length=32, batch_size=16, epoch=200),
                "phases": (Phase(0.008, 2), Phase(0.002, 1)),
            },
        ),
    },
)
