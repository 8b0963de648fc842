"""Requests as bytes, and answers as they lie on the connection."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """One answer; the names of its headers are in lower case."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Line:
    """A connection to a server on this host, with TLS if a context is given; use it with `with`."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, timeout: float = 30) -> None:
        plain = socket.create_connection((HOST, port), timeout)
        self.sock = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
        self._file: BinaryIO = self.sock.makefile("rb")

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sock.close()

    def send(self, *pieces: bytes) -> Line:
        for piece in pieces:
            self.sock.sendall(piece)
        return self

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer; `head_only` for HEAD.

        Raises:
            EOFError: the connection is over.
        """
        line = self._file.readline()
        if not line:
            raise EOFError
        version, status, _ = line.decode("latin-1").split(" ", 2)
        headers = dict(self._headers())
        none = head_only or status.startswith("1") or status == "204"
        return Answer(version, int(status), headers, b"" if none else self._body(headers))

    def over(self) -> bool:
        """Wait for the end of the connection; False: something else came."""
        try:
            return self._file.read(1) == b""
        except (ConnectionError, ssl.SSLEOFError):
            return True

    def _headers(self) -> Iterator[tuple[str, str]]:
        while (line := self._file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            yield name.lower(), value.strip()

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._file.read(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        return self._file.read()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()
