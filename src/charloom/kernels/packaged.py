"""The libraries that a wheel carries, one per instruction set. A source distribution or an editable install has none.

The wheel's manifest has the SHA-256 of each library. charloom does not load a file that differs from it.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from charloom.kernels.instruction_sets import processor_features, this_system, usable

logger = logging.getLogger("charloom")

FOLDER = Path(__file__).parent / "libraries"
MANIFEST = "manifest.json"


class PackagedLibrary(NamedTuple):
    """A library of the wheel.

    Attributes:
        path: the file, which is as it was built.
        sha256: its SHA-256.
        why: why it is the one, in a few words.
    """

    path: Path
    sha256: str
    why: str


def packaged_library(folder: Path = FOLDER) -> PackagedLibrary | None:
    """Returns the wheel's best intact library for this processor; None if there is none.

    Each better one that is missing or was changed is logged in one line.
    """
    carried = _manifest(folder)
    if not carried:
        return None
    intact = True
    for instruction_set in usable(this_system(), processor_features()):
        if instruction_set.name not in carried:
            continue
        path, wanted = folder / f"{instruction_set.name}.so", carried[instruction_set.name]
        if (problem := _problem(path, wanted)) is None:
            rank = f"the best of {len(carried)} for this processor" if intact else "better ones are damaged"
            return PackagedLibrary(path, wanted, f"{instruction_set.label} from the wheel, {rank}")
        intact = False
        logger.warning("not using %s: %s. Reinstall charloom", path, problem)
    return None


def _manifest(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each library that the wheel had; empty if this is no such wheel or it is damaged."""
    path = folder / MANIFEST
    try:
        manifest: Any = json.loads(path.read_bytes())
        return {str(name): str(sha256) for name, sha256 in manifest["libraries"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        logger.warning("not using the kernels in %s: %s is damaged. Reinstall charloom", folder, MANIFEST)
        return {}


def _problem(path: Path, sha256: str) -> str | None:
    """Returns what is wrong with a library; None if it is as it was built."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return error.strerror or str(error)
    return None if hashlib.sha256(content).hexdigest() == sha256 else "it was changed since the wheel was built"
