"""What of a machine changes the last bits of a result."""

import os
from collections.abc import Mapping

from charloom.kernels import kernels_in_use
from charloom.machine import jax_facts, processor_name
from charloom.printable import one_line

_MOST_SHOWN = 1_000


def machine_facts() -> dict[str, str]:
    """Returns this machine's processor, kernels and JAX; loads JAX."""
    kernels = kernels_in_use()
    return {
        "processor": processor_name(),
        "kernels": f"{kernels.name} {kernels.suffix}".strip(),
        "CHARLOOM_KERNELS": os.environ.get("CHARLOOM_KERNELS", "auto"),
        **jax_facts(),
    }


def machine_changes(then: Mapping[str, str]) -> str | None:
    """Returns what is not as it was `then`, in one line; None if nothing has changed."""
    now = machine_facts()
    changed = [
        f"{one_line(name)} {one_line(before)[:100]} then, {now.get(name)} now"
        for name, before in then.items()
        if now.get(name) != before
    ]
    return ", ".join(changed)[:_MOST_SHOWN] if changed else None
