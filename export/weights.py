"""Resolution of `--weights`: look the weights up on disk, or download them."""

from __future__ import annotations

import functools
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Literal
from urllib.error import HTTPError

from tqdm import tqdm

from export.artifacts import sha256
from export.errors import ExportError
from export.manifest import Source

SEED = 0
# Of a network in the hub's layout, the file that describes it and those that may hold its weights.
HUB_CONFIG = "config.json"
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TIMEOUT_S = 10.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that are there: a file or a hub's folder, with the digest of the weights; or a seed, without `path`."""

    kind: Literal["pretrained", "checkpoint", "random"]
    source: Source
    path: Path | None = None


def random_weights() -> Weights:
    return Weights("random", Source(f"seed {SEED}"))


def checkpoint(place: Path, name: str, pattern: str | None = None) -> Weights:
    """The file `place`, or the file `name` in the folder `place`, or the only one there that fits `pattern`.

    Raises:
        ExportError: it isn't there, or several fit.
    """
    path = place / name if place.is_dir() else place
    if pattern and place.is_dir() and not path.is_file():
        fitting = sorted(place.glob(pattern))
        if len(fitting) > 1:
            raise ExportError(
                f"{place} holds several {pattern}; name one: {', '.join(p.name for p in fitting)}"
            )
        path = fitting[0] if fitting else path
    if not path.is_file():
        raise ExportError(f"no weights {name}: looked for {path}, there is no such file")
    return Weights("checkpoint", Source(path.name, sha256(path)), path)


def hub_folder(place: Path, name: str, kind: Literal["pretrained", "checkpoint"] = "checkpoint") -> Weights:
    """The folder `name` in `place`, with a network in the hub's layout.

    Raises:
        ExportError: its description or its weights aren't there.
    """
    folder = place / name
    weights = next((folder / file for file in HUB_WEIGHTS if (folder / file).is_file()), None)
    if weights is None or not (folder / HUB_CONFIG).is_file():
        wanted = f"{HUB_CONFIG} and {' or '.join(HUB_WEIGHTS)}"
        raise ExportError(f"no weights {name}: looked for {wanted} in {folder}")
    return Weights(kind, Source(f"{name}/{weights.name}", sha256(weights)), folder)


def pretrained(url: str, folder: Path, *, online: bool = True) -> Weights:
    """The file behind `url`, downloaded into `folder` unless it is there already.

    Raises:
        ExportError: it can't be had, or isn't there and `online` forbids to ask.
    """
    path = folder / url.rsplit("/", 1)[-1]
    if not path.is_file():
        if not online:
            raise ExportError(f"{url} was not downloaded, because its host has failed before")
        _download(url, path)
    return Weights("pretrained", Source(path.name, sha256(path)), path)


def hub_pretrained(base: str, place: Path, name: str, *, online: bool = True) -> Weights:
    """The network that a hub keeps under `base`, downloaded into the folder `name` of `place` unless it is there.

    Raises:
        ExportError: it can't be had, or isn't there and `online` forbids to ask.
    """
    with suppress(ExportError):
        return hub_folder(place, name, "pretrained")
    if not online:
        raise ExportError(f"{base} was not downloaded, because its host has failed before")
    _download(f"{base}/{HUB_CONFIG}", place / name / HUB_CONFIG)
    first, second = HUB_WEIGHTS
    try:
        _download(f"{base}/{first}", place / name / first)
    except _NotThere:  # older repositories have the second alone
        _download(f"{base}/{second}", place / name / second)
    return hub_folder(place, name, "pretrained")


class _NotThere(ExportError):
    """The host answers, and hasn't the file."""


def _download(url: str, path: Path) -> None:
    """Fetch a file: whole or not at all under its name. What has arrived of it stays beside it, for the next try.

    Raises:
        ExportError: it can't be had.
    """
    print(f"downloading {url}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path)
    try:
        _fetch_all(url, part)
        part.file.replace(path)
    except HTTPError as error:
        raise (_NotThere if error.code == 404 else ExportError)(f"can't download {url}: {error}") from error
    except (OSError, HTTPException) as error:  # URLError, time-outs and a full disk are all OSErrors
        raise ExportError(f"can't download {url}: {error}") from error
    finally:
        part.tidy()
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, sha256:{sha256(path)}", flush=True)


class _Part:
    """The beginning of a file, and the entity tag of the whole: without one it can't be told what it belongs to."""

    def __init__(self, path: Path) -> None:
        self.file, self.tag = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.etag")

    def resume(self) -> tuple[int, str]:
        """The bytes that are there and their entity tag; `(0, "")` where there is nothing to resume."""
        if not (self.file.is_file() and self.tag.is_file()):
            return 0, ""
        return self.file.stat().st_size, self.tag.read_text(encoding="ascii")

    def begin(self, tag: str | None) -> None:
        """Forget what is there. A weak tag doesn't promise the same bytes."""
        self.file.write_bytes(b"")
        self.tag.unlink(missing_ok=True)
        if tag and tag.isascii() and not tag.startswith("W/"):
            self.tag.write_text(tag, encoding="ascii")

    def tidy(self) -> None:
        """Keep only what can be resumed."""
        size, tag = self.resume()
        if not (size and tag):
            self.file.unlink(missing_ok=True)
            self.tag.unlink(missing_ok=True)


def _fetch_all(url: str, part: _Part) -> None:
    """Fetch until the file is whole. A connection that breaks off is resumed as long as that gets on."""
    while True:
        before, _ = part.resume()
        try:
            return _fetch(url, part)
        except HTTPError:
            raise
        except (OSError, HTTPException):
            if part.resume()[0] <= before:
                raise


def _fetch(url: str, part: _Part) -> None:
    start, tag = part.resume()
    headers = {"Range": f"bytes={start}-", "If-Range": tag} if start else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (from our own table, never a file)
    with _opened(request, part) as response:
        if response.headers.get_content_type() == "text/html":
            raise OSError("a web page came in place of the file")
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT and start > 0
        if not resumed:
            start = 0
            part.begin(response.headers.get("ETag"))
        length = response.headers.get("Content-Length")
        expected = start + int(length) if length else None
        with part.file.open("ab") as file:
            _copy(response, file, expected)
            if expected is not None and file.tell() != expected:
                raise OSError(f"{file.tell()} of {expected} bytes arrived")


def _opened(request: urllib.request.Request, part: _Part) -> Any:
    """The answer to a request; a beginning that is longer than the file is thrown away."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 (ditto)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.begin(None)
            raise OSError("what had arrived of the file doesn't belong to it; run it again") from error
        raise


def _copy(response: Any, file: IO[bytes], expected: int | None) -> None:
    """Copy the body, with a bar of progress on a terminal."""
    with tqdm(
        total=expected, initial=file.tell(), unit="B", unit_scale=True, disable=None, leave=False
    ) as bar:
        for chunk in iter(functools.partial(response.read, _CHUNK), b""):
            file.write(chunk)
            bar.update(len(chunk))
