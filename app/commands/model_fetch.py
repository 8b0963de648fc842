"""`gateway models fetch`: copy a model repository from a web server or a bucket, and check every file's digest.

The source holds a file `SHA256SUMS` as `sha256sum` writes it. A file appears under its name only after its digest was
checked, so an interrupted copy leaves no file that is wrong, and the next one fetches what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app import extras
from app.commands.predict.families import arguments
from app.errors import GatewayError, SourceTimeout
from app.outgoing import UrlGuard
from app.settings import Settings
from app.videos.sources.routes import HttpRoute, Route, S3Route, Sign, object_of
from app.videos.stores.base import checked_name
from routing.versions import served_folder

SUMS = "SHA256SUMS"
FAILED, USAGE, INTERRUPTED = 1, 2, 130
_HELP = f"""\
Copy a model repository. SOURCE has a file {SUMS} that lists the others:

  cd triton/models && find . -type f ! -name {SUMS} | sort | xargs -d '\\n' sha256sum > {SUMS}

Files that are there with the right digest are kept, so an interrupted copy can be continued.
"""
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?:\./)?(?P<name>[^\\]+)")
_STEP = re.compile(r'model_name: "([^"]+)"')  # of an ensemble; the last one has the weights
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_SUMS, _MOST_FILE = 1 << 20, 1 << 36  # bytes
_SILENCE_S = 30.0
_MOST_FAILURES = 8  # attempts in a row that bring nothing
_LONGEST_PAUSE_S = 30.0
_LONGEST_S = 7 * 86400.0
# The operator names the source, so it may be in any network.
_ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def add_action(actions: Any) -> argparse.ArgumentParser:
    """Add `fetch` to the actions of `gateway models`."""
    parser: argparse.ArgumentParser = actions.add_parser(
        "fetch",
        help="copy a model repository from a web server or a bucket, and check its digests",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="https://host/folder or s3://bucket/prefix")
    parser.add_argument("--digest", metavar="sha256:HEX", help=f"digest of {SUMS}; another one is refused")
    parser.add_argument("--timeout", type=_seconds, default=3600.0, metavar="SECONDS", help="(default 3600)")
    parser.set_defaults(action=run)
    return parser


def run(parsed: argparse.Namespace, settings: Settings) -> int:
    """Run the action; answers the exit code."""
    if settings.repository is None:
        return _refuse("needs a repository: --repository", USAGE)
    try:
        done = fetch(Source(parsed.source, parsed.timeout), settings.repository, parsed.digest, print)
    except FetchFailed as error:
        return _refuse(str(error), FAILED)
    except OSError as error:
        return _refuse(f"{error.filename or settings.repository}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _refuse("interrupted; run it again to continue", INTERRUPTED)
    print(f"{done.copied} copied, {done.linked} linked, {done.kept} kept in {settings.repository}")
    return 0


def _refuse(words: str, code: int) -> int:
    print(f"gateway models fetch: {words}", file=sys.stderr)
    return code


def _seconds(text: str) -> float:
    seconds = arguments.number(text)
    if not 0 < seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {_LONGEST_S:.0f}")
    return seconds


class FetchFailed(Exception):
    """The repository could not be copied; the message says why."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Numbers of files: copied, linked to a copied file with the same content, and already there."""

    copied: int
    linked: int
    kept: int


class Source:
    """A folder of a web server (`https://host/folder`) or of a bucket (`s3://bucket/prefix`).

    Raises:
        FetchFailed: the URL names neither, or the extra for buckets is missing.
    """

    def __init__(self, url: str, limit_s: float) -> None:
        self._url = url.rstrip("/")
        self._until = time.monotonic() + limit_s
        self._guard = UrlGuard(("*",), _ANYWHERE, setting="SOURCE")
        self._sign = _sign() if url.startswith("s3://") else None
        if "?" in url or "#" in url:
            raise FetchFailed("the URL of a folder has no query and no fragment")
        try:
            if self._sign is None:
                self._guard.check(self._url)
            else:
                object_of(f"{self._url}/{SUMS}")
        except GatewayError as error:
            raise FetchFailed(error.detail) from None

    def copy(self, name: str, path: Path, most_bytes: int) -> str:
        """Write a file of the source to `path`, with retries; return its SHA-256 in hex.

        Raises:
            FetchFailed: the source doesn't give it.
        """
        from app.videos.sources.transfer import Broken, Have, Limits, Transfer  # noqa: PLC0415  # imports numpy

        have, failures = Have(), 0
        while True:
            before = have.nbytes
            limits = Limits(most_bytes, self._until - time.monotonic(), _SILENCE_S)
            try:
                return Transfer(self._route(name), limits, lambda _: None, lambda _: True).run(path, have)
            except SourceTimeout:
                raise FetchFailed(f"{name}: the time is up; run it again to continue") from None
            except GatewayError as error:
                raise FetchFailed(f"{name}: {error.detail}") from None
            except Broken as error:
                failures = 1 if have.resumable and have.nbytes > before else failures + 1
                pause = max(error.wait_s, min(0.5 * 2.0 ** (failures - 1), _LONGEST_PAUSE_S))
                if failures >= _MOST_FAILURES or time.monotonic() + pause > self._until:
                    raise FetchFailed(f"{name}: {error.words} ({failures} attempts)") from None
                time.sleep(pause)

    def _route(self, name: str) -> Route:
        if self._sign is not None:
            return S3Route(*object_of(f"{self._url}/{name}"), self._sign)
        return HttpRoute(f"{self._url}/{quote(name)}", self._guard)


