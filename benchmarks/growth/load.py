"""Load that goes on where requests are refused: closed loops whose clients wait a moment after a refusal."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

from benchmarks.common.http_load import BadAnswer, Connection, length_of

PAUSE_S = 0.1


@dataclass(slots=True)
class Outcome:
    """Latencies in ms of what was answered, how much was refused (429 or 503), and the time it took."""

    samples_ms: list[float] = field(default_factory=list)
    refused: int = 0
    wall_s: float = 0.0


class Tolerant(Connection):
    """A connection that takes a refusal for an answer, too."""

    status = b""

    def _read_head(self) -> None:
        at = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if at < 0:
            return
        head = bytes(self._view[: at + 4])
        self.status = head[9:12]
        if self.status not in (b"200", b"429", b"503"):
            raise BadAnswer(bytes(self._view[: self._filled])[:500].decode("latin-1"))
        self._end = at + 4
        length = length_of(head[:9] + b"200" + head[12:])
        self._total = None if length is None else self._end + length


def drive(port: int, contents: Sequence[bytes], in_flight: int, seconds: float) -> Outcome:
    """Run so many clients for so many seconds, each with at least one request, and wait for all of them."""
    outcome, following = Outcome(), cycle(contents)
    connections = {one.socket.fileno(): one for one in (Tolerant(port) for _ in range(in_flight))}
    poll = select.epoll()
    due = [(0.0, number) for number in connections]
    began, left = time.perf_counter(), in_flight
    for number in connections:
        poll.register(number, 0)
    try:
        while left:
            now = time.perf_counter()
            while due and due[0][0] <= now:
                _, number = heapq.heappop(due)
                sent = connections[number].start(next(following))
                poll.modify(number, select.EPOLLIN if sent else select.EPOLLIN | select.EPOLLOUT)
            for number, event in poll.poll(max(0.0, due[0][0] - now) if due else 30):
                connection = connections[number]
                if event & select.EPOLLOUT and connection.send():
                    poll.modify(number, select.EPOLLIN)
                if not event & ~select.EPOLLOUT or not connection.receive():
                    continue
                now = time.perf_counter()
                refused = connection.status != b"200"
                if refused:
                    outcome.refused += 1
                else:
                    outcome.samples_ms.append((now - connection.started) * 1000)
                if now - began >= seconds:
                    left -= 1
                else:
                    heapq.heappush(due, (now + PAUSE_S * refused, number))
        outcome.wall_s = time.perf_counter() - began
    finally:
        poll.close()
        for connection in connections.values():
            connection.close()
    return outcome
