"""Facts about a TCP connection that the kernel knows and the event loop doesn't tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import NamedTuple

# struct tcp_info of Linux 4.6 and newer: tcpi_unacked (segments), tcpi_bytes_acked, tcpi_notsent_bytes.
_FACTS = struct.Struct("=24xI92xQ16xI")


class Sent(NamedTuple):
    """Progress of sending; zeros where the kernel doesn't say."""

    unconfirmed: int  # segments on their way
    confirmed: int  # bytes since the beginning
    unsent: int  # bytes that the kernel holds

    @property
    def waiting(self) -> bool:
        """True while the peer hasn't got everything."""
        return self.unconfirmed > 0 or self.unsent > 0


def sent(transport: asyncio.Transport) -> Sent:
    """Progress of sending on a connection."""
    with contextlib.suppress(OSError, struct.error, AttributeError):
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        with socket.socket(fileno=descriptor) as sock:
            facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _FACTS.size)
        return Sent(*_FACTS.unpack(facts))
    return Sent(0, 0, 0)
