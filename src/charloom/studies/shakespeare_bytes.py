"""Bytes of Shakespeare: a question, its answer, and what would have answered it better."""

from charloom.settings import NetworkSettings, TextSettings
from charloom.studies.checkpoint_rule import CheckpointRule
from charloom.studies.demonstrations import Greedy, SpaceProbabilities, Temperatures
from charloom.studies.framing import ReadingLanes
from charloom.studies.overwritten_state import overwrite
from charloom.studies.rung import Rung, Study, StudyText
from charloom.training import Phase

_BYTES = StudyText(source="tinyshakespeare", settings=TextSettings(units="bytes"), held_out=0.1)
_CHARACTERS = StudyText(source="tinyshakespeare", held_out=0.1)
_PRIME = "I grant thou wert not married to my muse\nAnd therefore mayst without attaint o'erlook"
_SMALL = NetworkSettings(layers=2, hidden=128, inputs="one-hot")

SHAKESPEARE_BYTES = Study(
    title="Bytes of Shakespeare: a question, its answer, and what was missing",
    note="tinyshakespeare stands in for the complete works of the question, about 5 MB.",
    rungs={
        "question": Rung(
            summary="one-hot bytes, LSTM 128, LSTM 128, softmax over 256; one step an update",
            lesson="With one step an update no gradient says what the state should keep: it learns less than it could.",
            text=_BYTES,
            framing=ReadingLanes(length=1, lanes=32, epoch=10_000, random_offsets=True),
            model=_SMALL,
            phases=(Phase(0.001, 10),),
            checkpoints=(
                CheckpointRule(template="best_loss", monitor="loss", direction="min"),
                CheckpointRule(template="best_accuracy", monitor="accuracy", direction="max"),
                CheckpointRule(template="last"),
            ),
            demonstrations=(SpaceProbabilities(_PRIME, "T", 100), Temperatures("T", 200)),
            notes=(
                "A lane that comes to the text's end begins it again, with its state reset; the published code "
                "carried it over.",
            ),
            quick={
                "framing": ReadingLanes(length=1, lanes=32, epoch=1_000, random_offsets=True),
                "phases": (Phase(0.001, 2),),
            },
            variants={"overwritten_state": {"adapt": overwrite, "checkpoints": ()}},
        ),
        "answer": Rung(
            summary="one-hot over the bytes that occur, three LSTM of 1,024, softmax; still one step an update",
            lesson="Sixty times the weights and sampling instead of the arg max make the text lively, "
            "for many times the work.",
            text=_CHARACTERS,
            framing=ReadingLanes(length=1, lanes=64, epoch=1_000),
            model=NetworkSettings(layers=3, hidden=1024, inputs="one-hot"),
            phases=(Phase(0.001, 30),),
            demonstrations=(Greedy("T", 200, published=False), Temperatures("T", 300)),
            notes=(
                "30,000 updates of 64 characters are under two passes over this text: overfitting, which its author "
                "feared, would show between the train and the held-out bits.",
            ),
            quick={
                "model": NetworkSettings(layers=3, hidden=256, inputs="one-hot"),
                "framing": ReadingLanes(length=1, lanes=64, epoch=100),
                "phases": (Phase(0.001, 3),),
                "text": StudyText(source="tinyshakespeare", first=200_000, held_out=0.1),
            },
        ),
        "unrolled": Rung(
            summary="the question's own network with an unroll of 32",
            lesson="The question's network was large enough: what it lacked was a gradient that reaches back.",
            beats=("question", "answer"),
            text=_BYTES,
            framing=ReadingLanes(length=32, lanes=16, epoch=2_000),
            model=_SMALL,
            phases=(Phase(0.008, 2), Phase(0.002, 1), Phase(0.0005, 1)),
            demonstrations=(SpaceProbabilities(_PRIME, "T", 100), Temperatures("T", 300)),
            own=True,
            notes=("A rung of ours, for comparison; its rates and unroll were chosen among six by the held-out loss.",),
            quick={
                "framing": ReadingLanes(length=32, lanes=16, epoch=200),
                "phases": (Phase(0.008, 2), Phase(0.002, 1)),
            },
        ),
    },
)
