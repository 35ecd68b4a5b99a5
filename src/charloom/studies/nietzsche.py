"""The Nietzsche ladder: five models of one text, each a small step from the one before."""

from dataclasses import replace

from charloom.settings import NetworkSettings, TextSettings
from charloom.studies.batching import ShuffledWindows, StatefulRows
from charloom.studies.experiment import Experiment, Study, StudyText
from charloom.studies.overwritten_state import overwrite
from charloom.studies.showcases import Greedy, Predictions, SlidingOnCarriedState, Temperatures
from charloom.studies.tutorial_models import CharacterLoop, ThreeCharacters
from charloom.training import Phase

_TEXT = StudyText(source="nietzsche", settings=TextSettings(lowercase=True))
_QUICK_TEXT = replace(_TEXT, first=60_000)
_PROMPT = "for thos"

_ELMAN = NetworkSettings(cell="elman", embedding=42, hidden=256)
_LSTM = NetworkSettings(cell="lstm", embedding=42, hidden=512, gate_activation="hard_sigmoid")
_STATEFUL = StatefulRows(length=8, batch_size=64)
_TWO_WAYS = (
    Greedy(_PROMPT, 400, published=False),
    SlidingOnCarriedState(_PROMPT, 400, window=8),
    Temperatures(_PROMPT, 200),
)

_SIGMOID_GATES = {
    "keras": "char_stateful_lstm",
    "model": NetworkSettings(cell="lstm", embedding=42, hidden=512),
    "showcases": (Greedy(_PROMPT, 400, published=False),),
    "notes": (),
}

NIETZSCHE = Study(
    title="The Nietzsche ladder: a recurrent network assembled in five steps",
    experiments={
        "char3": Experiment(
            summary="three characters through one shared ReLU layer and one shared tanh layer of 256",
            lesson="Three characters are less than a word: it predicts, and cannot be expected to write.",
            text=_TEXT,
            batching=ShuffledWindows(length=3, stride=3, batch_size=512),
            model=ThreeCharacters,
            classes=56,
            phases=(Phase(0.01, 3),),
            showcases=(Predictions((" th", "and")),),
            notes=(
                "There are 56 outputs for 57 characters: the published code counts the classes by the largest id that "
                "is a target, and at stride 3 the last character, ë, never is one.",
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.01, 2),)},
        ),
        "char_loop": Experiment(
            summary="the same for eight characters, as a loop",
            lesson="Windows that overlap make more of the same text, and the same code reads any number of characters.",
            text=_TEXT,
            batching=ShuffledWindows(length=8, stride=1, batch_size=512),
            model=CharacterLoop,
            phases=(Phase(0.001, 5),),
            showcases=(Predictions((_PROMPT, "queens a")),),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 3),)},
        ),
        "char_rnn": Experiment(
            summary="embedding 42, SimpleRNN 256, softmax after the last of eight characters",
            lesson="The loop is a layer: a library's recurrent layer does almost as well as the one made by hand.",
            text=_TEXT,
            batching=ShuffledWindows(length=8, stride=1, batch_size=512),
            model=_ELMAN,
            phases=(Phase(0.001, 5), Phase(0.0001, 3)),
            showcases=(
                Predictions((_PROMPT,)),
                Greedy(_PROMPT, 40),
                Temperatures(_PROMPT, 200),
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 2), Phase(0.0001, 1))},
        ),
        "char_stateful_rnn": Experiment(
            summary="the same with a prediction at every step, and its state carried from window to window in 64 rows",
            lesson="Carried state lets a short sequence see far back; greedy text still runs in circles.",
            text=_TEXT,
            batching=_STATEFUL,
            model=_ELMAN,
            phases=(Phase(0.001, 8), Phase(0.0001, 3)),
            showcases=(Predictions((_PROMPT,)), *_TWO_WAYS),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 4), Phase(0.0001, 2))},
            keras="char_stateful_rnn",
            variants={"overwritten_state": {"modify": overwrite, "showcases": (), "keras": None}},
        ),
        "char_stateful_lstm": Experiment(
            summary="an LSTM of 512 in its place",
            lesson="Gates keep what is worth keeping: mostly whole words, now and then a sentence's shape.",
            text=_TEXT,
            batching=_STATEFUL,
            model=_LSTM,
            phases=(Phase(0.001, 20), Phase(0.0001, 20)),
            showcases=(Predictions((_PROMPT,)), *_TWO_WAYS),
            notes=(
                "Keras before 2.3 had hard sigmoids, clip(0.2 x + 0.5, 0, 1), in its gates; they are used here, and "
                "sigmoids, as Keras has them now, in the variant.",
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 3), Phase(0.0001, 1))},
            default={"variants": {"sigmoid_gates": _SIGMOID_GATES}},
            variants={
                "sigmoid_gates": _SIGMOID_GATES,
                # Enough epochs to tell.
                "overwritten_state": {"modify": overwrite, "showcases": (), "phases": (Phase(0.001, 10),)},
            },
        ),
    },
)
