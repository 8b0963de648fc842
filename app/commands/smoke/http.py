"""One kept HTTP connection, for the commands that talk to a server from outside."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.errors import DeadlineExceeded, TritonUnavailable

_KINDS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


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
    with every request.

    Raises:
        ValueError: `url` is no http:// or https:// address.
    """

    def __init__(self, url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _KINDS or not parts.hostname:
            raise ValueError(f"{url} is no http:// or https:// address")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers or {})
        self._connection = _KINDS[parts.scheme](parts.hostname, parts.port, timeout=timeout_s)

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
        kept = self._connection.sock is not None
        try:
            try:
                return self._once(method, path, body, headers)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not kept:
                    raise
                self.close()  # a kept connection that the server has closed meanwhile: once more
                return self._once(method, path, body, headers)
        except TimeoutError as error:
            self.close()
            raise DeadlineExceeded("infer") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TritonUnavailable(f"{self.url}: {str(error) or type(error).__name__}") from error

    def close(self) -> None:
        self._connection.close()

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Reply:
        self._connection.request(method, self._prefix + path, body, {**self._headers, **(headers or {})})
        answer = self._connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, names, answer.read())
