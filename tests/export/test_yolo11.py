"""YOLO11 in torch and in ONNX: fixed shapes, the same bytes, and answers that depend on the picture."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.manifest import Source
from export.weights import Weights, random_weights
from routing import catalogue as catalogues

pytestmark = pytest.mark.export

CATALOGUE = catalogues.load()
SPEC = CATALOGUE.models["yolo11n_320"]
ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("GATEWAY_REFERENCE_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def yolo11() -> Any:
    """The exporter; skips where torch isn't installed."""
    pytest.importorskip("torch")
    from export import yolo11  # noqa: PLC0415 (imports torch)

    return yolo11


@pytest.fixture(scope="module")
def networks(yolo11: Any) -> Any:
    """How networks are loaded and made."""
    from export import yolo11_networks  # noqa: PLC0415 (imports torch)

    return yolo11_networks


def _export(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the exporter in a process of its own, and return the manifest."""
    command = [sys.executable, "-P", "-m", "export", "models", *arguments]
    places = ["--repository", str(folder / "repository"), "--models", str(folder / "models")]
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads((folder / "models" / "manifest.json").read_bytes())["models"]
    return document


def _save(module: Any, path: Path) -> Weights:
    """A checkpoint in Ultralytics' form."""
    import torch  # noqa: PLC0415 (only where it is installed)

    torch.save({"model": module, "train_args": {}}, path)
    return Weights("checkpoint", Source(path.name, "00"), path)


def test_random_network_depends_on_its_input(yolo11: Any) -> None:
    """Settled random weights answer two pictures and noise differently, finitely, with scores in 0…1."""
    branch = CATALOGUE.branches["yolo11n_320"]
    content, labels = yolo11.export(branch, random_weights())
    assert labels == ()
    pictures = [yolo11.picture(yolo11.ultralytics().ASSETS / name, 320) for name in yolo11.PICTURES]
    noise = np.random.default_rng(1).random((1, 3, 320, 320), dtype=np.float32)
    answers = yolo11.run(content, SPEC, [*pictures, noise])
    for answer in answers:
        assert answer.shape == (1, 84, 2100)
        assert np.isfinite(answer).all()
        assert 0 <= answer[:, 4:].min() <= answer[:, 4:].max() <= 1
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(answers[first] - answers[second])[:, :4].max() > 10  # px
        assert np.abs(answers[first] - answers[second])[:, 4:].max() > 0.01
    assert np.ptp(answers[0][0, 4:], axis=1).min() > 0  # every class varies over the picture


@pytest.mark.usefixtures("yolo11")
def test_the_same_seed_gives_the_same_digest(tmp_path: Path) -> None:
    """Two processes in two folders make the same bytes, at every size."""
    manifests = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        manifests.append(_export(tmp_path / place, "--weights", "random"))
    names = [f"yolo11n_{size}" for size in (320, 640, 960)]
    assert list(manifests[0]) == [*(f"preprocess_yolo11_{size}" for size in (320, 640, 960)), *names]
    assert manifests[0] == manifests[1]
    assert {manifests[0][name]["weights"] for name in names} == {"random"}


@pytest.mark.usefixtures("yolo11")
@pytest.mark.skipif(not (REFERENCE / "yolo11n.pt").is_file(), reason="no reference data")
def test_trained_checkpoint_sees_the_bus(tmp_path: Path, yolo11: Any) -> None:
    """The trained checkpoint exports at every size, says where it comes from, and sees a bus and people."""
    manifest = _export(tmp_path, "--weights", str(REFERENCE))
    source = REFERENCE / "yolo11n.pt"
    for name, entry in manifest.items():
        if name.startswith("preprocess_"):
            assert entry["weights"] == "none"
            continue
        assert entry["weights"] == "checkpoint"
        assert entry["source"] == {
            "name": "yolo11n.pt",
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        }
        assert (entry["labels"][0], entry["labels"][5], len(entry["labels"])) == ("person", "bus", 80)
        spec = CATALOGUE.models[name]
        bus = yolo11.picture(yolo11.ultralytics().ASSETS / "bus.jpg", spec.inputs[0].shape[-1])
        content = (tmp_path / "repository" / name / "1" / "model.onnx").read_bytes()
        (answer,) = yolo11.run(content, spec, [bus])
        assert answer[0, 4 + 0].max() > 0.6
        assert answer[0, 4 + 5].max() > 0.6


def test_other_classes_are_refused(yolo11: Any, networks: Any, tmp_path: Path) -> None:
    """A checkpoint of three classes can't have the contract's 84 rows, and the error says so."""
    module = networks.ultralytics().DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    with pytest.raises(ExportError, match="knows 3 classes"):
        networks.load("n", _save(module, tmp_path / "mine.pt"))


def test_another_variant_is_refused(yolo11: Any, networks: Any, tmp_path: Path) -> None:
    """yolo11s under the name yolo11n.pt isn't served as n."""
    module = networks.ultralytics().DetectionModel("yolo11s.yaml", nc=80, verbose=False)
    with pytest.raises(ExportError, match="another network than yolo11n"):
        networks.load("n", _save(module, tmp_path / "yolo11n.pt"))


def test_garbage_is_refused(networks: Any, tmp_path: Path) -> None:
    """A file that is no checkpoint is an error that names it."""
    path = tmp_path / "yolo11n.pt"
    path.write_bytes(b"no weights")
    with pytest.raises(ExportError, match=r"yolo11n\.pt is no checkpoint"):
        networks.load("n", Weights("checkpoint", Source(path.name, "00"), path))


def test_code_in_a_checkpoint_is_not_run(networks: Any, tmp_path: Path) -> None:
    """A pickle that would call a function when loaded is refused, and the function isn't called."""
    path = tmp_path / "yolo11n.pt"
    with pytest.raises(ExportError, match="no checkpoint"):
        networks.load("n", _save(_Trap(str(tmp_path / "trapped")), path))
    assert not (tmp_path / "trapped").exists()


class _Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(
    ("row", "error"),
    [pytest.param(0, 0.5, id="box"), pytest.param(10, 0.01, id="score"), pytest.param(10, np.nan, id="nan")],
)
def test_another_answer_is_refused(yolo11: Any, row: int, error: float) -> None:
    """A box half a pixel off, a score a hundredth off, or a NaN: the graph isn't written."""
    rng = np.random.default_rng(3)
    expected = [rng.random((1, 84, 2100), dtype=np.float32) * 100 for _ in range(2)]
    yolo11.check_parity("m", expected, [array.copy() for array in expected])
    answers = [array.copy() for array in expected]
    answers[1][0, row, 1000] += error
    with pytest.raises(ExportError, match="ONNX Runtime and torch differ"):
        yolo11.check_parity("m", expected, answers)


def test_a_network_that_was_not_settled_is_refused(yolo11: Any, networks: Any) -> None:
    """Left as initialised YOLO11 gives any picture the same boxes, and comparing those would prove nothing."""
    import torch  # noqa: PLC0415 (only where it is installed)

    module = networks.ultralytics().DetectionModel("yolo11n.yaml", nc=80, verbose=False).eval()
    pictures = [yolo11.picture(yolo11.ultralytics().ASSETS / name, 320) for name in yolo11.PICTURES]
    with torch.no_grad():
        answers = [module(torch.from_numpy(array))[0].numpy() for array in pictures]
    with pytest.raises(ExportError, match="ignore their input"):
        yolo11.check_parity("yolo11n_320", answers, answers)
