"""Which weights to use: what `--weights` asks for, looked up on disk or downloaded."""

from __future__ import annotations

import functools
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Literal
from urllib.error import HTTPError

from export.artifacts import beside, sha256
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
            raise ExportError(f"{url} wasn't asked for: its host has failed before")
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
        raise ExportError(f"{base} wasn't asked for: its host has failed before")
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
    print(f"downloading {url}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside(path) as temporary, temporary.open("wb") as file:
            _fetch(url, file)
    except HTTPError as error:
        raise (_NotThere if error.code == 404 else ExportError)(f"can't download {url}: {error}") from error
    except (OSError, HTTPException) as error:  # URLError, time-outs and a full disk are all OSErrors
        raise ExportError(f"can't download {url}: {error}") from error


def _fetch(url: str, file: IO[bytes]) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 (from our own table, never a file)
        for chunk in iter(functools.partial(response.read, _CHUNK), b""):
            file.write(chunk)
        expected = int(response.headers.get("Content-Length") or 0)
    if expected and file.tell() != expected:
        raise OSError(f"{file.tell()} of {expected} bytes arrived")
