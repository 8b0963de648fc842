"""`categories_places365.txt` beside the weights, from the folder through the export to the HTTP answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from golden.pictures import PROJECT
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png

pytestmark = pytest.mark.reference

EXPORT_PYTHON = PROJECT / ".venv-export" / "bin" / "python"
BRANCH = "places365_resnet50_224"
SHIPPED = CATALOGUE["places"].labels
OWN = [f"room_{number:03}" for number in range(365)]
_EXPORT = """
import sys
from pathlib import Path
import torch
from export import build, repository
from export.families import places as exporter
from export.plan import Places
from export.weights import random_weights
from routing import catalogue
folder, name = sys.argv[1:]
checkpoint = Path(folder) / "weights" / "resnet50_places365.pth.tar"
if not checkpoint.is_file():
    state = exporter.load(random_weights()).module.state_dict()
    torch.save({"arch": "resnet50", "state_dict": {f"module.{key}": value for key, value in state.items()}}, checkpoint)
known = catalogue.load()
places = Places(Path(folder) / "models", Path(folder) / "optimized")
repository.write_configs(repository.configs(known), places.repository)
sys.exit(build.models(known, [known.branches[name]], str(checkpoint.parent), places))
"""


def _export(folder: Path) -> Path:
    """Make the branch from `folder/weights`, where a checkpoint in the official layout is made first."""
    command = [EXPORT_PYTHON, "-P", "-c", _EXPORT, str(folder), BRANCH]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return folder / "models"


def _best(repository: Path, frame: np.ndarray) -> dict[int, str]:
    """Number and name of the five best categories, as `/v1/places` answers them."""
    with client(repository, require_ready=BRANCH) as gateway:
        response = gateway.post("/v1/places?k=5", content=png(frame))
    assert response.status_code == 200, response.text
    assert response.json()["models_used"][0]["weights"] == "checkpoint"
    return {row["category_id"]: row["category"] for row in response.json()["places"]}


def test_the_user_s_names_are_answered(tmp_path: Path) -> None:
    """Without the list the shipped names, with it its names, by the same numbers, and without it the shipped again."""
    if not EXPORT_PYTHON.is_file():
        pytest.skip("no .venv-export to make the models with")
    (tmp_path / "weights").mkdir()
    categories = tmp_path / "weights" / "categories_places365.txt"
    frame = np.random.default_rng(4).integers(0, 256, (240, 320, 3), np.uint8)
    shipped = _best(_export(tmp_path), frame)
    assert shipped == {number: SHIPPED[number] for number in shipped}
    categories.write_text("".join(f"/r/{name} {number}\n" for number, name in enumerate(OWN)))
    own = _best(_export(tmp_path), frame)
    assert list(own.items()) == [(number, OWN[number]) for number in shipped]
    categories.unlink()
    assert _best(_export(tmp_path), frame) == shipped
