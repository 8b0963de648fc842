"""YOLO11 without PyTorch: fixed shapes, the same bytes, and the answers of the network as NumPy computes them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.models.checkpoints import network, write

from export import yolo11
from export.errors import ExportError
from export.manifest import Source
from export.weights import SEED, Weights, random_weights
from export.yolo11 import architecture
from export.yolo11.graph import build
from export.yolo11.network import Network
from export.yolo11.numpy_ops import Numpy
from export.yolo11.records import Array, Record
from routing import catalogue as catalogues

CATALOGUE = catalogues.load()
ROOT = Path(__file__).parents[2]
# Parameters of each variant, as Ultralytics publishes them.
PARAMETERS = {"n": 2_624_080, "s": 9_458_752, "m": 20_114_688, "l": 25_372_160, "x": 56_966_176}


@pytest.fixture(scope="module")
def nano() -> Record:
    """A settled random yolo11n; don't write into it."""
    return architecture.random("n", SEED)


@pytest.fixture
def fresh() -> Record:
    """A random yolo11n of one's own, not settled."""
    return architecture.network("n", np.random.default_rng(2))


def _weights(path: Path) -> Weights:
    return Weights("checkpoint", Source(path.name, hashlib.sha256(path.read_bytes()).hexdigest()), path)


def _load(folder: Path, model: Record, variant: str = "n", names: Any = None) -> yolo11.Loaded:
    return yolo11.load(variant, _weights(write(folder / "mine.pt", network(model, names))))


def _parameters(module: Record) -> int:
    own = sum(array.size for array in module.state.get("_parameters", {}).values() if array is not None)
    return int(own) + sum(map(_parameters, module.children()))


@pytest.mark.parametrize("variant", PARAMETERS)
def test_every_variant_has_its_parameters(variant: str) -> None:
    """The table of layers gives the published number of parameters, to the last one."""
    assert _parameters(architecture.network(variant, np.random.default_rng(0))) == PARAMETERS[variant]


@pytest.mark.parametrize("side", [320, 640, 960])
@pytest.mark.parametrize("variant", PARAMETERS)
def test_every_branch_has_its_contract(variant: str, side: int) -> None:
    """All fifteen graphs are valid ONNX of the catalogue's names, types and shapes."""
    spec = CATALOGUE.models[f"yolo11{variant}_{side}"]
    content = build(architecture.network(variant, np.random.default_rng(0)), spec, yolo11.OPSET)
    yolo11.check_contract(onnx.load_from_string(content), spec, yolo11.OPSET)


@pytest.mark.parametrize("variant", ["n", "m"])
def test_the_graph_computes_the_network(variant: str) -> None:
    """Folded in single precision, ONNX Runtime answers as NumPy does unfolded in double, and depends on its input."""
    model = architecture.random(variant, 5)
    spec = yolo11.specification("yolo11", 96)
    pictures = [yolo11.scene(seed, 96) for seed in (3, 4)]
    answers = yolo11.run(build(model, spec, yolo11.OPSET), spec, pictures)
    for picture, answer in zip(pictures, answers, strict=True):
        expected = Network(Numpy()).run(model, picture.astype(np.float64))
        assert np.abs(answer - expected)[:, :4].max() < 0.005
        assert np.abs(answer - expected)[:, 4:].max() < 2e-5
        assert np.ptp(answer[0, 4:], axis=1).min() > 0  # every class varies over the picture
    yolo11.check_alive("yolo11", answers)


def test_random_scores_are_low_but_some_pass(nano: Record) -> None:
    """Random weights give finite answers, scores in 0…1, and some boxes over the usual threshold, not all."""
    spec = CATALOGUE.models["yolo11n_320"]
    (answer,) = yolo11.run(build(nano, spec, yolo11.OPSET), spec, [yolo11.scene(1, 320)])
    assert np.isfinite(answer).all()
    assert 0 <= answer[:, 4:].min() <= answer[:, 4:].max() <= 1
    assert 0 < (answer[0, 4:].max(0) > 0.25).sum() < 1000


