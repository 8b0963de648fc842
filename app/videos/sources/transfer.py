"""One attempt to bring a source to the disk, or the rest of it after an earlier attempt.

The rest is asked for with Range and If-Range, only of a version that a strong ETag names, and only an answer with the
same ETag is appended. Everything else begins again.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app import __version__
from app.errors import SourceRefused, SourceTimeout, SourceTooLarge, SourceUnreachable
from app.outgoing import Connection, Target
from app.videos.job_files import SHORTAGES
from app.videos.sources.routes import Route

_MOST_REDIRECTS = 5
_PIECE = 1 << 18
_GROWTH = 1 << 20  # bytes of disk that are asked for at once where the source doesn't say how many it has
_KEEP_S = 1.0
_LONGEST_WAIT_S = 3600.0  # that a source may ask for in Retry-After
_LEAST_PER_S = 1024  # bytes; a source that sends less for the time of a silence counts as broken
_STRONG_ETAG = re.compile(r'"[!#-~]{0,1022}"')
_ETAG = re.compile(r'(W/)?"[!#-~]{0,1022}"')
_AGAIN = {408, 425, 429}  # and all of 5xx
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


class Stopped(Exception):
    """The transfer was aborted, or its job has been deleted."""


class Broken(Exception):
    """The attempt failed, and another may succeed, after `wait_s` if the source asks for that. `words` say why."""

    def __init__(self, words: str, wait_s: float = 0.0) -> None:
        super().__init__(words)
        self.words = words
        self.wait_s = wait_s


@dataclass(slots=True)
class Have:
    """The part of a source that is on the disk: `nbytes` of `total` (None: unknown), of the version `etag`."""

    nbytes: int = 0
    total: int | None = None
    etag: str | None = None

    @property
    def resumable(self) -> bool:
        """The rest of it can be asked for."""
        return self.nbytes > 0 and _STRONG_ETAG.fullmatch(self.etag or "") is not None

    @property
    def complete(self) -> bool:
        return self.nbytes == self.total and self.nbytes > 0

    def reset(self) -> None:
        self.nbytes, self.total, self.etag = 0, None, None


@dataclass(frozen=True, slots=True)
class Limits:
    """At most `most_bytes`, within `limit_s`; a source that is silent for `silence_s` counts as broken."""

    most_bytes: int
    limit_s: float
    silence_s: float


class _Window:
    """Measures the speed of a source over spans of `span_s` seconds."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._since = time.monotonic()
        self._nbytes = 0

    def add(self, nbytes: int) -> None:
        """Raise Broken if a span has passed with too few bytes."""
        self._nbytes += nbytes
        passed = time.monotonic() - self._since
        if passed >= self._span_s:
            if self._nbytes < passed * _LEAST_PER_S:
                raise Broken(f"the source sends less than {_LEAST_PER_S} bytes per second")
            self._since, self._nbytes = time.monotonic(), 0


