"""A server of one video on loopback, with or without TLS, which misbehaves as a test tells it."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """The course of one request.

    A status other than 200 has no body. `most` bytes of the body are sent; then the connection is closed, or with
    `hang` the server says nothing more. `announced` is the length in the head (None: there is none, -1: the true one).
    `endless` sends on and on.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    most: int | None = None
    hang: bool = False
    announced: int | None = -1
    endless: bool = False
    ranges: bool = True
    etag: str | None = '"v1"'


@dataclass
class VideoSource:
    """`plans` are for requests in order, the last one for all later ones; `seen` holds paths and headers."""

    content: bytes
    url: str = ""
    plans: list[Plan] = field(default_factory=lambda: [Plan()])
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def ranges(self) -> list[str | None]:
        """The ranges that were asked for."""
        return [headers.get("range") for _, headers in self.seen]

    def next_plan(self) -> Plan:
        return self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]


class _Handler(BaseHTTPRequestHandler):
    source: VideoSource
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.source.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        plan = self.source.next_plan()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the gateway has gone
            self._answer(plan)

    def _answer(self, plan: Plan) -> None:
        start = self._start(plan)
        body = self.source.content[start:]
        self.send_response(206 if start else plan.status)
        if start:
            self.send_header(
                "content-range", f"bytes {start}-{len(self.source.content) - 1}/{len(self.source.content)}"
            )
        for name, value in plan.headers.items():
            self.send_header(name, value)
        if plan.status != 200:
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if plan.etag is not None:
            self.send_header("etag", plan.etag)
        if plan.announced is not None:
            self.send_header("content-length", str(len(body) if plan.announced < 0 else plan.announced))
        self.end_headers()
        self.wfile.write(body[: plan.most])
        while plan.endless and not self.source.release.is_set():
            self.wfile.write(bytes(1 << 16))
        if plan.hang:
            self.source.release.wait()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _start(self, plan: Plan) -> int:
        found = re.fullmatch("bytes=([0-9]+)-", self.headers.get("range", ""))
        if found is None or not plan.ranges or plan.status != 200:
            return 0
        return int(found[1]) if self.headers.get("if-range") == plan.etag else 0

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(content: bytes, certificate: tuple[Path, Path] | None = None) -> Iterator[VideoSource]:
    """A server that runs until the end; what hangs is released then. With a certificate and its key: over TLS."""
    source = VideoSource(content)
    handler = type("Handler", (_Handler,), {"source": source})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    source.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/a/holiday.mp4"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield source
    finally:
        source.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
