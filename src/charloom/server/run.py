"""Running a server: its socket, its signals, and how much it may have open."""

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from charloom.errors import CharloomError
from charloom.machine import available_cores, few_threads
from charloom.server.app import application
from charloom.server.catalog import Catalog
from charloom.server.engine import Engine
from charloom.server.limits import Limits
from charloom.server.metrics import Metrics
from charloom.server.problems import ApiError, too_busy
from charloom.server.service import Service

logger = logging.getLogger("charloom.server")

_LARGEST_HEAD = 65_536
_FILES_BESIDE_CONNECTIONS = 64
_SENDING_ROOM = 131_072
_LAST_WORDS_SECONDS = 0.5
_OF_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 65_536  # the first as of malloc.h


def serve(
    paths: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    logs_prompts: bool = False,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    reloads: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves models until SIGTERM or SIGINT; what runs then has `limits.drain_timeout` to finish.

    Args:
        paths: of the model files.
        host: the address to listen on.
        port: the port; 0 for any.
        token: that requests must carry.
        logs_prompts: whether texts of requests are logged.
        hosts: names that the server goes by, beside its addresses and localhost.
        origins: other sites whose pages may ask.
        reloads: whether models are replaced when their files change.
        limits: what is taken on.
        threads: that compute; by default one for each core but one, which is left to the network.
        ready: is told the page's address when requests are taken.

    Raises:
        CharloomError: a model cannot be served, or the port not be had.
        KeyboardInterrupt: it was ended by SIGINT.
    """
    limits = limits or Limits()
    with _listening(host, port) as listener:
        _raise_open_files(limits)
        with few_threads(max(1, available_cores() - 1) if threads is None else threads):
            catalog = Catalog(paths)
        if token is None and host not in _OF_THIS_MACHINE:
            logger.warning(
                "whoever reaches %s can use this server: set CHARLOOM_TOKEN to have them carry a token", host
            )
        # What it would say is said already, or is nobody's business.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        metrics = Metrics()
        engine = Engine(limits, metrics.sending_seconds.observe)
        service = Service(catalog, engine, limits, metrics, token, logs_prompts)
        _return_memory()
        names = [*hosts, host, socket.gethostname()]
        config = uvicorn.Config(
            application(service, hosts=names, origins=origins, reloads=reloads),
            http=type("Protocol", (_Protocol,), {"limits": limits}),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(limits.drain_timeout)),
            backlog=2048,
        )
        server = _Server(config, service, lambda: ready(_address(listener)))
        server.run([listener])
        if signal.SIGINT in server.signals:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yields a socket that listens, so that a port that is taken is known before models are loaded."""
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Of each connection: the system would hold megabytes for a reader that does not read.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENDING_ROOM)
            listener.bind(address)
        except OSError as error:
            raise CharloomError(
                f"cannot listen on {host}, port {port}: {error.strerror or error}. Give another --host or --port."
            ) from None
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _raise_open_files(limits: Limits) -> None:
    """Raises the soft limit of open files, as far as it goes; says what to set where that is not enough."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = limits.connections + _FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        logger.warning(
            "this process may have %d files open, and %d connections may come: run ulimit -n %d first, or lower "
            "--max-streams",
            most,
            limits.connections,
            needed,
        )


def _return_memory() -> None:
    """Has the C library give large blocks back to the system when they are freed, where it can be told so.

    glibc comes to keep them, and small ones settle in their places: a thousand streams then took twice the memory.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and does not raise signals once more when it is done."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready
        self.signals: list[int] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_draining = True
        seconds, count = self._service.limits.drain_timeout, len(self.server_state.tasks)
        logger.info("stopping%s", f"; {count} requests have {seconds:g} s to finish" if count else "")
        # What is not done by then is told so, and not just cut off.
        last_words = max(0.1, self._service.limits.drain_timeout - _LAST_WORDS_SECONDS)
        timer = asyncio.get_running_loop().call_later(last_words, self._service.end_all)
        await super().shutdown(sockets)
        timer.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # others get no signals
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


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds: on connections, on a request's head and the time it takes, on unread answers."""

    limits = Limits()

    # asyncio has a BaseTransport here; a server's is a Transport, and uvicorn says so.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head, self._head_size = False, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            self._refuse("429 Too Many Requests", too_busy(), "retry-after: 1\r\n")
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")
        elif self.cycle is None or self.cycle.response_complete:
            # Nothing that is answered goes on here: what comes must become a request in time.
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)
        else:  # behind a body, where nobody here has any use for them, and nothing would bound them
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._have_head()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closed, it would wait for a reader for ever
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", ApiError(400, msg, code="invalid_http"))

    def _refuse(self, status: str, problem: ApiError, headers: str = "") -> None:
        body = problem.body
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.body_timeout, self.transport.close)

    def _have_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _wait_for_reader(self) -> None:
        """Ends the connection unless some of what was written is read in time, and again some after that."""
        unread = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < unread:
                self._wait_for_reader()
            else:
                self.transport.abort()

        self._reader_timer = self.loop.call_later(self.limits.reader_timeout, look)

    def _stop_waiting(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None
