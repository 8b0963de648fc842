"""Load over HTTP that takes little of the cores it shares with the servers: one thread, epoll, bytes made beforehand.

Every target is asked by this loop: N connections that stay open, each sends its next request when its last answer is
complete. Of an answer only the status and the length are read.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

_CHUNK = 1 << 20
_HEAD = 1 << 16
PATIENCE_S = 30.0


class BadAnswer(Exception):
    """A server answered something else than 200, or nothing at all."""


@dataclass(slots=True)
class Load:
    """Result of one run: latencies in ms, wall time and the client's own CPU time in s."""

    samples_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    client_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.samples_ms) / self.wall_s


def length_of(head: bytes) -> int | None:
    """Bytes of the body that follow a response's head (with its blank line); None: it comes in chunks.

    Raises:
        BadAnswer: it isn't 200, or has no length.
    """
    if head[9:12] != b"200":
        raise BadAnswer(head.partition(b"\r\n")[0].decode("latin-1"))
    lowered = head.lower()
    _, found, rest = lowered.partition(b"\r\ncontent-length:")
    if found:
        return int(rest.partition(b"\r\n")[0])
    if b"\r\ntransfer-encoding: chunked" in lowered:
        return None
    raise BadAnswer("an answer without a length")


def unchunked(content: bytes) -> bytes:
    """The body that was sent in chunks."""
    pieces: list[bytes] = []
    while True:
        size, _, content = content.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(content[:length])
        content = content[length + 2 :]


class Connection:
    """One request in flight."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._buffer = bytearray(_CHUNK + _HEAD)
        self._view = memoryview(self._buffer)
        self.started = 0.0
        self._unsent: memoryview = memoryview(b"")
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(self._address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.socket.setblocking(False)

    def start(self, content: bytes) -> bool:
        """Send as much as goes; whether all has gone."""
        self._unsent = memoryview(content)
        self._filled = self._end = 0
        self._total: int | None = None
        self.started = time.perf_counter()
        return self.send()

    def send(self) -> bool:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        return True

    def receive(self) -> bool:
        """Read what there is; whether the answer is complete."""
        if self._filled == len(self._buffer):
            self._grow()
        read = self.socket.recv_into(self._view[self._filled :])
        if read == 0:
            raise BadAnswer("the connection was closed in the middle of an answer")
        self._filled += read
        if not self._end:
            self._read_head()
        if not self._end:
            return False
        if self._total is None:
            return self._buffer[self._filled - 5 : self._filled] == b"0\r\n\r\n"
        return self._filled >= self._total

    def _read_head(self) -> None:
        at = self._buffer.find(b"\r\n\r\n", 0, min(self._filled, _HEAD))
        if at < 0:
            return
        self._end = at + 4
        try:
            length = length_of(bytes(self._view[: self._end]))
        except BadAnswer as error:
            raise BadAnswer(f"{error}: {bytes(self._view[self._end : self._filled])[:300]!r}") from None
        self._total = None if length is None else self._end + length

    def _grow(self) -> None:
        self._view.release()
        self._buffer.extend(bytes(len(self._buffer)))
        self._view = memoryview(self._buffer)

    def body(self) -> bytes:
        """The last answer's."""
        content = bytes(self._view[self._end : self._filled])
        return unchunked(content) if self._total is None else content

    def close(self) -> None:
        self.socket.close()


def ask(port: int, content: bytes) -> bytes:
    """The body of one answer.

    Raises:
        BadAnswer, OSError: there is none.
    """
    connection = Connection(port)
    try:
        connection.socket.settimeout(PATIENCE_S)
        connection.start(content)
        while not connection.receive():
            pass
        return connection.body()
    finally:
        connection.close()


def drive(port: int, contents: Sequence[bytes], in_flight: int, seconds: float) -> Load:
    """Requests for so many seconds, one of each connection at least; all are awaited.

    Raises:
        BadAnswer, OSError: a server failed, and what was measured means nothing.
    """
    load, following = Load(), cycle(contents)
    connections = [Connection(port) for _ in range(in_flight)]
    poll = select.epoll()
    by_number = {connection.socket.fileno(): connection for connection in connections}
    cpu, began = time.process_time(), time.perf_counter()
    limit = began + seconds
    try:
        for number, connection in by_number.items():
            poll.register(number, _events(sent=connection.start(next(following))))
        left = in_flight
        while left:
            events = poll.poll(PATIENCE_S)
            if not events:
                raise BadAnswer(f"no answer within {PATIENCE_S:.0f} s")
            for number, event in events:
                connection = by_number[number]
                if event & select.EPOLLOUT and connection.send():
                    poll.modify(number, select.EPOLLIN)
                if event & ~select.EPOLLOUT and connection.receive():
                    now = time.perf_counter()
                    load.samples_ms.append((now - connection.started) * 1000)
                    if now >= limit:
                        left -= 1
                    elif not connection.start(next(following)):
                        poll.modify(number, _events(sent=False))
        load.wall_s = time.perf_counter() - began
        load.client_cpu_s = time.process_time() - cpu
    finally:
        poll.close()
        for connection in connections:
            connection.close()
    return load


def _events(*, sent: bool) -> int:
    return select.EPOLLIN if sent else select.EPOLLIN | select.EPOLLOUT
