"""Known and unknown facts about weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    """A model that was built again is reported as what it is now."""
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


@pytest.mark.parametrize(
    "text",
    ['{"models": []}', '{"models": null}', '{"models": {"m": 3}}', '{"models": {"m": null}}', "[" * 100_000],
    ids=lambda text: text[:24],
)
def test_a_manifest_of_another_shape_is_no_manifest(tmp_path: Path, text: str) -> None:
    """JSON that isn't what the exporter writes makes nothing known, and never stops an engine."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text(text)
    assert WeightsBook(None, manifest).lookup("m") == Weights()


@pytest.mark.parametrize(
    "fields",
    [{"digest": None, "weights": 3}, {"labels": None}, {"labels": "cat"}, {"source": {"name": 3}}],
    ids=str,
)
def test_a_field_of_another_kind_is_unknown(tmp_path: Path, fields: dict[str, object]) -> None:
    """Null is no digest called `None`, and a word no list of letters."""
    _note(tmp_path, "m", **fields)
    assert WeightsBook(tmp_path, None).lookup("m") == Weights()


_KEYS = st.sampled_from(
    ["models", "m", "digest", "weights", "precision", "engine", "source", "name", "labels", "x"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(_JSON)
def test_no_json_stops_a_lookup(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    """Whatever stands in the note or the manifest, the fields are strings of it or unknown."""
    path = tmp_path_factory.mktemp("json") / "m" / "1" / "weights.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    for book in (WeightsBook(path.parents[2], None), WeightsBook(None, path)):
        weights = book.lookup("m")
        known = (weights.digest, weights.kind, weights.precision, weights.engine, *weights.labels)
        assert all(isinstance(value, str) for value in known)
        assert weights.source is None or isinstance(weights.source, str)


def test_a_digest_is_known_once_note_and_files_agree(tmp_path: Path) -> None:
    """Without a note, with one of other files, or with one that has no digest, nothing is known; in any order."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    digest = files_digest(folder)
    book = WeightsBook(tmp_path, None)
    assert book.verified(folder, "m") == Weights()
    _note(tmp_path, "m", weights="pretrained")
    assert book.verified(folder, "m") == Weights()
    _note(tmp_path, "m", weights="pretrained", digest="sha256:aa")
    assert book.verified(folder, "m") == Weights()
    _note(tmp_path, "m", weights="pretrained", digest=digest)
    assert book.verified(folder, "m") == Weights(digest=digest, kind="pretrained")
    (folder / "model.onnx").write_bytes(b"other graph")
    assert book.verified(folder, "m") == Weights()


def test_a_note_that_is_no_file_blocks_nobody(tmp_path: Path) -> None:
    """A FIFO without a writer, and a folder, are no notes."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "weights.json")
    assert WeightsBook(tmp_path, None).lookup("m") == Weights()
    (folder / "weights.json").unlink()
    (folder / "weights.json").mkdir()
    assert WeightsBook(tmp_path, None).lookup("m") == Weights()


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
