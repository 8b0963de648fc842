"""Protocol between the gateway and the decoder's process: one JSON object per packet of a Unix socket.

    gateway → decoder: the task, `{"ring": [offset, slot_bytes]}` where frames go from now on, `{"free": slot}`
    decoder → gateway: `facts`, `need` (slots of so many bytes), `frame`, `alive` (work goes on), `end`

On systems without packets between processes (macOS) it is a stream, and the length of each object stands before it in 4
bytes.

Pixels never pass here: they lie in memory that both have mapped.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

Message = dict[str, Any]
# What is kept free at the end of each slot: vector code may write that much behind the last line.
SPARE_BYTES = 256
_MOST_BYTES = 1 << 16
_LENGTH = struct.Struct(">I")


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; each packet arrives whole or not at all."""
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except (AttributeError, OSError):  # not on macOS
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def send(end: socket.socket, kind: str, **fields: object) -> None:
    """Send one message.

    Raises:
        OSError: the other end is gone.
    """
    packet = json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode()
    if end.type == socket.SOCK_STREAM:
        end.sendall(_LENGTH.pack(len(packet)) + packet)
    else:
        end.send(packet)


def receive(end: socket.socket, *flags: int) -> Message | None:
    """The next message; None where the other end is gone.

    Raises:
        TimeoutError: nothing came within the socket's timeout.
        BlockingIOError: nothing is there, and `flags` say not to wait.
        ValueError: that is no message of ours.
    """
    try:
        packet = _packet(end, *flags)
    except ConnectionResetError:
        # The other end closed with messages of ours unread. That is told once, before its own last words.
        packet = _packet(end, *flags)
    if not packet:
        return None
    try:
        message = json.loads(packet)
    except RecursionError as error:
        raise ValueError("a message without end") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ValueError("no message of the decoder's protocol")  # noqa: TRY004  # the content is wrong, not a type
    return message


def _packet(end: socket.socket, *flags: int) -> bytes:
    """The bytes of the next message; none where the other end is gone."""
    if end.type != socket.SOCK_STREAM:
        return end.recv(_MOST_BYTES, *flags)
    head = end.recv(_LENGTH.size, *flags)
    if not head or len(head := head + _whole(end, _LENGTH.size - len(head))) < _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack(head)
    if not 0 < length <= _MOST_BYTES:
        raise ValueError("no message of the decoder's protocol")
    packet = _whole(end, length)
    return packet if len(packet) == length else b""


def _whole(end: socket.socket, length: int) -> bytes:
    """So many bytes, or fewer where the other end is gone."""
    content = b""
    while len(content) < length and (more := end.recv(length - len(content))):
        content += more
    return content