def test_the_number_of_threads_does_not_show() -> None:
    """With one thread and with two the random weights are the same bytes."""
    program = (
        "import hashlib; from export.yolo11 import architecture, specification, build, OPSET;"
        "spec = specification('y', 96);"
        "print(hashlib.sha256(build(architecture.random('n', 0), spec, OPSET)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "PYTHONPATH": str(ROOT),
            },
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_the_same_seed_gives_the_same_digest(tmp_path: Path) -> None:
    """Two processes in two folders make the same bytes, and the sizes share one file of weights."""
    manifests = []
    for place in ("first", "second"):
        places = [
            "--repository",
            str(tmp_path / place / "repository"),
            "--models",
            str(tmp_path / place / "models"),
        ]
        command = [sys.executable, "-P", "-m", "export", "models", "--weights", "random", *places]
        subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        manifests.append(json.loads((tmp_path / place / "models" / "manifest.json").read_bytes())["models"])
    assert manifests[0] == manifests[1]
    names = [f"yolo11n_{size}" for size in (320, 640, 960)]
    assert {manifests[0][name]["weights"] for name in names} == {"random"}
    shared = {path.stat().st_ino for path in (tmp_path / "first").rglob("shared-*.bin")}
    assert len(shared) == 1


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_a_checkpoint_is_the_network_it_was_made_of(tmp_path: Path, nano: Record, dtype: str) -> None:
    """Written to a file and read back, a network gives the same bytes; halves give almost the same answers."""
    loaded = yolo11.load("n", _weights(write(tmp_path / "yolo11n.pt", network(nano), dtype)))
    spec = yolo11.specification("yolo11n", 96)
    contents = [build(model, spec, yolo11.OPSET) for model in (nano, loaded.model)]
    assert (contents[0] == contents[1]) == (dtype == "f4")
    first, second = (yolo11.run(content, spec, [yolo11.scene(1, 96)])[0] for content in contents)
    assert np.abs(first - second)[:, :4].max() < 2
    assert loaded.labels == tuple(f"class {i}" for i in range(80))


def test_a_network_of_other_widths_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers are those of the file, not those of a table: widths that no variant has are no obstacle."""
    monkeypatch.setitem(architecture.SCALES, "n", (0.5, 0.375, 768))
    model = architecture.random("n", 1)
    monkeypatch.undo()
    model.state["yaml"] = {"scale": None}
    loaded = _load(tmp_path, model)
    assert _parameters(model) not in PARAMETERS.values()
    spec = CATALOGUE.models["yolo11n_320"]
    yolo11.check_contract(onnx.load_from_string(build(loaded.model, spec, 17)), spec, 17)


def _first_conv(model: Record) -> Record:
    return model.child("model").children()[0].child("conv")


def _head(model: Record) -> Record:
    return model.child("model").children()[-1]


def _set(record: Record, **state: Any) -> None:
    record.state.update(state)


def _grow_cyclic(model: Record) -> None:
    part = model.child("model").children()[2].child("m")
    part.state["_modules"]["0"] = Record("Sequential", {"_modules": {"0": part.children()[0]}})
    part.children()[0].state["_modules"]["1"] = part.children()[0]


def _double_often(model: Record) -> None:
    part = Record("Identity")
    for _ in range(20):
        part = Record("Sequential", {"_modules": {"0": part, "1": part}, "f": -1})
    model.child("model").state["_modules"]["0"] = part


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda m: _set(_head(m), nc=3), "knows 3 classes", id="other classes"),
        pytest.param(
            lambda m: _set(m, yaml={"scale": "s"}), "another network than yolo11n: yolo11s", id="variant"
        ),
        pytest.param(
            lambda m: _head(m).state["_modules"].update(one2one_cv2=Record("ModuleList")),
            "plain Detect",
            id="end2end",
        ),
        pytest.param(
            lambda m: m.child("model").state["_modules"].popitem(), "ends in a C3k2 head", id="no head"
        ),
        pytest.param(
            lambda m: m.child("model").state["_modules"].clear(), "ends in a DetectionModel", id="no layers"
        ),
        pytest.param(lambda m: m.state.pop("_modules"), "without its part model", id="no modules"),
        pytest.param(
            lambda m: _first_conv(m).state["_parameters"].clear(), "without its tensor weight", id="weight"
        ),
        pytest.param(
            lambda m: _set(_first_conv(m), groups=3), "doesn't fit its input of 3 channels", id="groups"
        ),
        pytest.param(lambda m: _set(_first_conv(m), stride=0), "doesn't fit", id="stride 0"),
        pytest.param(lambda m: _set(_first_conv(m), stride=-2), "don't fit together", id="stride -2"),
        pytest.param(lambda m: _set(_first_conv(m), padding="same"), "don't fit together", id="padding"),
        pytest.param(
            lambda m: _set(_first_conv(m), padding_mode="reflect"), "other padding than zeros", id="reflect"
        ),
        pytest.param(
            lambda m: _set(_head(m), stride=np.zeros(3, np.float32)), "no strides", id="strides of 0"
        ),
        pytest.param(lambda m: _set(_head(m), reg_max=8), "where one of", id="bins"),
        pytest.param(
            lambda m: _set(m.child("model").children()[11], mode="bilinear"), "Upsample", id="upsample"
        ),
        pytest.param(
            lambda m: _set(m.child("model").children()[12], f=[-1, 99]), "don't fit together", id="source"
        ),
        pytest.param(
            lambda m: _set(m.child("model").children()[12], f=[-1, 2]), "different sizes", id="sizes"
        ),
    ],
)
def test_networks_that_are_refused(
    tmp_path: Path, fresh: Record, spoil: Callable[[Record], Any], said: str
) -> None:
    """A network that isn't YOLO11 with 80 classes is an error that says why."""
    spoil(fresh)
    with pytest.raises(ExportError, match=said):
        _load(tmp_path, fresh)


