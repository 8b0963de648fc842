"""Our export of YOLO11 against Ultralytics' own, by PyTorch: the same answers to real pictures.

Every variant at 320 and yolo11n at every size; with `GATEWAY_PARITY=all` all fifteen (`make test-export PARITY=all`).
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import yolo11
from export.errors import ExportError
from export.manifest import Source
from export.weights import Weights
from export.yolo11 import architecture, checkpoint
from export.yolo11.graph import build
from export.yolo11.records import Array, Record
from routing import catalogue as catalogues

pytestmark = pytest.mark.export

CATALOGUE = catalogues.load()
ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("GATEWAY_REFERENCE_DATA", ROOT.parent / "shared" / "data"))
ALL = os.environ.get("GATEWAY_PARITY") == "all"
SIDES = (320, 640, 960)
CASES = [
    pytest.param(variant, side, id=f"{variant}-{side}")
    for variant in "nsmlx"
    for side in SIDES
    if ALL or variant == "n" or side == 320
]
# What two runtimes may differ by; with equal operations in equal order ONNX Runtime's answers are equal to the bit.
BOX_PX, SCORE = 0.004, 1e-5


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Ultralytics; skips where it isn't installed."""
    if not (find_spec("torch") and find_spec("ultralytics")):  # importing Ultralytics would ask the network
        pytest.skip("needs PyTorch and Ultralytics")
    from support.models import ultralytics_yolo11  # noqa: PLC0415 (imports torch)

    return ultralytics_yolo11


def _answers(theirs: Any, module: Any, model: Record, variant: str, side: int) -> list[tuple[Array, Array]]:
    """Return the outputs of both graphs for the pictures: Ultralytics' and ours."""
    spec = CATALOGUE.models[f"yolo11{variant}_{side}"]
    pictures = [theirs.picture(name, side) for name in theirs.PICTURES]
    graphs = theirs.exported(module, side), build(model, spec, yolo11.OPSET)
    expected, found = (yolo11.run(content, spec, pictures) for content in graphs)
    return list(zip(expected, found, strict=True))


def _compare(pairs: list[tuple[Array, Array]], record: Any) -> None:
    boxes = max(float(np.abs(ours - theirs)[:, :4].max()) for theirs, ours in pairs)
    scores = max(float(np.abs(ours - theirs)[:, 4:].max()) for theirs, ours in pairs)
    record("greatest difference, px", boxes)
    record("greatest difference of scores", scores)
    assert boxes <= BOX_PX
    assert scores <= SCORE
    assert np.abs(pairs[0][0] - pairs[1][0])[:, :4].max() > 10  # px: the answers depend on the picture


@pytest.fixture(scope="module")
def saved(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Settled random networks of Ultralytics' and the checkpoints that it saves, in half precision as it does."""
    made: dict[str, tuple[Any, Record]] = {}

    def make(variant: str) -> tuple[Any, Record]:
        if variant not in made:
            made.clear()  # the large ones take a gigabyte
            module = theirs.settled(variant).half()
            path = theirs.save(module, tmp_path_factory.mktemp("saved") / f"yolo11{variant}.pt")
            made[variant] = module.float(), checkpoint.read(path)
        return made[variant]

    return make


@pytest.mark.parametrize(("variant", "side"), CASES)
def test_random_networks(theirs: Any, saved: Any, record_property: Any, variant: str, side: int) -> None:
    """A settled random network of every variant answers as Ultralytics' own export does."""
    module, model = saved(variant)
    _compare(_answers(theirs, module, model, variant, side), record_property)


@pytest.mark.skipif(not (REFERENCE / "yolo11n.pt").is_file(), reason="no reference data")
@pytest.mark.parametrize("side", SIDES)
def test_the_trained_network(theirs: Any, record_property: Any, side: int) -> None:
    """The trained checkpoint answers the same, and finds the same boxes in the picture of a bus."""
    path = REFERENCE / "yolo11n.pt"
    pairs = _answers(theirs, theirs.load(path), checkpoint.read(path), "n", side)
    _compare(pairs, record_property)
    expected, found = (theirs.boxes(answer) for answer in pairs[0])
    assert len(expected) >= 4
    assert 5 in expected[:, 5]  # a bus
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= BOX_PX


@pytest.mark.parametrize("variant", architecture.SCALES)
def test_the_table_of_layers(theirs: Any, variant: str) -> None:
    """Our own table gives the parameters of Ultralytics' description, by name and shape."""
    ours = architecture.network(variant, np.random.default_rng(0))

    def shapes(module: Record, path: str) -> dict[str, tuple[int, ...]]:
        own = module.state.get("_parameters", {})
        found = {f"{path}{name}": array.shape for name, array in own.items() if array is not None}
        for name, child in module.state.get("_modules", {}).items():
            found |= shapes(child, f"{path}{name}.")
        return found

    expected = theirs.network(f"yolo11{variant}.yaml").named_parameters()
    assert shapes(ours, "") == {name: tuple(value.shape) for name, value in expected}


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        pytest.param("yolo11n.yaml", 3, "knows 3 classes", id="other classes"),
        pytest.param("yolo11s.yaml", 80, "another network than yolo11n", id="another variant"),
        pytest.param("yolov8n.yaml", 80, "C2f", id="YOLOv8"),
        pytest.param("yolo12n.yaml", 80, "A2C2f", id="YOLO12"),
        pytest.param("yolov10n.yaml", 80, "C2f", id="YOLOv10"),
        pytest.param("yolo26n.yaml", 80, "plain Detect", id="YOLO26"),
    ],
)
def test_other_networks_are_refused(theirs: Any, tmp_path: Path, name: str, classes: int, said: str) -> None:
    """Another network of Ultralytics' is refused, and the error says by what it is told."""
    path = theirs.save(theirs.network(name, classes).half(), tmp_path / "yolo11n.pt")
    with pytest.raises(ExportError, match=said):
        yolo11.load("n", Weights("checkpoint", Source(path.name, name), path))


def test_fused_and_trained_checkpoints(theirs: Any, tmp_path: Path) -> None:
    """Normalisations that are folded already, an averaged network, and an optimiser's state are no obstacle."""
    module = theirs.settled("n")
    plain = checkpoint.read(theirs.save(module, tmp_path / "plain.pt"))
    state = {
        "optimizer": {"state": {0: {"step": 1.0}}},
        "date": "2026",
        "train_metrics": {"fitness": np.float64(0.5)},
    }
    averaged = checkpoint.read(theirs.save(None, tmp_path / "ema.pt", ema=module, **state))
    fused = checkpoint.read(theirs.save(module.float().eval().fuse(verbose=False), tmp_path / "fused.pt"))
    spec = yolo11.specification("yolo11n", 96)
    first, *others = (build(model, spec, yolo11.OPSET) for model in (plain, averaged, fused))
    assert [content == first for content in others] == [True, True]
