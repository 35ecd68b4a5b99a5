"""Calibration: a temperature for a model that is too sure of itself, or too little, fitted on the held-out text.

It is folded into the head, so that a model file knows nothing of it.
Source: Guo, Pleiss, Sun and Weinberger, 2017.
"""

import math
from dataclasses import replace

from charloom.data import TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Dense, Network

_LEAST_CHARACTERS = 1_000
"""Fewer do not tell a temperature."""
_STEP = 0.1
_MOST = 0.25

PASSES = 3
"""Passes over the held-out text that a calibration takes."""


def calibrated(network: Network, validation: TokenStream, nats_per_char: float) -> Network:
    """Returns `network` with its logits divided by the temperature that the held-out text costs least under.

    The cost is convex in the temperature's inverse; the least of a parabola through three points of it is taken, no
    further than a quarter from 1.

    Args:
        network: what is calibrated; it comes back as it is where it has no dense head.
        validation: the held-out text; a short one tells nothing.
        nats_per_char: what it costs `network`, by `evaluation_pass`.
    """
    if not isinstance(network.head, Dense) or len(validation) < _LEAST_CHARACTERS:
        return network
    less, more = (
        score_blocks(sharpened(network, 1 + step), evaluation_pass(validation)).nats_per_char
        for step in (-_STEP, _STEP)
    )
    curvature = (less - 2 * nats_per_char + more) / _STEP**2
    slope = (more - less) / (2 * _STEP)
    if not curvature > 0 or not math.isfinite(slope):
        return network
    found = sharpened(network, 1 + max(-_MOST, min(_MOST, -slope / curvature)))
    # Beyond the three points a parabola may lead astray.
    return found if score_blocks(found, evaluation_pass(validation)).nats_per_char < nats_per_char else network


def sharpened(network: Network, factor: float) -> Network:
    """Returns `network` with its logits times `factor`, the inverse of a temperature."""
    head = network.head
    assert isinstance(head, Dense)  # others have no weights to fold it into
    return replace(network, head=replace(head, kernel=head.kernel * factor, bias=head.bias * factor))