class Transfer:
    """See the module. `run` once; `abort` from any thread.

    Args:
        route: to the source.
        limits: `limit_s` is what is left for this attempt.
        reserve: told how many bytes the disk must hold, before they come; raises where there may be no more.
        keep: told what is safely on the disk, about once per second; returns False to stop.
    """

    def __init__(
        self, route: Route, limits: Limits, reserve: Callable[[int], None], keep: Callable[[Have], bool]
    ) -> None:
        self._route = route
        self._limits = limits
        self._reserve = reserve
        self._keep = keep
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._stopped = self._late = False
        self._kept = time.monotonic()

    def abort(self) -> None:
        """Stop now, also in the middle of a wait for the source."""
        self._stopped = True
        self._cut()

    def run(self, path: Path, have: Have) -> str:
        """Bring the file to its full length, and return its SHA-256 in hex. `have` always says what `path` holds.

        Raises:
            Stopped: by `abort` or `keep`.
            Broken: it may be tried again.
            SourceFailed: trying again doesn't help.
            OSError: the file can't be written, or the service is short of descriptors or memory.
        """
        timer = threading.Timer(max(0.0, self._limits.limit_s), self._expire)
        timer.daemon = True
        timer.start()
        try:
            self._check_file(path, have)
            if have.complete:
                return self._store(None, path, have)
            with self._answer(have) as answer:
                return self._store(answer, path, have)
        finally:
            timer.cancel()
            with self._lock:
                if self._connection is not None:
                    self._connection.close()

    def _expire(self) -> None:
        self._late = True
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.abort()

    def _check(self) -> None:
        """Raise what ended the transfer; a connection that was cut looks like the end of the answer."""
        if self._stopped:
            raise Stopped
        if self._late:
            raise SourceTimeout("the source didn't give the whole video in time")

    @staticmethod
    def _check_file(path: Path, have: Have) -> None:
        """Begin again where the file is shorter than was recorded, or can't be continued."""
        with contextlib.suppress(FileNotFoundError):
            if have.nbytes and path.stat().st_size >= have.nbytes and (have.resumable or have.complete):
                return
        have.reset()

    def _answer(self, have: Have) -> http.client.HTTPResponse:
        """Return the answer behind all redirects."""
        headers = {"accept": "*/*", "user-agent": f"triton-vision-gateway/{__version__}"}
        if have.resumable:
            headers |= {"range": f"bytes={have.nbytes}-", "if-range": have.etag or ""}
        with self._network():
            target: Target | None = self._route.first()
        for _ in range(_MOST_REDIRECTS + 1):
            assert target is not None  # noqa: S101  # see below
            with self._network():
                answer = self._asked(target, headers)
                target = self._route.onward(answer.status, answer.headers)
            if target is None:
                return answer
        raise SourceRefused(f"the source redirects more than {_MOST_REDIRECTS} times")

    def _asked(self, target: Target, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = target.connection(self._limits.silence_s)
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = connection
        self._check()
        connection.request("GET", target.path, headers=headers)
        return connection.getresponse()

    def _store(self, answer: http.client.HTTPResponse | None, path: Path, have: Have) -> str:
        """Append the answer to the file, or replace the file with it."""
        if answer is not None:
            self._begin(answer, have)
        digest = hashlib.sha256()
        with path.open("r+b" if have.nbytes else "w+b") as file:
            file.truncate(have.nbytes)
            left = have.nbytes
            while left and (piece := file.read(min(_PIECE, left))):
                self._check()
                digest.update(piece)
                left -= len(piece)
            try:
                if answer is not None:
                    self._copy(answer, file, digest.update, have)
            except BaseException:
                with contextlib.suppress(OSError):  # what is buffered finds no room
                    file.flush()
                have.nbytes = min(have.nbytes, os.fstat(file.fileno()).st_size)
                raise
            finally:
                self._record(file, have)
        return digest.hexdigest()

    def _begin(self, answer: http.client.HTTPResponse, have: Have) -> None:
        """Judge the head of the answer: it continues the file, or it begins it."""
        status, headers = answer.status, answer.headers
        if status in _AGAIN or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Broken(f"the source answered {status}", _retry_after(headers.get("retry-after", "")))
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise SourceRefused("the source encodes the video (Content-Encoding), though it was asked not to")
        if have.resumable and status in {206, 412, 416}:
            found = _RANGE.fullmatch(headers.get("content-range", ""))
            same = status == http.HTTPStatus.PARTIAL_CONTENT and headers.get("etag") == have.etag
            if found is None or not same or int(found[1]) != have.nbytes:
                have.reset()
                raise Broken("the source has changed, or sends another part than was asked for")
            if have.total is None and found[2] != "*":
                have.total = int(found[2])
        elif status == http.HTTPStatus.OK:
            have.nbytes, have.total = 0, answer.length
            etag = headers.get("etag", "").strip()
            have.etag = etag if _ETAG.fullmatch(etag) else None
        else:
            raise SourceRefused(f"the source answered {status}")
        if (have.total or 0) > self._limits.most_bytes:
            raise SourceTooLarge(f"the source has {have.total} bytes; the limit is {self._limits.most_bytes}")
        self._reserve(have.total or 0)

    def _copy(
        self,
        answer: http.client.HTTPResponse,
        file: BinaryIO,
        update: Callable[[bytes], None],
        have: Have,
    ) -> None:
        reserved = have.total or 0
        self._record(file, have)
        window = _Window(self._limits.silence_s)
        while have.total is None or have.nbytes < have.total:
            most = _PIECE if have.total is None else min(_PIECE, have.total - have.nbytes)
            with self._network():
                piece = answer.read1(most)
            if not piece:
                break
            window.add(len(piece))
            if have.nbytes + len(piece) > self._limits.most_bytes:
                raise SourceTooLarge(f"the source has more than {self._limits.most_bytes} bytes")
            if have.nbytes + len(piece) > reserved:
                reserved = have.nbytes + max(_GROWTH, len(piece))
                self._reserve(reserved)
            file.write(piece)
            update(piece)
            have.nbytes += len(piece)
            if time.monotonic() - self._kept > _KEEP_S:
                self._record(file, have)
        if have.total is not None and have.nbytes < have.total:
            raise Broken("the connection broke")
        have.total = have.nbytes

    def _record(self, file: BinaryIO, have: Have) -> None:
        """Let what came be found after a crash, even of the machine."""
        file.flush()
        os.fdatasync(file.fileno())
        self._kept = time.monotonic()
        if not self._keep(have):
            raise Stopped

    @contextlib.contextmanager
    def _network(self) -> Iterator[None]:
        """Raise Broken for errors of the network inside, and what ended the transfer for those that it made."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise SourceUnreachable("the source's certificate can't be verified") from error
        except (OSError, http.client.HTTPException) as error:
            self._check()
            if _is_shortage(error):
                raise
            raise Broken(next(words for kind, words in _REASONS if isinstance(error, kind))) from error
        self._check()


def _is_shortage(error: Exception) -> bool:
    """Return True for a lack of descriptors or memory here; numbers of the resolver's errors mean something else."""
    return isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno in SHORTAGES


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header; 0 for none, and for a date."""
    return min(float(text), _LONGEST_WAIT_S) if re.fullmatch(r"[0-9]{1,9}", text.strip()) else 0.0


# Why an attempt failed, without the words of a library; the first that fits.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "the source was silent for too long"),
    (ssl.SSLError, "TLS with the source failed"),
    (socket.gaierror, "the source's host can't be resolved"),
    (ConnectionRefusedError, "the connection was refused"),
    (http.client.IncompleteRead, "the connection broke"),
    (http.client.RemoteDisconnected, "the connection broke"),
    (ConnectionError, "the connection broke"),
    (http.client.HTTPException, "the source's answer is no HTTP"),
    (OSError, "the connection failed"),
)
