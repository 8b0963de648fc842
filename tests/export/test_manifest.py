"""weights.json and the manifest say what lies there, and nothing when that isn't known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export import manifest
from export.artifacts import sha256, write_atomic
from export.manifest import Provenance, Source

MODEL = "yolo11n_320"
TRAINED = Provenance("checkpoint", Source("yolo11n.pt", "ab" * 32), {"torch": "2.0", "opset": 17})
RANDOM = Provenance("random", Source("seed 0"), {"torch": "2.0", "opset": 17})


def _publish(root: Path, content: bytes, provenance: Provenance, model: str = MODEL) -> manifest.Record:
    optimized = root / "optimized" / f"{model}.onnx"
    write_atomic(optimized, content)
    return manifest.publish(model, optimized, root / "repository", provenance, ("person", "tränåd"))


def _document(root: Path, model: str = MODEL) -> Any:
    return json.loads((root / "repository" / model / "1" / "weights.json").read_bytes())


def test_weights_json_has_the_agreed_form(tmp_path: Path) -> None:
    """Every field of the agreed schema is there, with the digest of the very file that is served."""
    _publish(tmp_path, b"graph", TRAINED)
    served = tmp_path / "repository" / MODEL / "1" / "model.onnx"
    digest = f"sha256:{sha256(served)}"
    assert _document(tmp_path) == {
        "schema_version": 1,
        "model": MODEL,
        "digest": digest,
        "files": {"model.onnx": digest},
        "weights": "checkpoint",
        "source": {"name": "yolo11n.pt", "sha256": "ab" * 32},
        "engine": "onnx",
        "precision": "fp32",
        "exporter": {"torch": "2.0", "opset": 17},
        "labels": ["person", "tränåd"],
    }
    assert served.samefile(tmp_path / "optimized" / f"{MODEL}.onnx")
    assert served.with_name("labels.txt").read_text(encoding="utf-8") == "person\ntränåd\n"


def test_labels_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    """A model without classes has neither a labels.txt nor the field."""
    write_atomic(tmp_path / "graph.onnx", b"graph")
    manifest.publish("preprocess_x", tmp_path / "graph.onnx", tmp_path / "repository", RANDOM)
    assert "labels" not in _document(tmp_path, "preprocess_x")
    assert not (tmp_path / "repository" / "preprocess_x" / "1" / "labels.txt").exists()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """weights.json holds no time stamp and no path of this machine: two places get equal files."""
    files = []
    for place in ("here", "there"):
        _publish(tmp_path / place, b"graph", TRAINED)
        files.append((tmp_path / place / "repository" / MODEL / "1" / "weights.json").read_bytes())
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0]


def test_read_gives_what_publish_wrote(tmp_path: Path) -> None:
    """A published record is read back equal."""
    assert manifest.read(MODEL, tmp_path / "repository") is None
    record = _publish(tmp_path, b"graph", TRAINED)
    assert manifest.read(MODEL, tmp_path / "repository") == record


@pytest.mark.parametrize("step", ["write_if_changed", "link", "write_atomic"])
def test_interrupted_publish_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Wherever publishing stops, no weights.json is left that speaks of other bytes than those that lie there."""
    _publish(tmp_path, b"old graph", RANDOM)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(manifest, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            _publish(tmp_path, b"new graph", TRAINED)
    folder = tmp_path / "repository" / MODEL / "1"
    assert not (folder / "weights.json").exists()
    assert (folder / "model.onnx").read_bytes() in {b"old graph", b"new graph"}
    assert manifest.read(MODEL, tmp_path / "repository") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", "sha256:00"),
        ("files", {"model.onnx": "sha256:00"}),
        ("files", {}),
        ("files", None),
        ("model", "another"),
        ("weights", "splendid"),
        ("schema_version", 2),
        ("source", {"url": "x"}),
    ],
)
def test_read_refuses_a_record_that_lies(tmp_path: Path, field: str, value: object) -> None:
    """A record whose digest, files, model or form don't hold counts as absent, so the model is built again."""
    _publish(tmp_path, b"graph", TRAINED)
    path = tmp_path / "repository" / MODEL / "1" / "weights.json"
    path.write_text(json.dumps({**_document(tmp_path), field: value}))
    assert manifest.read(MODEL, tmp_path / "repository") is None


def test_read_refuses_other_bytes(tmp_path: Path) -> None:
    """A model.onnx that was changed by hand isn't taken for the one in weights.json."""
    _publish(tmp_path, b"graph", TRAINED)
    (tmp_path / "repository" / MODEL / "1" / "model.onnx").write_bytes(b"other")
    assert manifest.read(MODEL, tmp_path / "repository") is None


def test_read_refuses_a_broken_file(tmp_path: Path) -> None:
    """A weights.json that is no JSON counts as absent."""
    _publish(tmp_path, b"graph", TRAINED)
    (tmp_path / "repository" / MODEL / "1" / "weights.json").write_text("{")
    assert manifest.read(MODEL, tmp_path / "repository") is None


def test_manifest_gathers_every_model(tmp_path: Path) -> None:
    """The manifest holds each weights.json without its files, sorted, and follows what is published."""
    path = tmp_path / "manifest.json"
    manifest.write_manifest(tmp_path / "repository", path)
    assert json.loads(path.read_bytes()) == {"schema_version": 1, "models": {}}
    _publish(tmp_path, b"z", RANDOM, "z_model")
    _publish(tmp_path, b"a", TRAINED, "a_model")
    manifest.write_manifest(tmp_path / "repository", path)
    models = json.loads(path.read_bytes())["models"]
    assert list(models) == ["a_model", "z_model"]
    for name, entry in models.items():
        assert entry == {key: value for key, value in _document(tmp_path, name).items() if key != "files"}


def test_manifest_leaves_out_what_it_cant_read(tmp_path: Path) -> None:
    """A broken weights.json claims no digest, and doesn't keep the others out of the manifest."""
    _publish(tmp_path, b"a", TRAINED, "a_model")
    _publish(tmp_path, b"b", TRAINED, "b_model")
    (tmp_path / "repository" / "a_model" / "1" / "weights.json").write_text("{")
    manifest.write_manifest(tmp_path / "repository", tmp_path / "manifest.json")
    assert list(json.loads((tmp_path / "manifest.json").read_bytes())["models"]) == ["b_model"]
