"""The Nietzsche tutorial: five models of the same text, each a small step from the previous one."""

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
    title="The Nietzsche tutorial: a recurrent network in five steps",
    experiments={
        "char3": Experiment(
            summary="three characters through a shared ReLU layer and a shared tanh layer of 256 units",
            lesson="Three characters are less than a word. The model predicts the next one but cannot generate text.",
            text=_TEXT,
            batching=ShuffledWindows(length=3, stride=3, batch_size=512),
            model=ThreeCharacters,
            classes=56,
            phases=(Phase(0.01, 3),),
            showcases=(Predictions((" th", "and")),),
            notes=(
                "The model has 56 outputs for 57 characters. The published code counts classes by the largest target "
                "id, and at stride 3 the last character, ë, is never a target.",
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.01, 2),)},
        ),
        "char_loop": Experiment(
            summary="the same model with a loop over eight characters",
            lesson="Overlapping windows get more examples from the same text. A loop reads any number of characters.",
            text=_TEXT,
            batching=ShuffledWindows(length=8, stride=1, batch_size=512),
            model=CharacterLoop,
            phases=(Phase(0.001, 5),),
            showcases=(Predictions((_PROMPT, "queens a")),),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 3),)},
        ),
        "char_rnn": Experiment(
            summary="embedding 42, SimpleRNN 256, softmax after the last of eight characters",
            lesson="The loop is a recurrent layer. The library's layer does almost as well as the handmade one.",
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
            summary="the same with a prediction at every step, and the state carried from window to window in 64 rows",
            lesson="Carried state lets short sequences use distant context. Greedy text still repeats itself.",
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
            summary="the same with an LSTM of 512 units",
            lesson="Gates keep what matters. The samples are mostly real words, and some resemble sentences.",
            text=_TEXT,
            batching=_STATEFUL,
            model=_LSTM,
            phases=(Phase(0.001, 20), Phase(0.0001, 20)),
            showcases=(Predictions((_PROMPT,)), *_TWO_WAYS),
            notes=(
                "Gates use the hard sigmoid of Keras before 2.3, clip(0.2 x + 0.5, 0, 1). The variant uses the sigmoid "
                "of later versions.",
            ),
            quick={"text": _QUICK_TEXT, "phases": (Phase(0.001, 3), Phase(0.0001, 1))},
            default={"variants": {"sigmoid_gates": _SIGMOID_GATES}},
            variants={
                "sigmoid_gates": _SIGMOID_GATES,
                # Ten epochs are enough for the comparison.
                "overwritten_state": {"modify": overwrite, "showcases": (), "phases": (Phase(0.001, 10),)},
            },
        ),
    },
)
