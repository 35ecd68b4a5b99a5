"""Calibration: corrects an overconfident or underconfident model with a temperature, fitted on the held-out text.

The temperature is multiplied into the head's weights, so the model file needs no field for it.
Source: Guo, Pleiss, Sun and Weinberger, 2017.
"""

import math
from dataclasses import replace

from charloom.data import TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Dense, Network

_MIN_CHARACTERS = 1_000
"""Fewer held-out characters are not enough to fit a temperature."""
_STEP = 0.1
_MAX_CHANGE = 0.25

CALIBRATION_PASSES = 3
"""How many passes over the held-out text a calibration takes."""


def calibrate(network: Network, validation: TokenStream, nats_per_char: float) -> Network:
    """Returns `network` with its logits divided by the temperature that minimizes the loss on the held-out text.

    The loss is convex in the temperature's inverse. This takes the minimum of a parabola through three of its points,
    limited to a change of a quarter.

    Args:
        network: the network; returned unchanged if it does not have a dense head.
        validation: the held-out text. If it is too short, the network is returned unchanged.
        nats_per_char: the loss of `network` on it, by `evaluation_pass`.
    """
    if not isinstance(network.head, Dense) or len(validation) < _MIN_CHARACTERS:
        return network
    below, above = (
        score_blocks(scale_logits(network, 1 + step), evaluation_pass(validation)).nats_per_char
        for step in (-_STEP, _STEP)
    )
    curvature = (below - 2 * nats_per_char + above) / _STEP**2
    slope = (above - below) / (2 * _STEP)
    if not curvature > 0 or not math.isfinite(slope):
        return network
    scaled = scale_logits(network, 1 + max(-_MAX_CHANGE, min(_MAX_CHANGE, -slope / curvature)))
    # Beyond the three points the parabola may be wrong.
    return scaled if score_blocks(scaled, evaluation_pass(validation)).nats_per_char < nats_per_char else network


def scale_logits(network: Network, factor: float) -> Network:
    """Returns `network` with its logits multiplied by `factor`, the inverse of a temperature."""
    head = network.head
    assert isinstance(head, Dense)  # other heads have no weights
    return replace(network, head=replace(head, kernel=head.kernel * factor, bias=head.bias * factor))
