"""The Nietzsche ladder: five models of one text, each a small step from the one before."""

from dataclasses import replace

from charloom.settings import NetworkSettings, TextSettings
from charloom.studies.demonstrations import Greedy, Predictions, SlidingOnCarriedState, Temperatures
from charloom.studies.framing import ShuffledWindows, StatefulRows
from charloom.studies.ladder import CharacterLoop, ThreeCharacters
from charloom.studies.overwritten_state import overwrite
from charloom.studies.rung import Rung, Study, StudyText
from charloom.training import Phase

_TEXT = StudyText(source="nietzsche", settings=TextSettings(lowercase=True))
_QUICK_TEXT = replace(_TEXT, first=60_000)
_PROMPT = "for thos"

_ELMAN = NetworkSettings(cell="elman", embedding=42, hidden=256)
_LSTM = NetworkSettings(cell="lstm", embedding=42, hidden=512, gate_activation="hard_sigmoid")
_STATEFUL = StatefulRows(length=8, lanes=64)
_TWO_WAYS = (
    Greedy(_PROMPT, 400, published=False),
    SlidingOnCarriedState(_PROMPT, 400, window=8),
    Temperatures(_PROMPT, 200),
)

_SIGMOID_GATES = {
    "keras": "char_stateful_lstm",
    "model": NetworkSettings(cell="lstm", embedding=42, hidden=512),
    "demonstrations": (Greedy(_PROMPT, 400, published=False),),
    "notes": (),
}

NIETZSCHE = Study(
    title="The Nietzsche ladder: a recurrent network assembled in five steps",
    rungs={
        "char3": Rung(
            summary="three characters through one shared ReLU layer and one shared tanh layer of 256",
            lesson="Three characters are less than a word: it predicts, and cannot be expected to write.",
            text=_TEXT,
            framing=ShuffledWindows(length=3, stride=3, lanes=512),
            model=ThreeCharacters,
            classes=56,
            phases=(Phase(0.01, 3),),
            demonstrations=(Predictions((" th", "and")),),
            notes=(
                "There are 56 outputs for 57 characters: the published code counts the classes by the largest id that "
                "is a target, and at stride 3 the last character, ë, never is one.",
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.01, 2),)},
        ),
        "char_loop": Rung(
            summary="the same for eight characters, as a loop",
            lesson="Windows that overlap make more of the same text, and the same code reads any number of characters.",
            text=_TEXT,
            framing=ShuffledWindows(length=8, stride=1, lanes=512),
            model=CharacterLoop,
            phases=(Phase(0.001, 5),),
            demonstrations=(Predictions((_PROMPT, "queens a")),),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 3),)},
        ),
        "char_rnn": Rung(
            summary="embedding 42, SimpleRNN 256, softmax after the last of eight characters",
            lesson="The loop is a layer: a library's recurrent layer does almost as well as the one made by hand.",
            text=_TEXT,
            framing=ShuffledWindows(length=8, stride=1, lanes=512),
            model=_ELMAN,
            phases=(Phase(0.001, 5), Phase(0.0001, 3)),
            demonstrations=(
                Predictions((_PROMPT,)),
                Greedy(_PROMPT, 40),
                Temperatures(_PROMPT, 200),
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 2), Phase(0.0001, 1))},
        ),
        "char_stateful_rnn": Rung(
            summary="the same with a prediction at every step, and its state carried from row to row in 64 lanes",
            lesson="Carried state lets a short unroll see far back; greedy text still runs in circles.",
            text=_TEXT,
            framing=_STATEFUL,
            model=_ELMAN,
            phases=(Phase(0.001, 8), Phase(0.0001, 3)),
            demonstrations=(Predictions((_PROMPT,)), *_TWO_WAYS),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 4), Phase(0.0001, 2))},
            keras="char_stateful_rnn",
            variants={"overwritten_state": {"adapt": overwrite, "demonstrations": (), "keras": None}},
        ),
        "char_stateful_lstm": Rung(
            summary="an LSTM of 512 in its place",
            lesson="Gates keep what is worth keeping: mostly whole words, now and then a sentence's shape.",
            text=_TEXT,
            framing=_STATEFUL,
            model=_LSTM,
            phases=(Phase(0.001, 20), Phase(0.0001, 20)),
            demonstrations=(Predictions((_PROMPT,)), *_TWO_WAYS),
            notes=(
                "Keras before 2.3 had hard sigmoids, clip(0.2 x + 0.5, 0, 1), in its gates; they are used here, and "
                "sigmoids, as Keras has them now, in the variant.",
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 3), Phase(0.0001, 1))},
            default={"variants": {"sigmoid_gates": _SIGMOID_GATES}},
            variants={
                "sigmoid_gates": _SIGMOID_GATES,
                # Enough epochs to tell.
                "overwritten_state": {"adapt": overwrite, "demonstrations": (), "phases": (Phase(0.001, 10),)},
            },
        ),
    },
)
