"""Depth, flow, CLIP and Places365 from picture bytes to the HTTP answer, against the reference libraries.

The golden answers are those of transformers (DPT, CLIP, with their own processors) and torchvision (RAFT, ResNet50),
with the weights that the exporters call random, seed 0: see `tests/helpers/golden/make_{dense,clip,places}.py`.

The references resize in two ways, Pillow's and torchvision's; with random weights their answers differ by up to 2 % of
a depth. The service is compared twice: with each of its resizers, to the reference that has the same pixels.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.pictures import BY_NAME, PROJECT, Pixels, crop, default_folders
from starlette.testclient import TestClient
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png

pytestmark = pytest.mark.reference

GOLDEN = PROJECT / "tests" / "helpers" / "golden"
EXPORT_PYTHON = PROJECT / ".venv-export" / "bin" / "python"
SIZES = (256, 384, 512)
CROPS = (224, 336, 448)
FLOWS = (*(f"raft_{size}" for size in SIZES), "raft_large_256")
BRANCHES = (
    *(f"midas_{size}" for size in SIZES),
    *FLOWS,
    *(f"clip_image_{size}" for size in CROPS),
    "clip_text",
    *(f"places365_resnet50_{size}" for size in CROPS),
)
_EXPORT = """
import sys
from pathlib import Path
from export import build, repository
from export.plan import Places
from routing import catalogue
folder, *names = sys.argv[1:]
known = catalogue.load()
places = Places(Path(folder) / "models", Path(folder) / "optimized")
repository.write_configs(repository.configs(known), places.repository)
sys.exit(build.models(known, [known.branches[name] for name in names], "random", places))
"""
NPY = {"accept": "application/x-npy"}


def golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    facts = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return facts, {key: arrays[key] for key in arrays.files}


def picture(name: str) -> Pixels:
    try:
        return BY_NAME[name].pixels(default_folders())
    except FileNotFoundError as missing:
        pytest.skip(f"needs {missing}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of freshly exported models."""
    if not EXPORT_PYTHON.is_file():
        pytest.skip("no .venv-export to make the models with")
    folder = tmp_path_factory.mktemp("exported")
    command = [EXPORT_PYTHON, "-P", "-c", _EXPORT, str(folder), *BRANCHES]
    subprocess.run(command, cwd=folder, check=True, timeout=1800)
    return folder / "models"


