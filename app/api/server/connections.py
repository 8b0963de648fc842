"""One caller's connection, with limits that uvicorn doesn't have: on a head's time and size, and on an answer's time.

A body has the request's own deadline (`receive` in `app.api.request.requests`). Everything here is counted in seconds
of `timeout_keep_alive` (GATEWAY_IDLE_TIMEOUT_S), so a connection without a request lives no longer than that.

It also says two things in fewer steps than ASGI has for them: a short body when it is complete, and not packet by
packet; and that the caller has gone away, as a future in the scope, so that nobody needs a task that waits for it.

An offered upgrade is declined (RFC 9110, 7.8): the request is answered as if the offer weren't there. A request that
can't be parsed is refused after the answers to those before it.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.request.headers import WHOLE_BYTES, length_of
from app.api.response import raw_problems
from app.api.server.sockets import Sent, sent
from app.process.drain import Drain

# A head has at most this many bytes; what chunks and trailers cost beside a body counts too.
MAX_HEAD_BYTES = 65_536
_OVERHEAD = 8  # times the body: its chunks' own bytes, down to a chunk a byte
_LEAST_BYTES_S = 1024  # an answer that is taken more slowly is worth less than the memory that it holds
# Key of the scope: a future that is done when the caller's connection has ended.
GONE = "gateway.gone"
# Key of the scope: what is known of the request and its answer; its `more_body` is False once the body is complete.
CYCLE = "gateway.cycle"
DRAIN = "drain"  # in the state of the application's life: its `app.process.drain.Drain`
_LATE_S = 1.0  # for the first head on a connection that was accepted just before the end of listening
_LOOK_S = 0.05  # between looks at a TLS connection that is closing
_LAST_LOOKS = 10  # at one whose peer takes nothing, while the process stops


class Connection(HttpToolsProtocol):
    """Connection that drops clients which don't finish the request head in time, or don't read their answer.

    A head that arrives in one piece starts no timer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._completed = False
        self._overhead = self._body_bytes = self._bodies_bytes = 0
        self._whole = False
        self._refusal: bytes | None = None
        self._saying_goodbye = False
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._drain: Drain | None = self.app_state.get(DRAIN)
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_answer_timer()
        super().connection_lost(exc)
        self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:  # what follows what can't be parsed can't be understood either
            return
        self._completed, before = False, self._bodies_bytes
        self._unset_keepalive_if_required()
        self._parse(data)
        if self.transport.is_closing() or self._refusal is not None:
            return
        cycle: RequestResponseCycle | None = (
            self.cycle
        )  # None until there is a request, whatever its type says
        if cycle is None or cycle.response_complete:
            self._await_head()
        if self._completed:
            self._overhead = 0
            return
        self._overhead += len(data) - (self._bodies_bytes - before)
        if self._overhead > MAX_HEAD_BYTES + _OVERHEAD * self._body_bytes:
            self.send_400_response("The head of the request is too large.")

    def _parse(self, data: bytes) -> None:
        pieces: list[bytes | memoryview] = [data]  # the last one is next
        while pieces and self._refusal is None:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as pause:
                pieces += [memoryview(piece)[pause.args[0] :], self._without_offer()]
            except httptools.HttpParserError:
                self.send_400_response("This is no HTTP/1.1 request.")

    def _without_offer(self) -> bytes:
        """The head that has just ended, as it would be without an offer to change the protocol.

        The parser takes everything after such a head for another protocol's, so a new one gets the head again.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":  # what follows belongs to the tunnel that the caller asks for
            self._refuse(405, "method_not_allowed", "Not with this method", "CONNECT isn't served here.")
            return b""
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
        return b"\r\n".join([*lines, b"", b""])

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_request", "The request breaks HTTP", msg)

    def _refuse(self, status: int, code: str, title: str, detail: str) -> None:
        """Answer data that isn't a request, after all earlier requests are answered, and close."""
        self.logger.warning("Refused: %s", detail)
        self._refusal = STATUS_LINE[status] + raw_problems.answer(
            status, code, title, detail, self.server_state.default_headers
        )
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self._send_refusal()
        elif cycle.more_body:  # its own body is at fault
            self._end_cycle(cycle)

    def _end_cycle(self, cycle: RequestResponseCycle) -> None:
        if self.pipeline and self.pipeline[0][0] is cycle:  # it hasn't begun: the refusal is its answer
            self.pipeline.popleft()
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
            self._await_end()
        else:
            self._send_refusal()

    def _send_refusal(self) -> None:
        assert self._refusal is not None  # noqa: S101  # for mypy
        self.transport.write(self._refusal)
        self.transport.close()
        self._await_end()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()
        self.scope[GONE] = self._gone  # type: ignore[literal-required]  # a key of ours

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # later ones are trailers, which nobody here reads and which could go on for ever
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # see _decline_upgrade
            return
        if self.expect_100_continue and self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # HTTP/1.0 callers don't know 100 (RFC 9110, 10.1.1)
        self._in_head = self._whole = False
        self._body_bytes = 0
        self._stop_head_timer()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            if self._drain is not None and self._drain.begun and self._drain.closing:
                self.cycle.keep_alive = False
            self.scope[CYCLE] = self.cycle  # type: ignore[literal-required]  # a key of ours
            length = next((value for name, value in self.headers if name == b"content-length"), None)
            self._whole = length_of(length) <= WHOLE_BYTES

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._bodies_bytes += len(body)  # of all requests: a new one may begin within a piece of data
        if self._whole and not self.cycle.response_complete:
            self.cycle.body += body  # its end is told, or the connection's
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._completed = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last and self._refusal is not None and not self.transport.is_closing():
            self._send_refusal()
        if self.transport.is_closing():
            self._await_end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_end()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._await_end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taker()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_answer_timer()

    def _await_head(self) -> None:
        if self._head_timer is None:
            late = self._drain is not None and self._drain.ended
            seconds = min(_LATE_S, self.timeout_keep_alive) if late else self.timeout_keep_alive
            self._head_timer = self.loop.call_later(seconds, self.transport.abort)

    def _await_end(self) -> None:
        """The connection is closing."""
        self._await_taker()
        if self.scheme == "https" and not self._saying_goodbye:
            self._saying_goodbye = True
            self._say_goodbye(None, 0)

    def _say_goodbye(self, before: Sent | None, still: int) -> None:
        """End a TLS connection as soon as everything has been taken: its peer needn't close as well (RFC 8446, 6.1).

        The loop holds bytes below TLS that it doesn't tell of. It has none when the peer has confirmed all that was
        sent, and nothing more is sent between two looks.

        Args:
            before: what the look before has found.
            still: looks since when nothing has moved.
        """
        if self._gone.done():
            return
        now = sent(self.transport)
        still = still + 1 if now == before else 0
        stopping = self._drain is not None and self._drain.ended
        taken = not now.waiting or (stopping and still >= _LAST_LOOKS)
        if still and taken and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.loop.call_later(_LOOK_S, self._say_goodbye, now, still)

    def _await_taker(self) -> None:
        """Limit the time for sending the answer; a closing transport would otherwise wait for ever."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and self._answer_timer is None:
            self._answer_timer = self.loop.call_later(self.timeout_keep_alive, self._check_taken, waiting)

    def _check_taken(self, before: int) -> None:
        self._answer_timer = None
        if before - self.transport.get_write_buffer_size() < _LEAST_BYTES_S * self.timeout_keep_alive:
            self.transport.abort()
        else:
            self._await_taker()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
