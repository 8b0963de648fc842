"""A TCP connection to somewhere else that a test may cut."""

from __future__ import annotations

import contextlib
import socket
import threading


class Cable:
    """Listens at `url` (`at`: host and port; 0 is a free one) and passes on, both ways; close it with `with`.

    Set `loses` to words: a connection that has sent all of them, in this order, is cut instead of getting the answer.
    """

    loses: tuple[bytes, ...] = ()

    def __init__(self, target: str, at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(at)
        self.url = f"{at[0]}:{self._listening.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits in accept() would keep the socket listening.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def lead_to(self, target: str) -> None:
        """Pass on to somewhere else from now on, as a name does whose server has changed."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.cut()

    def cut(self) -> None:
        """Every connection there is; new ones are passed on again."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._ends += [near, far]
                sent: list[bytes] = []
                for pump in (self._ask, self._answer):
                    threading.Thread(target=pump, args=(near, far, sent), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, sent: list[bytes]) -> None:
        """Pass on what the client sends; `sent` are the first of the words of `loses` that it has sent."""
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                while len(sent) < len(self.loses) and self.loses[len(sent)] in data:
                    sent.append(self.loses[len(sent)])
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def _answer(self, near: socket.socket, far: socket.socket, sent: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if sent and tuple(sent) == self.loses:
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)
