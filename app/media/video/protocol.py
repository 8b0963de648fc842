"""Protocol between the gateway and the decoder's process: one JSON object per packet of a Unix socket.

    gateway → decoder: the task, `{"ring": [offset, slot_bytes]}` where frames go from now on, `{"free": slot}`
    decoder → gateway: `facts`, `need` (slots of so many bytes), `frame`, `alive` (work goes on), `end`

Pixels never pass here: they lie in memory that both have mapped.
"""

from __future__ import annotations

import json
import socket
from typing import Any

Message = dict[str, Any]
# What is kept free at the end of each slot: vector code may write that much behind the last line.
SPARE_BYTES = 256
_MOST_BYTES = 1 << 16


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; each packet arrives whole or not at all."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, kind: str, **fields: object) -> None:
    """Send one message.

    Raises:
        OSError: the other end is gone.
    """
    end.send(json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode())


def receive(end: socket.socket, *flags: int) -> Message | None:
    """The next message; None where the other end is gone.

    Raises:
        TimeoutError: nothing came within the socket's timeout.
        BlockingIOError: nothing is there, and `flags` say not to wait.
        ValueError: that is no message of ours.
    """
    try:
        packet = end.recv(_MOST_BYTES, *flags)
    except ConnectionResetError:
        # The other end closed with messages of ours unread. That is told once, before its own last words.
        packet = end.recv(_MOST_BYTES, *flags)
    if not packet:
        return None
    try:
        message = json.loads(packet)
    except RecursionError as error:
        raise ValueError("a message without end") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ValueError("no message of the decoder's protocol")  # noqa: TRY004  # the content is wrong, not a type
    return message
