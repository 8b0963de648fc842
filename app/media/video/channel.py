"""The decoder's end of the way to the gateway: messages, and the slots that frames are written to."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from typing import Any, NoReturn

from app.errors import GatewayError
from app.media.video import protocol

_ALIVE_EVERY_S = 0.2


class Channel:
    """Speaks to the gateway; ends the process when that is gone."""

    def __init__(self, end: socket.socket, memory: int) -> None:
        self._end = end
        self._memory = memory
        self._ring: memoryview | None = None
        self._slot_bytes = 0
        self._free: list[int] = []
        self._sent_at = 0.0
        self.stall_s = 0.0
        self.waited_s = 0.0  # for slots

    def receive(self) -> protocol.Message:
        """The next message."""
        message = protocol.receive(self._end)
        if message is None:
            os._exit(0)
        return message

    def send(self, kind: str, **fields: object) -> None:
        """Send one message, and start the processor's clock again: a decoder that is caught in a loop is ended by the
        kernel after `stall_s` seconds of processor time without a message, whether anybody reads them or not.
        """
        try:
            protocol.send(self._end, kind, **fields)
        except OSError:
            os._exit(0)
        signal.setitimer(signal.ITIMER_PROF, self.stall_s)
        self._sent_at = time.monotonic()

    def alive(self, decoded: int, damaged: int) -> None:
        """Send a sign of life now and then."""
        if time.monotonic() - self._sent_at >= _ALIVE_EVERY_S:
            self.send("alive", decoded=decoded, damaged=damaged)

    def slot(self, need: int) -> tuple[int, memoryview]:
        """Wait for a free slot of at least `need` bytes; return its number and a view of that many bytes."""
        room = need + protocol.SPARE_BYTES
        if room > self._slot_bytes:
            self.send("need", bytes=room)
            while room > self._slot_bytes:
                self._take(self.receive())
        with suppress(BlockingIOError):
            while message := protocol.receive(self._end, socket.MSG_DONTWAIT):
                self._take(message)
        since = time.perf_counter()
        while not self._free:
            self._take(self.receive())
        self.waited_s += time.perf_counter() - since
        number = self._free.pop()  # the one freed last: its memory is still in the processor's cache
        assert self._ring is not None  # noqa: S101  # for the type checker: a slot was free
        start = number * self._slot_bytes
        return number, self._ring[start : start + need]

    def _take(self, message: dict[str, Any]) -> None:
        if message["kind"] == "ring":
            self._map(**message["ring"])
        else:
            self._free.append(message["slot"])

    def _map(self, offset: int, slot_bytes: int, slots: int) -> None:
        none, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # mmap takes a descriptor of its own
        ring = mmap.mmap(self._memory, slot_bytes * slots, offset=offset)
        resource.setrlimit(resource.RLIMIT_NOFILE, (none, most))
        self._ring, self._slot_bytes, self._free = memoryview(ring), slot_bytes, list(range(slots))

    def end(self, fault: GatewayError | None) -> NoReturn:
        """Send the last message and end the process without any cleanup."""
        error = None if fault is None else {"code": fault.code, "detail": fault.detail}
        self.send("end", error=error)
        os._exit(0)
