"""Studies: four published sets of experiments, declared as data, and the code that reruns them."""

from charloom.studies.alphabet import ALPHABET
from charloom.studies.english_major import ENGLISH_MAJOR
from charloom.studies.experiment import Experiment, Mode, Study
from charloom.studies.nietzsche import NIETZSCHE
from charloom.studies.shakespeare_bytes import SHAKESPEARE_BYTES

STUDIES: dict[str, Study] = {
    "nietzsche": NIETZSCHE,
    "alphabet": ALPHABET,
    "shakespeare-bytes": SHAKESPEARE_BYTES,
    "english-major": ENGLISH_MAJOR,
}
"""Every study by name, in the order in which charloom runs them."""

__all__ = ["STUDIES", "Experiment", "Mode", "Study"]
