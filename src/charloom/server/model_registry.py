"""The models of a server by name, reloaded when their files change."""

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
    """The models of a server by name. The first one is the default.

    Attributes:
        reloads: number of reloads so far.

    Args:
        paths: the model files. A model is named after its file.

    Raises:
        CharloomError: a file cannot be loaded, or two models have the same name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.reloads = 0
        self._models: dict[str, ModelSession] = {}
        self._file_states: dict[str, tuple[int, ...]] = {}
        for path in paths:
            name = path.name.removesuffix(".safetensors")
            if not name.isprintable():
                raise CharloomError(
                    f"cannot serve a model named {quoted(name)}: the name is not printable. Rename its file."
                )
            if name in self._models:
                raise CharloomError(f"{path} and {self._models[name].path} are both named {name}. Rename one.")
            logger.info("loading %s", one_line(str(path)))
            self._file_states[name] = _file_state(path)
            self._models[name] = ModelSession.from_file(name, path)

    @property
    def models(self) -> list[ModelSession]:
        """All models, in the order of their paths."""
        return list(self._models.values())

    def named(self, name: str | None) -> ModelSession:
        """Returns the model of a name; the first one for None.

        Raises:
            ApiError: no model has that name.
        """
        if name is None:
            return self.models[0]
        if name not in self._models:
            known = quoted(", ".join(self._models))[1:-1]
            message = f"This server has no model {quoted(name)}. It has: {known}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._models[name]

    async def watch(self) -> None:
        """Watches the files forever, and reloads changed ones. If that fails, it logs why and keeps the old model."""
        tried = dict(self._file_states)
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            for name, model in list(self._models.items()):
                state = _file_state(model.path)
                # The file may still be in the middle of a write, so it must have been unchanged for one interval.
                is_settled, self._file_states[name] = state == self._file_states[name], state
                if not is_settled or state == tried[name] or not state:
                    continue
                tried[name] = state
                try:
                    new = await in_thread(ModelSession.from_file, name, model.path)
                except Exception as error:  # the loaded model stays, whatever the error
                    reason = one_line(str(error) or type(error).__name__)[:_MAX_SHOWN]
                    logger.warning("%s: keeping the loaded model: %s", one_line(name), reason)
                    continue
                self._models[name] = new
                self.reloads += 1
                logger.info("%s: reloaded from %s", one_line(name), one_line(str(model.path)))


def _file_state(path: Path) -> tuple[int, ...]:
    """Returns values that change with a file; empty if it is missing."""
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