def _enlarge(model: Record) -> None:
    larger = Record("Upsample", {"scale_factor": 8.0, "mode": "nearest"})
    model.child("model").state["_modules"]["0"] = Record(
        "Sequential", {"_modules": {str(i): larger for i in range(9)}, "f": -1}
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(_grow_cyclic, "more modules than any", id="a module in itself"),
        pytest.param(_double_often, "more modules than any", id="2^20 modules"),
        pytest.param(_enlarge, "more numbers than any", id="8^18 times the picture"),
    ],
)
def test_endless_networks_are_refused(fresh: Record, spoil: Callable[[Record], None], said: str) -> None:
    """A small file can't make a graph that takes time or memory without end."""
    spoil(fresh)
    with pytest.raises(ExportError, match=said):
        yolo11.check_parity("yolo11n", fresh)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_weights_are_refused(tmp_path: Path, fresh: Record, value: float) -> None:
    """A weight that isn't finite is found before the graph is written."""
    _first_conv(fresh).need("weight")[0, 0, 0, 0] = value
    with pytest.raises(ExportError, match="aren't finite"):
        _load(tmp_path, fresh)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param({i: f"c{i}" for i in range(79)}, "printable name for each", id="79"),
        pytest.param(
            [*(f"c{i}" for i in range(79)), "two\nlines"], "printable name for each", id="two lines"
        ),
        pytest.param({i: i for i in range(80)}, "printable name for each", id="numbers"),
        pytest.param(7, "no names", id="a number"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, fresh: Record, names: Any, said: str) -> None:
    """Every class needs a name of one line."""
    with pytest.raises(ExportError, match=said):
        _load(tmp_path, fresh, names=names)


def test_names_may_be_a_list(tmp_path: Path, nano: Record) -> None:
    """Older checkpoints list their names."""
    names = [f"name {i}" for i in range(80)]
    assert _load(tmp_path, nano, names=names).labels == tuple(names)


@pytest.mark.parametrize(("row", "error"), [(0, 0.5), (10, 0.01), (10, np.nan)], ids=["box", "score", "nan"])
def test_another_answer_is_refused(row: int, error: float) -> None:
    """A box half a pixel off, a score a hundredth off, or a NaN: the graph isn't written."""
    expected: Array = np.random.default_rng(3).random((1, 84, 2100), dtype=np.float32) * 100
    yolo11.compare("m", expected, expected.copy())
    answer = expected.copy()
    answer[0, row, 1000] += error
    with pytest.raises(ExportError, match="ONNX Runtime and NumPy differ"):
        yolo11.compare("m", expected, answer)


def test_weights_that_ignore_their_input_are_refused(fresh: Record) -> None:
    """Without a signal any picture gets the same boxes, and comparing those would prove nothing."""
    _first_conv(fresh).need("weight")[:] = 0
    spec = yolo11.specification("yolo11n", 96)
    answers = yolo11.run(build(fresh, spec, yolo11.OPSET), spec, [yolo11.scene(seed, 96) for seed in (1, 2)])
    with pytest.raises(ExportError, match="ignore their input"):
        yolo11.check_alive("yolo11n_96", answers)


def test_random_weights_have_no_labels() -> None:
    """Exported at a served size, random weights are checked and bring no names of classes."""
    content, labels = yolo11.export(CATALOGUE.branches["yolo11n_320"], random_weights())
    assert labels == ()
    assert onnx.load_from_string(content).producer_name == "triton-vision-gateway"
