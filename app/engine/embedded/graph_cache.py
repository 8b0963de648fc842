"""Cache of optimised graphs in the user's folder, so that ONNX Runtime optimises each model only once.

An entry is named by everything that it depends on: the digest of the model's files, ONNX Runtime's build, the options
of optimisation, the processor. Its graph and its weights are compared with their own digests whenever they are loaded;
what is damaged is removed and made again. Nothing here is needed: where an entry can't be read, made or written, the
model is loaded from its own files, and answers the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from app.engine.embedded.initializers import Initializer, external
from app.engine.embedded.packs import SUFFIX, Packs, Place

_log = logging.getLogger(__name__)
_FORMAT = 1
_ENTRY = ".graph"
_EXTERNAL = "weights"  # the name that cached graphs have for the file of their weights; it is empty
_LEAST_BYTES = 1 << 16  # smaller tensors stay in the graph
_UNFINISHED_S = 3600.0  # younger files without an entry may be another process's work in progress
Options = Callable[[], ort.SessionOptions]


@dataclass(frozen=True, slots=True)
class Source:
    """A model's own files.

    Args:
        path: of model.onnx.
        digest: of all the files.
        unchanged: False once they aren't those of the digest any more.
    """

    path: Path
    digest: str
    unchanged: Callable[[], bool]


class CachedSession(ort.InferenceSession):  # type: ignore[misc]  # ONNX Runtime publishes no types
    """A session over weights that are mapped from the cache, which it keeps mapped."""

    def __init__(self, graph: bytes, options: ort.SessionOptions, weights: Sequence[object]) -> None:
        super().__init__(graph, options, providers=["CPUExecutionProvider"])
        self._weights = weights  # after the session itself: attributes go in the order in which they came


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An initializer of a cached graph, where its bytes are, and their SHA-256."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    place: Place
    digest: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cached graph."""

    key: Mapping[str, Any]
    tensors: tuple[_Tensor, ...]
    graph: bytes

    @property
    def packs(self) -> set[str]:
        return {tensor.place.pack for tensor in self.tensors}


class GraphCache:
    """Optimised graphs and their weights. One thread at a time uses it; any number of processes may share the folder.

    Args:
        folder: made when something is to be written; without one that can be used there is no cache.
        most_bytes: of all files; the entries that were used last are kept.
        least_bytes: a model with smaller files is faster loaded than looked up.
    """

    def __init__(self, folder: Path, most_bytes: int, least_bytes: int = 1 << 20) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._least_bytes = least_bytes
        self._packs = Packs(folder)
        self._writable = True

    def session(self, source: Source, options: Options) -> ort.InferenceSession:
        """A session of the model: from the cache if it is there, through the cache if it can be put there.

        Args:
            source: the model.
            options: makes the options of a session.
        """
        size = sum(file.stat().st_size for file in source.path.parent.iterdir() if file.is_file())
        if size < self._least_bytes or size > self._most_bytes or not trusted(self._folder):
            return _plain(source.path, options())
        key = {"model": source.digest, "format": _FORMAT, "least_bytes": _LEAST_BYTES, **machine()}
        return self._cached(key, options) or self._made(source, key, options)

    def _cached(self, key: Mapping[str, Any], options: Options) -> ort.InferenceSession | None:
        path = self._path(key)
        try:
            session = self._open(_read(path, key), options())
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the model itself is there
            _log.warning("the cached graph %s is discarded: %s", path, error)
            _remove(path)
            return None
        with contextlib.suppress(
            OSError
        ):  # a folder that can only be read: nothing is removed from it either
            os.utime(path)
        return session

    def _open(self, entry: _Entry, options: ort.SessionOptions) -> CachedSession:
        packs = {name: self._packs.open(name) for name in entry.packs}
        values = []
        for tensor in entry.tensors:
            array = packs[tensor.place.pack].tensor(tensor.place, tensor.dtype, tensor.shape)
            values.append(ort.OrtValue.ortvalue_from_numpy(array))
            options.add_initializer(tensor.name, values[-1])
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._folder)
        )
        (self._folder / _EXTERNAL).stat()
        session = CachedSession(entry.graph, options, [values, packs])
        for pack in packs.values():
            pack.forget_pages()  # ONNX Runtime has packed copies of some, and reads the others again
        return session

    def _made(self, source: Source, key: Mapping[str, Any], options: Options) -> ort.InferenceSession:
        """A session of the new entry, or of the model's own files where that can't be made."""
        if not self._writable:
            return _plain(source.path, options())
        session: ort.InferenceSession | None = None
        try:
            with self._workplace() as folder:
                place = Path(folder)
                session = _saving(source.path, place / "graph.onnx", options())
                if not source.unchanged():
                    return session  # of nobody knows which files: its caller throws it away
                self._write(key, (place / "graph.onnx").read_bytes(), place / _EXTERNAL)
            self._bound()
            return self._open(_read(self._path(key), key), options())
        except Exception as error:  # noqa: BLE001  # a full disk, a folder that can't be written, a type unknown here
            _log.warning("%s is served without the cache of graphs: %s", source.path, error)
            self._writable = not isinstance(error, OSError)
            _remove(self._path(key))
        return session or _plain(source.path, options())

    def _workplace(self) -> tempfile.TemporaryDirectory[str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / _EXTERNAL).touch()
        return tempfile.TemporaryDirectory(prefix=".making-", dir=self._folder, ignore_cleanup_errors=True)

    def _write(self, key: Mapping[str, Any], graph: bytes, weights: Path) -> None:
        """Put a graph and its weights into the folder; tensors that other entries have are taken from these."""
        tensors = external(graph)
        content = memoryview(weights.read_bytes() if tensors else b"")
        views = [content[one.offset : one.offset + one.length] for one in tensors]
        digests = [hashlib.sha256(view).hexdigest() for view in views]
        known = self._known()
        new = {digest: view for digest, view in zip(digests, views, strict=True) if digest not in known}
        if new:
            known.update(zip(new, self._packs.write(new.values()), strict=True))
        entry = _Entry(key, tuple(map(_tensor, tensors, [known[d] for d in digests], digests)), graph)
        _write(self._path(key), entry)

    def _known(self) -> dict[str, Place]:
        """The tensors of all entries whose packs are there."""
        return {
            tensor.digest: tensor.place
            for entry in self._entries().values()
            for tensor in entry.tensors
            if self._packs.path(tensor.place.pack).is_file()
        }

    def _entries(self) -> dict[Path, _Entry]:
        """All that can be read, the ones used last first."""
        found = {}
        for path in sorted(self._folder.glob(f"*{_ENTRY}"), key=_changed, reverse=True):
            try:
                found[path] = _read(path)
            except (OSError, ValueError):
                _remove(path)
        return found

    def _bound(self) -> None:
        """Remove the least recently used entries beyond the limit, and files that belong to no entry."""
        total, kept, dropped = 0, set[str](), set[str]()
        for path, entry in self._entries().items():
            more = entry.packs - kept
            total += _size(path) + sum(_size(self._packs.path(pack)) for pack in more)
            if total > self._most_bytes:
                dropped |= entry.packs
                _remove(path)
            else:
                kept |= more
        unfinished = time.time() - _UNFINISHED_S
        for path in self._folder.iterdir():
            stale = _changed(path) < unfinished
            if path.suffix == SUFFIX and path.stem not in kept and (stale or path.stem in dropped):
                _remove(path)
            elif path.name.startswith(".") and stale:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else _remove(path)

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self._folder / f"{hashlib.sha256(_json(key)).hexdigest()}{_ENTRY}"


