"""What is known of weights, and what isn't."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from app.engine.base import Weights
from app.engine.weights import WeightsBook, files_digest


def _note(folder: Path, model: str, **fields: object) -> Path:
    path = folder / model / "1" / "weights.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


def test_the_note_beside_the_model_is_read(tmp_path: Path) -> None:
    """Digest, kind, source and labels come from weights.json."""
    _note(tmp_path, "m", digest="sha256:aa", weights="checkpoint", source={"name": "m.pt"}, labels=["cat"])
    assert WeightsBook(tmp_path, None).lookup("m") == Weights(
        "sha256:aa", "checkpoint", source="m.pt", labels=("cat",)
    )


def test_the_manifest_serves_where_files_can_t_be_seen(tmp_path: Path) -> None:
    """A gateway on another host knows digests from the manifest; the note goes first."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"models": {"m": {"digest": "sha256:bb", "weights": "pretrained"}}}))
    assert WeightsBook(None, manifest).lookup("m").digest == "sha256:bb"
    assert WeightsBook(tmp_path / "nowhere", manifest).lookup("m").kind == "pretrained"
    _note(tmp_path, "m", digest="sha256:aa")
    assert WeightsBook(tmp_path, manifest).lookup("m").digest == "sha256:aa"


def test_without_either_nothing_is_known(tmp_path: Path) -> None:
    """Unknown is said, never guessed."""
    assert WeightsBook(None, None).lookup("m") == Weights("unknown", "unknown")
    assert WeightsBook(tmp_path, tmp_path / "manifest.json").lookup("m").digest == "unknown"


def test_a_changed_note_is_read_again(tmp_path: Path) -> None:
    """A model that was built anew is reported as what it is now."""
    book = WeightsBook(tmp_path, None)
    path = _note(tmp_path, "m", digest="sha256:aa")
    assert book.lookup("m").digest == "sha256:aa"
    path.write_text(json.dumps({"digest": "sha256:bb"}))
    os.utime(path, ns=(1, 1))
    assert book.lookup("m").digest == "sha256:bb"
    path.unlink()
    assert book.lookup("m").digest == "unknown"


def test_a_broken_note_is_no_note(tmp_path: Path) -> None:
    """Half a file, or one of another shape, makes nothing known and nothing fail."""
    path = _note(tmp_path, "m")
    for text in ("{", "[]", "null", '"x"', "\x00"):
        path.write_text(text)
        assert WeightsBook(tmp_path, path).lookup("m").digest == "unknown"


def test_the_digest_of_several_files_is_that_of_their_list(tmp_path: Path) -> None:
    """External data counts; notes and labels don't."""
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "labels.txt").write_text("cat")
    (tmp_path / "weights.json").write_text("{}")
    graph = hashlib.sha256(b"graph").hexdigest()
    assert files_digest(tmp_path) == f"sha256:{graph}"
    (tmp_path / "data.bin").write_bytes(b"data")
    lines = f"{hashlib.sha256(b'data').hexdigest()}  data.bin\n{graph}  model.onnx\n"
    assert files_digest(tmp_path) == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
