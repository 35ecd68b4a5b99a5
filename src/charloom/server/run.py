"""Runs a server: its socket, its signals and its limits of open files and memory."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import uvicorn
from starlette.applications import Starlette

from charloom.errors import CharloomError, SettingError
from charloom.printable import one_line, quoted
from charloom.server.app import application
from charloom.server.connection import Connection
from charloom.server.connection_limiter import SPARE_CONNECTIONS, ConnectionLimiter
from charloom.server.engine import Engine
from charloom.server.guard import require_token
from charloom.server.limits import Limits
from charloom.server.metrics import Metrics
from charloom.server.model_registry import ModelRegistry
from charloom.server.service import Service
from charloom.server.threads import interruptibly
from charloom.settings import require_path

logger = logging.getLogger("charloom.server")

_OTHER_FILES = 64 + SPARE_CONNECTIONS
_SEND_BUFFER_BYTES = 131_072
_END_STREAMS_SECONDS = 0.5
_CANCEL_SECONDS = 0.25
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 65_536  # M_MMAP_THRESHOLD of malloc.h
_ARENA_MAX, _ARENAS = -8, 2  # M_ARENA_MAX of malloc.h
_TRIM_SECONDS = 5.0


def serve(
    paths: str | bytes | os.PathLike[Any] | Sequence[str | bytes | os.PathLike[Any]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    logs_prompts: bool = False,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    reloads: bool = False,
    limits: Limits | None = None,
    while_loading: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves models until SIGTERM or SIGINT. Running requests then have `limits.drain_timeout` to finish.

    Args:
        paths: one model file, or several.
        host: the address to listen on.
        port: the port; 0 for any free port.
        token: the token that requests must carry: printable ASCII characters without outer spaces.
        logs_prompts: whether the texts of requests are logged.
        hosts: host names of the server, in addition to its addresses and localhost.
        origins: other sites whose pages may send requests.
        reloads: whether models are replaced when their files change.
        limits: limits on requests and memory.
        while_loading: entered while models are loaded, for example to limit the number of threads.
        ready: called with the page's address when the server accepts requests.

    Raises:
        SettingError: a path is invalid, or a header cannot carry the token.
        CharloomError: a model cannot be loaded, the port is not available, or this thread runs an event loop.
        CharloomError: the engine has died.
        KeyboardInterrupt: SIGINT stopped the server.
    """
    _require_no_event_loop()
    given = [paths] if isinstance(paths, str | bytes | os.PathLike) else paths
    files = [require_path("model", path) for path in given]
    if token is not None:
        require_token("token", token)
    limits = limits or Limits()
    _configure_malloc()
    with _listening(host, port) as listener:
        _raise_open_files(limits)
        with while_loading():
            registry = interruptibly(ModelRegistry, files)
        if token is None and host not in _LOOPBACK_HOSTS:
            logger.warning(
                "anyone who can reach %s can use this server. Set CHARLOOM_TOKEN to require a token",
                one_line(host),
            )
        metrics = Metrics()
        engine = Engine(limits, metrics.sending_seconds.observe)
        service = Service(registry, engine, limits, metrics, token, logs_prompts)
        names = [*hosts, host, socket.gethostname()]
        config = _uvicorn_config(service, application(service, hosts=names, origins=origins, reloads=reloads))
        server = _Server(config, service, lambda: ready(_address(listener)))
        with _quiet_uvicorn():
            server.run([listener])
        if service.has_failed:
            raise CharloomError(
                "the engine that generates texts has died. See the log for the reason, and restart the server."
            )
        if signal.SIGINT in server.signals:
            raise KeyboardInterrupt


def _uvicorn_config(service: Service, app: Starlette) -> uvicorn.Config:
    limits = service.limits
    attributes = {"limiter": ConnectionLimiter(limits), "record": staticmethod(service.record)}
    return uvicorn.Config(
        app,
        http=type("_Connection", (Connection,), attributes),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(limits.drain_timeout)),
        backlog=2048,
    )


def _require_no_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise CharloomError(
        "serve() cannot run in a thread with a running event loop, such as a notebook's. Run it in another thread: "
        "threading.Thread(target=serve, args=(paths,), daemon=True).start()"
    )


@contextlib.contextmanager
def _quiet_uvicorn() -> Iterator[None]:
    """Silences uvicorn's own log, which would repeat the server's."""
    uvicorns = logging.getLogger("uvicorn")
    before = uvicorns.level
    uvicorns.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        uvicorns.setLevel(before)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yields a listening socket, so that a port in use is reported before models are loaded.

    Raises:
        SettingError: the port is out of range.
        CharloomError: the system does not allow this process to listen there.
    """
    if not 0 <= port <= 65_535:
        raise SettingError("port", f"must be from 0 to 65,535, got {port}")
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Per connection: otherwise the system buffers megabytes for a client that does not read.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            listener.bind(address)
        except (OSError, ValueError) as error:  # an invalid host name is a UnicodeError
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise CharloomError(
                f"cannot listen on {quoted(host)}, port {port}: {reason}. Give another --host or --port."
            ) from None
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _raise_open_files(limits: Limits) -> None:
    """Raises the soft limit of open files as far as possible, and logs what to set if that is not enough."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = limits.connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        logger.warning(
            "this process may open %d files, but the server accepts %d connections. Run 'ulimit -n %d' first, or lower "
            "--max-streams",
            most,
            limits.connections,
            needed,
        )


def _configure_malloc() -> None:
    """Makes the C library return large freed blocks to the system, if it supports that.

    glibc tends to keep them, and small blocks then occupy them: a thousand streams took twice the memory.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_ARENA_MAX, _ARENAS)  # otherwise each thread has a heap, with its own gaps


class _Server(uvicorn.Server):
    """uvicorn's server, which also reports when it is ready, and does not raise its signals again when it is done."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready
        self.signals: list[int] = []
        self._trimmed = 0.0
        self._answered = 0
        service.shut_down = self._shut_down

    def _shut_down(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        self._trim()
        return await super().on_tick(counter)

    def _trim(self) -> None:
        """Returns free memory between blocks to the system when the server is idle."""
        now, answered = time.monotonic(), self.server_state.total_requests
        if self.server_state.tasks or answered == self._answered or now - self._trimmed < _TRIM_SECONDS:
            return
        self._trimmed, self._answered = now, answered
        with contextlib.suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_draining = True
        seconds, count = self._service.limits.drain_timeout, len(self.server_state.tasks)
        logger.info(
            "stopping%s",
            f"; {count} {'request has' if count == 1 else 'requests have'} {seconds:g} s to finish" if count else "",
        )
        # Requests that are still running by then get an error instead of a closed connection.
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(max(0.1, seconds - _END_STREAMS_SECONDS), self._service.end_all),
            loop.call_later(max(0.1, seconds - _CANCEL_SECONDS), self._cancel_all),
        ]
        await super().shutdown(sockets)
        for timer in timers:
            timer.cancel()

    def _cancel_all(self) -> None:
        """Cancels the requests that are still running, early enough to send a response."""
        for task in self.server_state.tasks:
            task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # other threads receive no signals
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        self.signals.append(number)
        self.handle_exit(number, frame)
