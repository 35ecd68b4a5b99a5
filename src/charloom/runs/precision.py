"""The precision of a run's matrix products."""

from dataclasses import replace

from charloom.cell_facts import CELL_FACTS
from charloom.kernels import bfloat16_instructions
from charloom.settings import NetworkSettings, TrainingSettings


def with_precision(training: TrainingSettings, network: NetworkSettings) -> tuple[TrainingSettings, list[str]]:
    """Returns the settings with a precision instead of "auto", and a notice if the given one is slow here.

    "auto" takes bfloat16 if this processor multiplies it fast and native kernels compute all layers.
    """
    is_native = CELL_FACTS[network.cell].native_id is not None and "softmax" not in network.cell_activations
    is_fast = is_native and bfloat16_instructions() is not None
    if training.precision == "auto":
        return replace(training, precision="bfloat16" if is_fast else "float32"), []
    if training.precision == "bfloat16" and not is_fast:
        return training, ["bfloat16 is slower than float32 for this network on this processor"]
    return training, []