def trusted(folder: Path) -> bool:
    """True if the folder belongs to this user or root, or doesn't exist yet."""
    try:
        return folder.stat().st_uid in {0, os.geteuid()}
    except FileNotFoundError:
        return True
    except OSError:
        return False


@functools.cache
def machine() -> Mapping[str, str]:
    """Return everything that an optimised graph depends on, except the model."""
    return {
        "onnxruntime": f"{ort.__version__} {ort.get_build_info()}",
        "optimisation": "all, CPUExecutionProvider",
        "system": f"{platform.system()} {platform.machine()} {platform.processor()}",
        "processor": hashlib.sha256(_processor().encode()).hexdigest(),
    }


def _processor() -> str:
    """The features of the processor, as far as they can be told here."""
    features = getattr(getattr(np, "_core", None), "_multiarray_umath", None)
    known = sorted(key for key, there in getattr(features, "__cpu_features__", {}).items() if there)
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            lines = {
                line.strip()
                for line in file
                if line.startswith(("flags", "Features", "model name", "CPU part"))
            }
    except OSError:  # not Linux
        lines = set()
    return "\n".join([*known, *sorted(lines)])


def _plain(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _saving(path: Path, target: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session of the model, which leaves its optimised graph at `target` and its weights beside it."""
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _EXTERNAL)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_LEAST_BYTES)
    )
    return _plain(path, options)


def _tensor(initializer: Initializer, place: Place, digest: str) -> _Tensor:
    return _Tensor(initializer.name, initializer.dtype, initializer.shape, place, digest)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _write(path: Path, entry: _Entry) -> None:
    """Write a line with the SHA-256 of what follows, a line of JSON, and the graph."""
    head = {"key": dict(entry.key), "tensors": [asdict(tensor) for tensor in entry.tensors]}
    body = _json(head) + b"\n" + entry.graph
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        Path(temporary).replace(path)
    except BaseException:
        _remove(Path(temporary))
        raise


def _read(path: Path, key: Mapping[str, Any] | None = None) -> _Entry:
    """Read what `_write` wrote.

    Raises:
        OSError: it can't be read.
        ValueError: it isn't whole, or no such thing, or not of this key.
    """
    digest, _, body = path.read_bytes().partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("its bytes have changed")
    head, _, graph = body.partition(b"\n")
    document = json.loads(head)
    if key is not None and document["key"] != key:
        raise ValueError("it is of another model, or made elsewhere")
    tensors = tuple(
        _Tensor(t["name"], t["dtype"], tuple(t["shape"]), Place(**t["place"]), t["digest"])
        for t in document["tensors"]
    )
    return _Entry(document["key"], tensors, graph)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
