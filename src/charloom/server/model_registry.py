"""The models that a server has, by name, and their replacement when their files change."""

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from charloom.errors import CharloomError
from charloom.printable import one_line, quoted
from charloom.server.model_session import ModelSession
from charloom.server.problems import ApiError
from charloom.server.threads import in_thread

logger = logging.getLogger("charloom.server")

_POLL_SECONDS = 1.0
_MAX_SHOWN = 600


class ModelRegistry:
    """Models by name; the first is asked where no name is given.

    Attributes:
        reloads: how many models were replaced so far.

    Args:
        paths: of the model files; a model is named as its file.

    Raises:
        CharloomError: a file cannot be served, or two have one name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.reloads = 0
        self._models: dict[str, ModelSession] = {}
        self._file_states: dict[str, tuple[int, ...]] = {}
        for path in paths:
            name = path.name.removesuffix(".safetensors")
            if not name.isprintable():
                raise CharloomError(f"a model cannot be asked for by the name {quoted(name)}. Rename its file.")
            if name in self._models:
                raise CharloomError(f"{path} and {self._models[name].path} are both named {name}. Rename one.")
            logger.info("loading %s", one_line(str(path)))
            self._file_states[name] = _file_state(path)
            self._models[name] = ModelSession.from_file(name, path)

    @property
    def models(self) -> list[ModelSession]:
        """All of them, in the order in which they were given."""
        return list(self._models.values())

    def named(self, name: str | None) -> ModelSession:
        """Returns a model.

        Raises:
            ApiError: there is none of that name.
        """
        if name is None:
            return self.models[0]
        if name not in self._models:
            known = quoted(", ".join(self._models))[1:-1]
            message = f"There is no model {quoted(name)} here, but: {known}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._models[name]

    async def watch(self) -> None:
        """Looks for files that have changed, for ever; a damaged one is told of, and the model stays what it was."""
        tried = dict(self._file_states)
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            for name, model in list(self._models.items()):
                state = _file_state(model.path)
                # What has just changed may still be written: it is looked at when it has stayed the same for a moment.
                is_settled, self._file_states[name] = state == self._file_states[name], state
                if not is_settled or state == tried[name] or not state:
                    continue
                tried[name] = state
                try:
                    new = await in_thread(ModelSession.from_file, name, model.path)
                except Exception as error:  # whatever it is, the old one is there
                    reason = one_line(str(error) or type(error).__name__)[:_MAX_SHOWN]
                    logger.warning("%s stays what it was: %s", one_line(name), reason)
                    continue
                self._models[name] = new
                self.reloads += 1
                logger.info("%s: reloaded from %s", one_line(name), one_line(str(model.path)))


def _file_state(path: Path) -> tuple[int, ...]:
    """Returns what changes with a file; nothing where it is missing."""
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
