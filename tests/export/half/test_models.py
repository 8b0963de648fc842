"""FP16 branches are converted from built FP32 models, compared with them, published, and named in the catalogue."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.models.repository import CATALOGUE, DEPTH, DETECTORS, OTHERS, build

from export import manifest, repository
from export.errors import ExportError
from export.half import models
from export.plan import Places
from routing import overlay

NAMES = (*DETECTORS, *DEPTH, *OTHERS)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A repository with a branch of every family."""
    return Places(build(tmp_path / "repository", NAMES), tmp_path / "models")


def _make(places: Places, *names: str) -> int:
    branches = [CATALOGUE.branches[name] for name in names]
    return models.models(branches, places, places.models.parent / "catalogue")


def _note(places: Places, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads((places.repository / name / "1/weights.json").read_bytes())
    return document


def test_every_family_gets_fp16_branches(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """Models, configurations, records and the catalogue's file, all under names of their own."""
    assert _make(places, *NAMES) == 0
    catalogue = overlay.load(places.models.parent / "catalogue")
    texts = repository.configs(catalogue)
    for name in NAMES:
        branch, single = catalogue.branches[f"{name}_fp16"], CATALOGUE.branches[name]
        for model in branch.models:
            assert (places.repository / model.name / "config.pbtxt").read_text() == texts[model.name]
            assert (places.repository / model.name / "1").is_dir()
        record = manifest.read(branch.weights_model, places.repository)
        assert record is not None
        assert record.provenance.precision == "fp16"
        note, before = _note(places, branch.weights_model), _note(places, single.weights_model)
        assert note["precision"] == "fp16"
        only_means = name in ("midas_256", "raft_256")  # the small models of these stay in FP32 as a whole
        assert (note["digest"] == before["digest"]) == only_means
        assert (note["source"], note.get("labels")) == (before["source"], before.get("labels"))
    listed = json.loads(places.manifest.read_bytes())["models"]
    assert {listed[f"{name}_fp16"]["precision"] for name in DETECTORS} == {"fp16"}
    assert capsys.readouterr().out.count("converted") == len(NAMES)


def test_what_is_there_is_kept_and_what_is_old_is_made_again(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record says from which weights and by which exporter an FP16 model is."""
    _make(places, "yolo11n_320")
    first = _note(places, "yolo11n_320_fp16")
    assert _make(places, "yolo11n_320", "midas_256") == 0
    assert re.search(r"yolo11n_320_fp16 +is there", capsys.readouterr().out)
    folder = places.repository / "yolo11n_320" / "1"
    other = manifest.Provenance("random", manifest.Source("another seed"), {"opset": 17})
    manifest.publish_graph("yolo11n_320", (folder / "model.onnx").read_bytes(), places.repository, other)
    assert _make(places, "yolo11n_320") == 0
    assert _note(places, "yolo11n_320_fp16")["source"] != first["source"]
    names = models.Listed(places.models.parent / "catalogue").names()
    assert names == ["yolo11n_320", "midas_256"]


def test_a_model_that_is_not_built_fails_alone(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, and the catalogue doesn't promise it."""
    assert _make(places, "midas_384", "midas_256") == 1
    said = capsys.readouterr()
    assert f"midas_384_onnx is not built in {places.repository}; build it first" in said.err
    assert set(overlay.load(places.models.parent / "catalogue").branches) >= {"midas_256_fp16"}
    assert "midas_384_fp16" not in overlay.load(places.models.parent / "catalogue").branches


def test_an_answer_beyond_fp16_is_refused(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """A network whose activations need FP32's range gets no FP16 branch."""
    spec = CATALOGUE.models["places365_resnet50_224_onnx"]
    scale = numpy_helper.from_array(np.float32(60_000), "scale")
    nodes = [
        helper.make_node("ReduceMean", ["INPUT__0"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "mixing"], ["a"]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("MatMul", ["b", "last"], ["OUTPUT__0"]),
    ]
    mixing, last = np.full((3, 8), 9, np.float32), np.ones((8, 365), np.float32)
    tensors = [scale, numpy_helper.from_array(mixing, "mixing"), numpy_helper.from_array(last, "last")]
    ends = [
        helper.make_tensor_value_info(t.name, onnx.TensorProto.FLOAT, t.shape)
        for t in (*spec.inputs, *spec.outputs)
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    record = manifest.Provenance("random", manifest.Source("seed"), {"opset": 17})
    manifest.publish_graph(spec.name, model.SerializeToString(), places.repository, record)
    assert _make(places, "places365_resnet50_224") == 1
    assert "need more than FP16's range" in capsys.readouterr().err
    assert manifest.read("places365_resnet50_224_fp16_onnx", places.repository) is None


def test_shared_weights_are_read_and_shared_again(places: Places) -> None:
    """A graph whose weights lie beside it gives such an FP16 graph: hard-linked, half as long."""
    big = np.random.default_rng(1).standard_normal((64, 3, 4, 4)).astype(np.float32)
    for name in DETECTORS:
        branch = CATALOGUE.branches[name]
        folder = places.repository / name / "1"
        graph = onnx.load(folder / "model.onnx")
        graph.graph.initializer.append(numpy_helper.from_array(big, "shared_kernel"))
        graph.graph.node.insert(
            0, helper.make_node("Conv", ["images", "shared_kernel"], ["unused"], "beside")
        )
        content, shared = models.build.share(graph.SerializeToString(), places.models / "o")
        path = places.models / "o" / f"{name}.onnx"
        path.write_bytes(content)
        provenance = manifest.Provenance("random", manifest.Source("seed"), {"opset": 17})
        manifest.publish(name, path, places.repository, provenance, branch.labels, shared)
    assert _make(places, *DETECTORS) == 0
    files = [next((places.repository / f"{name}_fp16" / "1").glob("shared-*.bin")) for name in DETECTORS]
    assert files[0].samefile(files[1])
    assert files[0].stat().st_size * 2 == big.nbytes
    labels = places.repository / "yolo11n_320_fp16/1/labels.txt"
    assert labels.read_text().splitlines()[0] == "person"


def test_a_catalogue_that_cannot_be_extended_is_told_first(places: Places, tmp_path: Path) -> None:
    """Nothing was made then."""
    branches = [CATALOGUE.branches["midas_256"]]
    file = tmp_path / "mine.toml"
    file.write_text("")
    with pytest.raises(ExportError, match="is a file: FP16 branches are listed in a folder"):
        models.models(branches, places, file)
    folder = tmp_path / "catalogue"
    folder.mkdir()
    (folder / models.FILE).write_text("[precision]\nfp16 = []\n")
    with pytest.raises(ExportError, match="was written by hand; rename it"):
        models.models(branches, places, folder)
    (folder / models.FILE).unlink()
    (folder / "broken.toml").write_text("[precision\n")
    with pytest.raises(ExportError, match=r"broken\.toml:1"):
        models.models(branches, places, folder)
    assert not (places.repository / "midas_256_fp16").exists()


def test_branches_that_the_catalogue_leaves_out_are_left_out(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    """They couldn't be served."""
    folder = places.models.parent / "catalogue"
    folder.mkdir()
    (folder / "mine.toml").write_text('[leave_out]\nfamilies = ["depth"]\n')
    assert _make(places, "midas_256", "yolo11n_320") == 0
    assert f"left out by {folder}: midas_256" in capsys.readouterr().out
    assert models.Listed(folder).names() == ["yolo11n_320"]


def test_a_graph_whose_weights_are_missing_is_told_by_its_path(places: Places) -> None:
    """Not by a traceback."""
    graph = onnx.load(places.repository / "midas_256_onnx/1/model.onnx")
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "away")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="gone.bin")
    tensor.external_data.add(key="length", value="16")
    graph.graph.initializer.append(tensor)
    path = places.repository / "midas_256_onnx/1/model.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ExportError, match=r"model\.onnx can't be read"):
        models.read(path)


def test_the_conversion_is_deterministic(places: Places) -> None:
    """The same FP32 file gives the same FP16 bytes."""
    branch = CATALOGUE.branches["clip_image_224"]
    first, second = (models.converted(branch, places.repository) for _ in range(2))
    assert first == second