@pytest.fixture(scope="module", params=["fast", "pillow"])
def resizer(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "fast":
        pytest.importorskip("cykooz_resizer", reason="no wheel of cykooz-resizer for this machine")
    return name


@pytest.fixture(scope="module")
def gateway(models: Path, resizer: str) -> Iterator[TestClient]:
    """The service with the embedded engine and one of its resizers."""
    settings = {"require_ready": ",".join(BRANCHES), "embedded_threads": 2, "leases": 1, "resizer": resizer}
    with client(models, **settings) as running:
        yield running


@pytest.fixture
def ending(resizer: str) -> str:
    """Return the end of the golden keys that belong to the resizer's pixels."""
    return "" if resizer == "pillow" else "_torchvision"


def array(gateway: TestClient, path: str, **request: Any) -> np.ndarray:
    response = gateway.post(path, headers=NPY, **request)
    assert response.status_code == 200, response.text
    loaded: np.ndarray = np.load(io.BytesIO(response.content), allow_pickle=False)
    return loaded


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_models_are_those_of_the_golden_data(gateway: TestClient) -> None:
    """Same seed, same tools, same digests: what is compared below was made by the same weights.

    A processor that rounds differently makes weights that differ in their last bits, and so other digests: the
    comparisons below, whose tolerances are wider, are the proof then.
    """
    rows = {r["name"]: r for f in gateway.get("/v1/branches").json()["families"] for r in f["branches"]}
    digests = {
        key: value
        for name in ("dense", "clip", "places")
        for key, value in golden(name)[0]["digests"].items()
    }
    others = [name for name in BRANCHES if rows[name]["weights_digest"] != digests[f"{name}_onnx"]]
    assert all(rows[name]["weights"] == "random" for name in BRANCHES)
    if others:
        pytest.skip(f"this processor rounds differently: {', '.join(others)}")


@pytest.mark.parametrize("branch_size", SIZES)
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_depth_is_the_reference_s(gateway: TestClient, ending: str, name: str, branch_size: int) -> None:
    """DPTImageProcessor and DPTForDepthEstimation, at the branch's size and at the source's: within 1e-3."""
    facts, arrays = golden("dense")
    body = png(picture(name))
    for size, key, grid in (("branch", "depth", "depth"), ("source", "depth_source", "source")):
        start, step = facts["grids"][grid]
        whole = array(gateway, f"/v1/depth?branch={branch_size}&size={size}", content=body)
        expected = arrays[f"{key}_{name}_{branch_size}{ending}"]
        assert np.abs(whole[start::step, start::step] - expected).max() / np.abs(expected).max() < 1e-3


@pytest.mark.parametrize("branch", FLOWS)
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_flow_is_the_reference_s(gateway: TestClient, ending: str, name: str, branch: str) -> None:
    """raft_small, raft_large and their transforms, with each axis in source pixels: within 1e-3."""
    facts, arrays = golden("dense")
    described = CATALOGUE.branches[branch]
    rgb, side = picture(name), described.size
    assert side is not None
    height, width = rgb.shape[:2]
    shift = facts["shift"]
    first, second = (crop(left, 0, width - shift, height)(rgb) for left in (shift, 0))
    files = {"frame0": ("0", png(first)), "frame1": ("1", png(second))}
    start, step = facts["grids"]["flow"]
    query = f"branch={side}&variant={described.variant}"
    ours = array(gateway, f"/v1/flow?{query}&size=branch", files=files)[:, start::step, start::step]
    scale = np.array([(width - shift) / side, height / side], np.float32)[:, None, None]
    expected = arrays[f"flow_{described.variant}_{name}_{side}{ending}"] * scale
    assert np.abs(ours - expected).max() / np.abs(expected).max() < 1e-3


@pytest.mark.parametrize("size", CROPS)
@pytest.mark.parametrize("name", ["astronaut", "coffee", "coffee_odd_251x333", "chelsea_4k_4059x2700"])
def test_image_embeddings_are_the_reference_s(gateway: TestClient, name: str, size: int) -> None:
    """CLIPImageProcessor and CLIPModel: cosine above 0.9999, also where 336 is seen as 320."""
    _, arrays = golden("clip")
    ours = array(gateway, f"/v1/clip/image?branch={size}&normalize=false", content=png(picture(name)))
    assert cosine(ours, arrays[f"{name}_{size}"]) > 0.9999


def test_prompts_are_the_reference_s(gateway: TestClient) -> None:
    """The row at the end of text equals the library's pooled, projected feature to 1e-4."""
    facts, arrays = golden("clip")
    ours = array(gateway, "/v1/clip/text?normalize=false", json={"prompts": facts["prompts"]})
    np.testing.assert_allclose(ours, arrays["text_features"], atol=1e-4)


@pytest.mark.parametrize("size", CROPS)
@pytest.mark.parametrize("name", ["astronaut", "coffee", "coffee_odd_251x333", "chelsea_4k_4059x2700"])
def test_places_are_the_reference_s(gateway: TestClient, ending: str, name: str, size: int) -> None:
    """Torchvision's resnet50 and its transforms: the same five categories in the same order, as probable."""
    _, arrays = golden("places")
    response = gateway.post(f"/v1/places?branch={size}&k=5", content=png(picture(name)))
    logits = arrays[f"{name}_{size}_shortest{ending}"].astype(np.float64)
    expected = np.argsort(-logits, kind="stable")[:5]
    rows = response.json()["places"]
    assert [row["category_id"] for row in rows] == expected.tolist()
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose([row["probability"] for row in rows], probabilities[expected], rtol=1e-3)
