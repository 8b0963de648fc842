"""Connections that break where a test says, and servers that don't answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence


class Relay:
    """A TCP relay to a local port. `limits`: bytes of the answer that each connection passes on before it breaks.

    None is no limit. Connections beyond the list have none. A limit of 0 breaks the connection once the answer begins.
    """

    def __init__(self, port: int, limits: Sequence[int | None]) -> None:
        self._port = port
        self._limits = list(limits)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                with self._lock:
                    self.connections += 1
                    limit = self._limits.pop(0) if self._limits else None
                far = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=_send, args=(near, far), daemon=True).start()
                threading.Thread(target=_answer, args=(far, near, limit), daemon=True).start()


def _send(near: socket.socket, far: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := near.recv(65536):
            far.sendall(data)
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_WR)


def _answer(far: socket.socket, near: socket.socket, limit: int | None) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := far.recv(65536):
            data = data if limit is None else data[: limit - passed]
            near.sendall(data)
            passed += len(data)
            if limit is not None and passed >= limit:
                break
    for end in (near, far):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def scripted(*pieces: bytes, forever: bytes | None = None) -> Iterator[str]:
    """A server that answers each connection with some bytes, and then ends it; its address.

    With `forever`, it goes on with these bytes, slowly; empty ones are silence. Without `pieces` it never answers.
    """
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if pieces:
                connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
            if pieces and forever is None:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # closing with unread bytes would take the answer back
                    pass
                return
            while not stop.wait(0.02):
                connection.sendall(forever or b"")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        stop.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
