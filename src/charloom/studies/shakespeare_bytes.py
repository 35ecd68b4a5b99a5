"""Bytes of Shakespeare: a question, its answer, and what would have answered it better."""

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
    title="Bytes of Shakespeare: a question, its answer, and what was missing",
    note="tinyshakespeare stands in for the complete works of the question, about 5 MB.",
    experiments={
        "question": Experiment(
            summary="one-hot bytes, LSTM 128, LSTM 128, softmax over 256; one character per step",
            lesson="With one character per step no gradient says what the state should keep: it learns too little.",
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
                "A row that comes to the text's end begins it again, with its state reset; the published code "
                "carried it over.",
            ),
            quick={
                "batching": ContiguousStreams(length=1, batch_size=32, epoch=1_000, random_offsets=True),
                "phases": (Phase(0.001, 2),),
            },
            variants={"overwritten_state": {"modify": overwrite, "checkpoints": ()}},
        ),
        "answer": Experiment(
            summary="one-hot over the bytes that occur, three LSTM of 1,024, softmax; still one character per step",
            lesson="Sixty times the weights and sampling instead of the arg max make the text lively, "
            "for many times the work.",
            text=_CHARACTERS,
            batching=ContiguousStreams(length=1, batch_size=64, epoch=1_000),
            model=NetworkSettings(layers=3, hidden=1024, inputs="one-hot"),
            phases=(Phase(0.001, 30),),
            showcases=(Greedy("T", 200, published=False), Temperatures("T", 300)),
            notes=(
                "30,000 steps of 64 characters are under two passes over this text: overfitting, which its author "
                "feared, would show between the train and the held-out bits.",
            ),
            quick={
                "model": NetworkSettings(layers=3, hidden=256, inputs="one-hot"),
                "batching": ContiguousStreams(length=1, batch_size=64, epoch=100),
                "phases": (Phase(0.001, 3),),
                "text": StudyText(source="tinyshakespeare", first=200_000, held_out=0.1),
            },
        ),
        "unrolled": Experiment(
            summary="the question's own network with a sequence of 32",
            lesson="The question's network was large enough: what it lacked was a gradient that reaches back.",
            beats=("question", "answer"),
            text=_BYTES,
            batching=ContiguousStreams(length=32, batch_size=16, epoch=2_000),
            model=_SMALL,
            phases=(Phase(0.008, 2), Phase(0.002, 1), Phase(0.0005, 1)),
            showcases=(SpaceProbabilities(_PRIME, "T", 100), Temperatures("T", 300)),
            own=True,
            notes=(
                "Our own experiment, for comparison; its rates and length were chosen among six by the held-out loss.",
            ),
            quick={
                "batching": ContiguousStreams(length=32, batch_size=16, epoch=200),
                "phases": (Phase(0.008, 2), Phase(0.002, 1)),
            },
        ),
    },
)
