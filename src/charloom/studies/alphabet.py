"""The alphabet: an LSTM reads letters one at a time, in threes, in one stream, or in pieces of varying length."""

from string import ascii_uppercase

from charloom.settings import NetworkSettings
from charloom.studies.batching import PaddedPieces, ShuffledWindows, StatefulRows
from charloom.studies.experiment import Experiment, Study, StudyText
from charloom.studies.showcases import RandomPieces, Walk
from charloom.training import Phase

_TEXT = StudyText(source=ascii_uppercase, literal=True)
_SEEDS = 8
_EPSILON = 1e-8  # the default of older Keras versions
_LSTM_32 = NetworkSettings(inputs="scalar", hidden=32)

ALPHABET = Study(
    title="The alphabet: four ways to feed letters to an LSTM",
    experiments={
        "one_to_one": Experiment(
            summary="LSTM 32; one letter as input, the next one as target",
            lesson="Without context, a recurrent network is a poor way to fit 25 points on a line.",
            text=_TEXT,
            batching=ShuffledWindows(length=1, stride=1, batch_size=1),
            model=_LSTM_32,
            phases=(Phase(0.001, 500),),
            epsilon=_EPSILON,
            seeds=_SEEDS,
            accuracy_at_least=0.80,
            quick={"phases": (Phase(0.001, 300),), "seeds": 4},
        ),
        "three_to_one": Experiment(
            summary="LSTM 32; three letters as three time steps, the next one as target",
            lesson="Letters given as time steps are context that the network can use.",
            text=_TEXT,
            batching=ShuffledWindows(length=3, stride=1, batch_size=1),
            model=_LSTM_32,
            phases=(Phase(0.001, 500),),
            epsilon=_EPSILON,
            seeds=_SEEDS,
            accuracy_at_least=1.0,
            notes=(
                "The three letters are three time steps with one number each. The notebook's text describes a window "
                "of three features. charloom runs what its code does.",
            ),
            quick={"phases": (Phase(0.001, 300),), "seeds": 4},
        ),
        "stateful": Experiment(
            summary="LSTM 16; one letter at a time, with the state carried through the alphabet and reset at its end",
            lesson="With half the units it memorizes the alphabet, but can only recite it from the start.",
            text=_TEXT,
            batching=StatefulRows(length=1, batch_size=1),
            model=NetworkSettings(inputs="scalar", hidden=16),
            phases=(Phase(0.001, 300),),
            epsilon=_EPSILON,
            seeds=_SEEDS,
            accuracy_at_least=1.0,
            showcases=(
                Walk("A", 25, "walk from A, each prediction fed back"),
                Walk("K", 5, "cold start at K"),
            ),
            notes=(
                "Started at K with a zero state, it replays the beginning of the alphabet. The state, not the letter, "
                "tells it where it is.",
            ),
            quick={"seeds": 4},
        ),
        "variable_length": Experiment(
            summary="LSTM 32; pieces of one to five letters, padded on the left with zeros",
            lesson="It continues any short piece of the alphabet, wherever the piece begins.",
            text=_TEXT,
            batching=PaddedPieces(length=5, pieces=1000),
            model=_LSTM_32,
            phases=(Phase(0.001, 50),),
            epsilon=_EPSILON,
            seeds=_SEEDS,
            accuracy_at_least=0.75,
            showcases=(RandomPieces(20),),
            notes=(
                "The padding value, zero, is also the number of the letter A. Only its position tells the two apart.",
            ),
            quick={"phases": (Phase(0.001, 20),), "seeds": 4},
            default={"variants": {}},
            variants={"epochs_500": {"phases": (Phase(0.001, 500),), "accuracy_at_least": 0.93}},
        ),
    },
)
