"""charloom: small character-level recurrent language models of your own text.

    import charloom as cl
    model = cl.train("book.txt")
    print(model.generate("for thos", 400))
    model.save("book.safetensors")
    model = cl.load("book.safetensors")

Names are resolved when they are first used, so that importing charloom loads no JAX. Nothing of the program that
imports it is changed: neither its environment, nor JAX's settings, nor its logging.
"""

from importlib import import_module

__version__ = "0.1.0"

# As of `typing`, whose import takes longer than all the rest: until `charloom.cli` watches signals, Ctrl-C raises.
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
