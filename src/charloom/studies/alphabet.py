"""The alphabet: what an LSTM sees of letters one at a time, in threes, in one stream, or in pieces of any length."""

from string import ascii_uppercase

from charloom.settings import NetworkSettings
from charloom.studies.batching import PaddedPieces, ShuffledWindows, StatefulRows
from charloom.studies.experiment import Experiment, Study, StudyText
from charloom.studies.showcases import RandomPieces, Walk
from charloom.training import Phase

_TEXT = StudyText(source=ascii_uppercase, literal=True)
_SEEDS = 8
_EPSILON = 1e-8  # that of the older Keras
_LSTM_32 = NetworkSettings(inputs="scalar", hidden=32)

ALPHABET = Study(
    title="The alphabet: what an LSTM sees, by how its letters come",
    experiments={
        "one_to_one": Experiment(
            summary="LSTM 32, one letter in, the next one out",
            lesson="Without context a recurrent network is a poor way to fit 25 points of a line.",
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
            summary="LSTM 32, three letters in as three steps, the next one out",
            lesson="Letters as steps of a sequence are context that the network can use.",
            text=_TEXT,
            batching=ShuffledWindows(length=3, stride=1, batch_size=1),
            model=_LSTM_32,
            phases=(Phase(0.001, 500),),
            epsilon=_EPSILON,
            seeds=_SEEDS,
            accuracy_at_least=1.0,
            notes=(
                "The three letters are three time steps of one number each. The notebook's words call it a window of "
                "three features; its code is what is run here.",
            ),
            quick={"phases": (Phase(0.001, 300),), "seeds": 4},
        ),
        "stateful": Experiment(
            summary="LSTM 16, one letter at a time, its state carried through the alphabet and reset after it",
            lesson="With half the units it learns the alphabet by heart, but only from its start.",
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
            notes=("From a cold K it replays the alphabet's beginning: the state, not the letter, says where it is.",),
            quick={"seeds": 4},
        ),
        "variable_length": Experiment(
            summary="LSTM 32 on pieces of one to five letters, filled up from the left with zeros",
            lesson="It answers any short piece of the alphabet, wherever it begins.",
            text=_TEXT,
            batching=PaddedPieces(length=5, pieces=1000),
            model=_LSTM_32,
            phases=(Phase(0.001, 50),),
            epsilon=_EPSILON,
            seeds=_SEEDS,
            accuracy_at_least=0.75,
            showcases=(RandomPieces(20),),
            notes=("A zero that fills up is also the number of the letter A; only its place tells the two apart.",),
            quick={"phases": (Phase(0.001, 20),), "seeds": 4},
            default={"variants": {}},
            variants={"epochs_500": {"phases": (Phase(0.001, 500),), "accuracy_at_least": 0.93}},
        ),
    },
)
