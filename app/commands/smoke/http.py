"""One kept HTTP connection, for the commands that talk to a server from outside."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urlsplit

from app.errors import DeadlineExceeded, TritonUnavailable

_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers (lower-case names) and body of one answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def fault(self) -> str:
        """Return the message of a failed request's answer."""
        document = self.json()
        said = document.get("detail") or document.get("error") if isinstance(document, dict) else None
        return f"HTTP {self.status}: {said or self.body[:200].decode('utf-8', 'replace') or 'no words'}"


def key_headers(path: Path | None) -> dict[str, str]:
    """The header that carries the API key in a file (`-`: standard input); a command line can be seen by others.

    Raises:
        OSError: the file can't be read.
    """
    if path is None:
        return {}
    return {"X-API-Key": (sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")).strip()}


class Http:
    """A connection to `url`, opened when first needed. Not for several threads at once.

    Proxies that the environment names are not used: what is asked here is one server, by its address. `headers` go
    with every request. `cacert`: who signed the server's certificate, in PEM; None: the usual authorities.

    Raises:
        ValueError: `url` is no http:// or https:// address.
        OSError: `cacert` can't be read, or holds no certificate.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        cacert: Path | None = None,
    ) -> None:
        parts = _address(url)
        host = parts.hostname or ""
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers or {})
        if parts.scheme == "http":
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        else:
            tls = ssl.create_default_context(cafile=cacert)
            self._connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=tls)

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("POST", path, body, headers)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send, and read the whole answer.

        Raises:
            DeadlineExceeded: nothing came in time.
            TritonUnavailable: no connection, or one that broke; the message says to whom.
        """
        with self._translated():
            answer = self._sent(method, path, body, headers)
            return _reply(answer)

    def lines(
        self, path: str, file: BinaryIO, nbytes: int, headers: Mapping[str, str] | None = None
    ) -> Reply | Iterator[bytes]:
        """Post a file; the lines of the answer as they come, or the answer itself where it is a refusal.

        Raises:
            DeadlineExceeded, TritonUnavailable: as `request`; between two lines too.
        """
        with self._translated():
            sized = {"Content-Length": str(nbytes), **(headers or {})}
            answer = self._sent("POST", path, file, sized)
            return self._lines(answer) if answer.status == 200 else _reply(answer)

    def close(self) -> None:
        self._connection.close()

    def _lines(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            with self._translated():
                while line := answer.readline():
                    yield line
        finally:
            if not answer.isclosed():  # the caller stopped reading in the middle
                self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self.close()
            raise DeadlineExceeded("infer") from error
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            self.close()
            raise TritonUnavailable(f"{self.url}: {str(error) or type(error).__name__}") from error

    def _sent(
        self, method: str, path: str, body: bytes | BinaryIO | None, headers: Mapping[str, str] | None
    ) -> http.client.HTTPResponse:
        kept = self._connection.sock is not None
        try:
            return self._once(method, path, body, headers)
        except (ConnectionError, http.client.RemoteDisconnected):
            if not kept:
                raise
            self.close()  # the server has closed the kept connection meanwhile: retry once
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            return self._once(method, path, body, headers)

    def _once(
        self, method: str, path: str, body: bytes | BinaryIO | None, headers: Mapping[str, str] | None
    ) -> http.client.HTTPResponse:
        every = {**self._headers, **(headers or {})}
        try:
            self._connection.request(method, self._prefix + path, body, every)
        except (BrokenPipeError, ConnectionResetError):  # it may have refused the body before all of it came
            return self._early()
        return self._connection.getresponse()

    def _early(self) -> http.client.HTTPResponse:
        """Return the answer that was sent before the request was complete; the connection is of no further use."""
        sock = self._connection.sock
        if sock is None:
            raise ConnectionResetError("the connection was reset")
        answer = http.client.HTTPResponse(sock)
        try:
            answer.begin()
        except BaseException:
            answer.close()
            raise
        finally:
            self.close()  # the answer keeps what it still has to read
        return answer


def _address(url: str) -> SplitResult:
    """The parts of an address that a connection can be opened to.

    Raises:
        ValueError: it is none.
    """
    wrong = f"{url} is no http:// or https:// address"
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        _ = parts.port
    except ValueError as error:  # half an IPv6 address, a port out of range, a name too long
        raise ValueError(wrong) from error
    if parts.scheme not in _SCHEMES or not host or not parts.path.isascii() or not _is_one_word(url):
        raise ValueError(wrong)
    if parts.query or parts.fragment:
        raise ValueError(f"{url} has a query or a fragment, which the address of a gateway has not")
    return parts


def _is_one_word(text: str) -> bool:
    return text.isprintable() and len(text.split()) == 1 and " " not in text


def _reply(answer: http.client.HTTPResponse) -> Reply:
    names = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, names, answer.read())


def multipart(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """`multipart/form-data` of pictures by part name: the body, and its content type."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
