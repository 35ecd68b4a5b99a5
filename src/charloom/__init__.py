"""charloom: small character-level recurrent language models, trained on your own text.

    import charloom as cl
    model = cl.train("book.txt")
    print(model.generate("for thos", 400))
    model.save("book.safetensors")
    model = cl.load("book.safetensors")

Public names are loaded on first use, so importing charloom does not import JAX. The import changes nothing in the host
program: not its environment variables, not JAX's settings and not its logging.
"""

from importlib import import_module

__version__ = "0.1.0"

# Importing `typing` would take longer than everything else here. Until `charloom.cli` handles signals, Ctrl-C raises.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from charloom.errors import CharloomError as CharloomError
    from charloom.inference import Next as Next
    from charloom.inference import Score as Score
    from charloom.model import TextModel as TextModel
    from charloom.model import load as load
    from charloom.runs import resume as resume
    from charloom.runs import train as train
    from charloom.text import Vocabulary as Vocabulary

_HOMES = {
    "CharloomError": "charloom.errors",
    "Next": "charloom.inference",
    "Score": "charloom.inference",
    "TextModel": "charloom.model",
    "Vocabulary": "charloom.text",
    "load": "charloom.model",
    "resume": "charloom.runs",
    "train": "charloom.runs",
}

__all__ = ["CharloomError", "Next", "Score", "TextModel", "Vocabulary", "__version__", "load", "resume", "train"]


def __getattr__(name: str) -> "Any":
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'charloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
