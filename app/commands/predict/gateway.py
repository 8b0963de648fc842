"""Sources of answers: a gateway at a URL, or the service in this process. One seam, so that the answers are the same.

    gateway.request("POST", "/v1/detect?conf=0.5", picture) -> Reply
    gateway.lines("/v1/detect", video, nbytes)              -> its lines, or the Reply that refuses it

`HttpGateway` speaks HTTP; `app.commands.predict.embedded.EmbeddedGateway` hands the same requests to the same
application without a socket. The commands know only this protocol.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from app.commands.predict.errors import NobodyAnswers, RunFailed
from app.commands.smoke.http import Http, Reply
from app.errors import GatewayError


class Gateway(Protocol):
    """Takes requests from several threads."""

    @property
    def title(self) -> str:
        """Name of the gateway, for people."""

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request, and read the whole answer.

        Raises:
            DeadlineExceeded: nothing came in time.
            TritonUnavailable: nobody answers.
        """

    def lines(
        self, path: str, file: BinaryIO, nbytes: int, headers: Mapping[str, str] | None = None
    ) -> Reply | Iterator[bytes]:
        """Post a video: the lines of the answer as they come, or the answer itself where it is a refusal.

        Raises:
            DeadlineExceeded, TritonUnavailable: as `request`; between two lines too.
        """

    def close(self) -> None:
        """Release everything."""


def branches_of(gateway: Gateway) -> dict[str, Any]:
    """Return the answer to `GET /v1/branches`.

    Raises:
        NobodyAnswers, RunFailed: there is none, or none of a gateway.
    """
    try:
        reply = gateway.request("GET", "/v1/branches")
    except GatewayError as error:
        raise NobodyAnswers(f"nobody answers there: {error.detail}") from error
    said = reply.json()
    if not reply.ok or not isinstance(said, dict) or not isinstance(said.get("families"), list):
        raise RunFailed(f"{gateway.title}: GET /v1/branches: {reply.fault()}")
    return said


class HttpGateway:
    """A gateway at a URL; each thread has a connection of its own.

    Args:
        url: http:// or https://, with the path that the gateway is under, if there is one.
        timeout_s: longest wait for an answer, and between two lines.
        headers: that go with every request, as a key's does.
        cacert: who signed its certificate, in PEM.

    Raises:
        ValueError: `url` is no http:// or https:// address.
        OSError: `cacert` can't be used.
    """

    def __init__(
        self, url: str, timeout_s: float, headers: Mapping[str, str], cacert: Path | None = None
    ) -> None:
        self._make: Callable[[], Http] = functools.partial(Http, url, timeout_s, headers, cacert)
        self._mine = threading.local()
        self._all: list[Http] = []
        self.title = f"gateway at {self._http().url}"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return self._http().request(method, path, body, headers)

    def lines(
        self, path: str, file: BinaryIO, nbytes: int, headers: Mapping[str, str] | None = None
    ) -> Reply | Iterator[bytes]:
        return self._http().lines(path, file, nbytes, headers)

    def close(self) -> None:
        for http in self._all:
            http.close()

    def _http(self) -> Http:
        known: Http | None = getattr(self._mine, "http", None)
        if known is None:
            known = self._mine.http = self._make()
            self._all.append(known)
        return known
