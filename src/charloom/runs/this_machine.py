"""Properties of this machine that change the last bits of a result."""

import os
from collections.abc import Mapping

from charloom.kernels import kernels_in_use
from charloom.machine import jax_info, processor_name
from charloom.printable import one_line

_MAX_CHARACTERS = 1_000


def machine_info() -> dict[str, str]:
    """Returns this machine's processor, kernels and JAX version. Loads JAX."""
    kernels = kernels_in_use()
    return {
        "processor": processor_name(),
        "kernels": f"{kernels.name} {kernels.suffix}".strip(),
        "CHARLOOM_KERNELS": os.environ.get("CHARLOOM_KERNELS", "auto"),
        **jax_info(),
    }


def machine_changes(then: Mapping[str, str]) -> str | None:
    """Returns the differences between this machine and `then`, in one line; None if there are none."""
    now = machine_info()
    changes = [
        f"{one_line(name)} {one_line(before)[:100]} then, {now.get(name)} now"
        for name, before in then.items()
        if now.get(name) != before
    ]
    return ", ".join(changes)[:_MAX_CHARACTERS] if changes else None