def fetch(source: Source, into: Path, digest: str | None, say: Callable[[str], None]) -> Fetched:
    """Make `into` hold every file that the source's SHA256SUMS lists, with the right content.

    Files of `into` that aren't listed stay as they are.

    Args:
        source: where the files are.
        into: folder of the repository.
        digest: `sha256:<hex>` that SHA256SUMS itself must have; None: any.
        say: told of every file.

    Raises:
        FetchFailed: the source doesn't give a file, or gives one with another digest.
        OSError: a file can't be written.
    """
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise FetchFailed("a digest is written sha256: and 64 hexadecimal digits")
    into.mkdir(parents=True, exist_ok=True)
    listed = _listed(source, into, digest)
    there: dict[str, Path] = {}
    counts = {"copied": 0, "linked": 0, "kept": 0}
    for name, expected in listed.items():
        target = into / name
        done = _provide(source, name, expected, target, there)
        there.setdefault(expected, target)
        counts[done] += 1
        say(f"{done:7} {name}")
    for name in listed:
        model, _, file = name.partition("/")
        if (
            file == "config.pbtxt"
        ):  # Triton wants the folder of an ensemble's version, too, which has no file in it
            parts = (model, *_STEP.findall((into / name).read_text("utf-8", "replace")))
            (into / model / served_folder(into / parts[-1]).name).mkdir(exist_ok=True)
    return Fetched(**counts)


def _provide(source: Source, name: str, expected: str, target: Path, there: dict[str, Path]) -> str:
    """Bring one file to its place, and return what was done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    if target.is_file() and _sha256(target) == expected:
        return "kept"
    partial.unlink(missing_ok=True)
    if expected in there:  # models of one architecture share a file of weights, see docs/models.md
        try:
            os.link(there[expected], partial)
        except OSError:  # a file system without hard links
            shutil.copyfile(there[expected], partial)
        partial.replace(target)
        return "linked"
    found = source.copy(name, partial, _MOST_FILE)
    if found != expected:
        partial.unlink(missing_ok=True)
        raise FetchFailed(f"{name}: its digest is sha256:{found}, and {SUMS} has sha256:{expected}")
    partial.replace(target)
    return "copied"


def _listed(source: Source, into: Path, digest: str | None) -> dict[str, str]:
    """Return the digest of each file; a folder's notes (weights.json) come after the files that they describe."""
    path = into / f".{SUMS}"
    try:
        found = f"sha256:{source.copy(SUMS, path, _MOST_SUMS)}"
        if digest is not None and found != digest:
            raise FetchFailed(f"{SUMS}: its digest is {found}, and {digest} was expected")
        listed = _read(path.read_bytes())
    finally:
        path.unlink(missing_ok=True)
    return dict(sorted(listed.items(), key=lambda item: (item[0].endswith("/weights.json"), item[0])))


def _read(data: bytes) -> dict[str, str]:
    """Return the names of a SHA256SUMS with their digests in hex."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise FetchFailed(f"{SUMS} is no UTF-8 text") from None
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise FetchFailed(
                f"{SUMS}, line {number}: 64 hexadecimal digits, two spaces and a name are expected"
            )
        try:
            name = checked_name(found["name"])
        except OSError as error:
            raise FetchFailed(f"{SUMS}, line {number}: {error.strerror}") from None
        if listed.setdefault(name, found["digest"]) != found["digest"]:
            raise FetchFailed(f"{SUMS}, line {number}: {name} has two digests")
    listed.pop(SUMS, None)  # written while it was still empty: `sha256sum * > SHA256SUMS`
    if not listed:
        raise FetchFailed(f"{SUMS} lists no file")
    return listed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sign() -> Sign:
    lacking = extras.missing("bulk")
    if lacking is not None:
        raise FetchFailed(lacking)
    from app.videos.sources.s3 import SignedUrls  # noqa: PLC0415  # an extra: bulk

    return SignedUrls()
