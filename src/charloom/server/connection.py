"""One client's connection: uvicorn's HTTP/1.1 with limits on what a client may send, keep open and leave unread.

It also settles what uvicorn leaves open. Pipelined requests are parsed only as fast as they are answered.
Invalid input is refused in the API's error format, after the pending responses.
A client that closes its sending side (a half-closed connection) still gets its responses.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from charloom.server.connection_limiter import ConnectionLimiter, Idleness
from charloom.server.problems import ApiError, too_busy

ENDED = "charloom.ended"
"""Key of a request's scope. Its value is a function that returns the status of a request whose connection ended."""
CLIENT_LEFT = 499
"""Status of a request whose client left before the response was complete, as in nginx."""
NOT_READ = 408
"""Status of a request whose client stopped reading the response."""

_MAX_HEAD_BYTES = 65_536
_CHUNK_BYTES = 4096
"""Number of bytes that are parsed at a time. They contain few enough requests to keep them all in memory."""
_MAX_UNPARSED = 65_536
"""Maximum number of bytes that wait behind unanswered requests. Beyond it, reading from the client is paused."""
_LINGER_SECONDS = 2.0
_OPEN_WHEN_FULL = b"/health"
_FIRST_BYTES = b"HTTP/1.1 "
_PROBE_SECONDS = (0.02, 0.02, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class Connection(HttpToolsProtocol):
    """A connection.

    Attributes:
        limiter: limits the server's open connections.
        record: called with the client's address and the status of each response that the application did not send.
        ended: status of requests whose responses were incomplete when the connection ended; 0 until then.
        is_lingering: whether nothing more is sent and all input is discarded.
    """

    limiter: ConnectionLimiter
    record: Callable[[str, int], None]

    # asyncio declares a BaseTransport here. A server gets a Transport, and uvicorn declares it so.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # see above
        super().connection_made(transport)
        self._unparsed = bytearray()
        self._pending: deque[_PendingResponse] = deque()  # responses in progress, the oldest first
        self._in_head, self._head_size = False, 0
        self._ignores_input = self.is_lingering = False
        self._is_half_closed = self._is_spare = False
        self._final_refusal: ApiError | None = None  # a refusal to send after the pending responses
        self.ended = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self.limiter.add(self)
        if self.limiter.is_overfull:
            self._fail(too_busy())
        else:
            self._is_spare = self.limiter.is_full
            self._expect_head()
            self.limiter.set_idleness(self, Idleness.SILENT)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or CLIENT_LEFT
        self._ignores_input = True
        self._unparsed.clear()
        self.pipeline.clear()
        self.limiter.remove(self)
        for timer in (self._head_timer, self._reader_timer, self._linger_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        for response in self._pending:  # uvicorn notifies only the last of them
            response.disconnect()
        super().connection_lost(exc)

    def close_idle(self) -> None:
        """Closes the connection, which has no request in progress, to make room for another."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    # Input

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._ignores_input:
            return
        self._unparsed += data
        self._parse()
        if len(self._unparsed) > _MAX_UNPARSED:
            self.flow.pause_reading()

    def _parse(self) -> None:
        """Parses the received bytes, up to a request that has to wait for the response to another."""
        while self._unparsed and not self.pipeline and not self._ignores_input and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            piece = bytes(self._unparsed[:_CHUNK_BYTES])
            del self._unparsed[:_CHUNK_BYTES]
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                self._decline_upgrade(piece[upgrade.args[0] :])
            except httptools.HttpParserError:
                self._fail(ApiError(400, "The request is not valid HTTP/1.1.", code="invalid_http"))
            if self._in_head:
                self._head_size += len(piece)
                if self._head_size > _MAX_HEAD_BYTES:
                    self._fail(ApiError(431, "The request's head is too large.", code="head_too_large"))
            elif self.cycle is None or self.cycle.response_complete:
                # No request is in progress, so these bytes must become one in time.
                self._expect_head()
        self._update_idleness()

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parses a request again without its Upgrade, which HTTP/1.1 allows a server to ignore.

        The parser assumes that everything after such a head, including the body, belongs to the other protocol.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._fail(ApiError(405, "This server is not a proxy.", code="invalid_http"))
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name in (b"upgrade", b"http2-settings"):
                continue
            if name == b"connection":
                words = (word.strip() for word in value.split(b","))
                value = b", ".join(word for word in words if word.lower() not in (b"upgrade", b"http2-settings"))
                if not value:
                    continue
            lines.append(b"%s: %s" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(AttributeError):  # as uvicorn does: httptools < 0.6.3
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._unparsed[:0] = b"\r\n".join(lines) + b"\r\n\r\n" + rest

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)
            return
        # Trailers are ignored. If they are too large, the request is refused as invalid.
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD_BYTES:
            raise ValueError("the fields after the body are too large")

    def on_headers_complete(self) -> None:
        if self._ignores_input or self.parser.should_upgrade():
            return
        self._end_head()
        if self._is_spare and self.limiter.is_full and self.url.partition(b"?")[0] != _OPEN_WHEN_FULL:
            self._fail(too_busy())
            return
        super().on_headers_complete()
        response = _PendingResponse(self, self.cycle)
        self.cycle.transport = response  # type: ignore[assignment]  # it has the methods that uvicorn calls
        self.scope[ENDED] = response.status_at_end  # type: ignore[literal-required]  # an extension key
        self._pending.append(response)

    def on_body(self, body: bytes) -> None:
        if not self._ignores_input:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._ignores_input and not self.parser.should_upgrade():
            super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio uses the result; uvicorn returns None
        """Returns whether to keep the half-closed connection, because its client waits for responses."""
        self._is_half_closed = True
        if self.is_lingering:
            return False
        self._end_of_requests()
        if self._pending and self._probe_timer is None:
            self._probe(0)
        return bool(self._pending) and not self.transport.is_closing()

    def _end_of_requests(self) -> None:
        """Refuses a request that the end of the input cut off. Closes the connection if no response is pending."""
        if (
            not self._ignores_input
            and not self._unparsed
            and (self._in_head or (self._pending and self._pending[-1].cycle.more_body))
        ):
            self._fail(ApiError(400, "The request ended before it was complete.", code="invalid_http"))
        if not self._pending and not self._unparsed:
            self.transport.close()

    # Output

    def on_response_complete(self) -> None:
        if self._pending:
            self._pending.popleft()
        if self.is_lingering:
            return
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._final_refusal is not None and not self._pending:
            self._refuse(self._final_refusal)
            return
        self._parse()
        if self._is_half_closed:
            self._end_of_requests()

    def _fail(self, problem: ApiError) -> None:
        """Stops parsing, and sends a refusal after the pending responses."""
        if self._ignores_input or self.transport.is_closing():
            return
        self._ignores_input, self._in_head = True, False
        self._unparsed.clear()
        self._end_head()
        if self._pending and self._pending[-1].cycle.more_body:  # this request could not be parsed
            response = self._pending.pop()
            response.disconnect(problem.status)
            if self.pipeline:  # the newest is on the left
                self.pipeline.popleft()
                self._record(problem)
            if response.cycle.response_started:
                self.leave()
                return
        else:
            self._record(problem)
        if self._pending:
            self._final_refusal = problem
        else:
            self._refuse(problem)

    def _record(self, problem: ApiError) -> None:
        self.record(self.client[0] if self.client else "-", problem.status)

    def _refuse(self, problem: ApiError) -> None:
        body, fields = problem.body, {"content-type": "application/json", **(problem.headers or {})}
        fields |= {"content-length": str(len(body)), "connection": "close"}
        head = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
        head += [f"{name.lower()}: {value}" for name, value in fields.items()]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.leave()

    def leave(self) -> None:
        """Closes the connection after the client has had time to read the response.

        A connection that is closed with unread input is reset, and the client never sees the response.
        """
        self._ignores_input = True
        self._unparsed.clear()
        self.pipeline.clear()
        self._end_head()
        if self._is_half_closed or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.is_lingering and not self.transport.is_closing():
            self.is_lingering = True
            self.limiter.set_idleness(self, Idleness.SILENT)
            self.flow.resume_reading()
            self.transport.write_eof()
            self._linger_timer = self.loop.call_later(_LINGER_SECONDS, self._stop_lingering, -1)

    def _stop_lingering(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread in (0, unread_before):
            self.transport.abort()
        else:
            seconds = self.limiter.limits.reader_timeout
            self._linger_timer = self.loop.call_later(seconds, self._stop_lingering, unread)

    def _probe(self, turn: int) -> None:
        """Sends the first bytes of a pending response one by one, at growing intervals.

        A client that left and a client that closed only its sending side look the same until something is sent.
        A client that left then resets the connection, and its work stops.
        """
        if turn and self._pending and not self.transport.is_closing():
            self._pending[0].probe()
        if turn < len(_PROBE_SECONDS):
            self._probe_timer = self.loop.call_later(_PROBE_SECONDS[turn], self._probe, turn + 1)

    def shutdown(self) -> None:
        if self._pending:
            self._pending[-1].cycle.keep_alive = False
        elif not self.is_lingering:
            self.transport.close()

    # Timeouts

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # a graceful close would wait for the reader forever
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _expect_head(self) -> None:
        if self._head_timer is None and not self._ignores_input:
            self._head_timer = self.loop.call_later(self.limiter.limits.body_timeout, self._head_is_late)

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            seconds = self.limiter.limits.body_timeout
            self._fail(ApiError(408, f"The request's head did not arrive within {seconds:g} seconds.", code="timeout"))
        elif not self._pending:
            self.transport.close()

    def _wait_for_reader(self) -> None:
        """Aborts the connection unless the client reads some of the output in time, again and again."""
        unread = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < unread:
                self._wait_for_reader()
            else:
                self.ended = NOT_READ
                self.transport.abort()

        self._reader_timer = self.loop.call_later(self.limiter.limits.reader_timeout, look)

    def _update_idleness(self) -> None:
        if self.is_lingering or self.transport.is_closing():
            return
        idleness = None
        if not self._pending and not self._ignores_input:
            idleness = Idleness.BEGINNING if self._in_head else Idleness.ANSWERED if self.cycle else Idleness.SILENT
        self.limiter.set_idleness(self, idleness)


class _PendingResponse:
    """A response in progress. It acts as uvicorn's transport, and skips bytes that were already sent by `probe`."""

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self._connection = connection
        self._transport = connection.transport
        self._sent = 0
        self._ended = 0

    def status_at_end(self) -> int:
        """Returns the status of a request that ended before its response was complete; 0 if it did not."""
        return self._ended or self._connection.ended

    def disconnect(self, status: int = 0) -> None:
        """Notifies the application that the client no longer waits for the response."""
        self._ended = status
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def probe(self) -> None:
        """Sends the next of the bytes with which every response begins."""
        if self._sent < len(_FIRST_BYTES) and not self.cycle.response_started:
            self._transport.write(_FIRST_BYTES[self._sent : self._sent + 1])
            self._sent += 1

    def write(self, data: bytes) -> None:
        if not self.is_closing():
            self._transport.write(data[self._sent :])
            self._sent = 0

    def close(self) -> None:
        if self.cycle.more_body:
            self._connection.leave()
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        return self._connection.is_lingering or self._transport.is_closing()
