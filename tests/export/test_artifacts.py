"""Files are whole or absent, links share their bytes, digests are those of sha256sum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from export import artifacts
from export.errors import ExportError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic_makes_the_folder_and_the_file(tmp_path: Path) -> None:
    """A file lands whole in a folder that didn't exist, and nothing else lies beside it."""
    path = tmp_path / "a" / "b.bin"
    artifacts.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert _names(path.parent) == ["b.bin"]


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails before its end leaves the old content and no temporary file."""
    path = tmp_path / "model.onnx"
    artifacts.write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        artifacts.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["model.onnx"]


def test_write_if_changed_touches_nothing_equal(tmp_path: Path) -> None:
    """Equal content is not written again, so the file keeps its identity."""
    path = tmp_path / "config.pbtxt"
    assert artifacts.write_if_changed(path, b"a")
    inode = path.stat().st_ino
    assert not artifacts.write_if_changed(path, b"a")
    assert path.stat().st_ino == inode
    assert artifacts.write_if_changed(path, b"b")
    assert path.read_bytes() == b"b"


def test_link_shares_the_bytes_and_replaces(tmp_path: Path) -> None:
    """A link is the same file, also where another one stood before, and linking again changes nothing."""
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"weights")
    artifacts.write_atomic(target, b"older weights")
    for _ in range(2):
        artifacts.link(source, target)
        assert target.samefile(source)
        assert _names(target.parent) == ["target"]


def test_link_copies_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links the target is a copy."""

    def refuse(*_: object) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"weights")
    artifacts.link(source, target)
    assert target.read_bytes() == b"weights"
    assert not target.samefile(source)


def test_rewriting_the_source_leaves_the_linked_file(tmp_path: Path) -> None:
    """A served model keeps its bytes while its optimized file is replaced: writes make a new file."""
    source, target = tmp_path / "source", tmp_path / "target"
    artifacts.write_atomic(source, b"old")
    artifacts.link(source, target)
    artifacts.write_atomic(source, b"new")
    assert target.read_bytes() == b"old"


def test_digest_of_a_lone_model_is_its_own(tmp_path: Path) -> None:
    """Without external data a model's digest is the SHA-256 of model.onnx."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    expected = hashlib.sha256(b"graph").hexdigest()
    assert artifacts.sha256(path) == expected
    assert artifacts.digest({"model.onnx": expected}) == f"sha256:{expected}"


def test_digest_with_external_data_covers_every_file() -> None:
    """With external data the digest is that of the sorted `sha256sum` lines, in whatever order they come."""
    files = {"model.onnx": "bb", "weights.bin": "aa"}
    expected = hashlib.sha256(b"aa  weights.bin\nbb  model.onnx\n").hexdigest()
    assert artifacts.digest(files) == f"sha256:{expected}"
    assert artifacts.digest(dict(reversed(files.items()))) == f"sha256:{expected}"


def test_one_at_a_time(tmp_path: Path) -> None:
    """A second run is told to wait, and may work once the first has ended, well or not."""
    with (
        artifacts.alone(tmp_path),
        pytest.raises(ExportError, match="another run"),
        artifacts.alone(tmp_path),
    ):
        pass
    with pytest.raises(ZeroDivisionError), artifacts.alone(tmp_path):
        raise ZeroDivisionError
    with artifacts.alone(tmp_path):
        pass


def test_only_what_was_never_finished_is_swept(tmp_path: Path) -> None:
    """Temporary files go, wherever they are; whole ones and other hidden ones stay."""
    for name in ("model.onnx", ".lock", "notes.tmp", "a/.model.onnx.12ab.tmp", ".x.tmp"):
        artifacts.write_atomic(tmp_path / name, b"")
    artifacts.sweep(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".lock", "model.onnx", "notes.tmp"]
