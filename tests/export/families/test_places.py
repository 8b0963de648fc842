"""ResNet50 of Places365 in torch and in ONNX: the official checkpoint's layout, its labels, the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from export import build, plan, sharing
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.weights import random_weights
from routing import catalogue as catalogues

pytestmark = [
    pytest.mark.export,
    # Parts of the C extensions that torch brings along predate Python's own checks of their type names.
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
]

CATALOGUE = catalogues.load()
EXPORTER = EXPORTERS["places"]
FILE = "resnet50_places365.pth.tar"
BRANCH = CATALOGUE.branches["places365_resnet50_224"]
SHIPPED = CATALOGUE["places"].labels


@pytest.fixture(scope="module")
def places() -> Any:
    """The exporter; skips where torch isn't installed."""
    pytest.importorskip("torch")
    from export.families import places  # noqa: PLC0415 (imports torch)

    return places


@pytest.fixture(scope="module")
def network(places: Any) -> Any:
    """A ResNet50 with 365 classes of another seed, in evaluation mode, that answers different pictures differently."""
    import torch  # noqa: PLC0415 (only where it is installed)

    module = places.load(random_weights()).module
    state = {name: value.clone() for name, value in module.state_dict().items()}
    state["fc.weight"] = torch.roll(state["fc.weight"], 7, dims=0)
    other = places._architecture()
    other.load_state_dict(state)
    return other.eval()


def _official(state: dict[str, Any]) -> dict[str, Any]:
    """The document that MIT's training script saves: the state of a DataParallel, with its metrics."""
    return {
        "epoch": 90,
        "arch": "resnet50",
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "best_prec1": 54.74,
    }


class _Python2(pickle._Pickler):  # type: ignore[name-defined, misc]  # the pickler that can be changed
    """Writes strings as Python 2 did, which knew no other: bytes of ASCII."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]  # ditto

    def save_ascii(self, text: str) -> None:
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode("ascii"))
        self.memoize(text)

    dispatch[str] = save_ascii


def _dump(value: Any, file: Any, protocol: int) -> None:
    _Python2(file, protocol).dump(value)


def _save(document: Any, folder: Path, *, old: bool = False) -> Path:
    """Save as today's torch does, or as that of 2017 under Python 2."""
    import torch  # noqa: PLC0415 (only where it is installed)

    if old:
        python2 = SimpleNamespace(__name__="python2", Pickler=_Python2, dump=_dump)
        torch.save(document, folder / FILE, pickle_module=python2, _use_new_zipfile_serialization=False)
        assert b"U\x0astate_dict" in (folder / FILE).read_bytes()
    else:
        torch.save(document, folder / FILE)
    return folder


@pytest.mark.parametrize("old", [False, True], ids=["today's", "of 2017"])
def test_official_checkpoint_is_read_whole(places: Any, network: Any, tmp_path: Path, old: bool) -> None:
    """Today's and the old file format are read, the latter without the counters that old torch didn't keep."""
    import torch  # noqa: PLC0415 (only where it is installed)

    state = network.state_dict()
    if old:
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    weights = EXPORTER.find(_save(_official(state), tmp_path, old=old), BRANCH)
    loaded = places.load(weights).module.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())
    assert (weights.kind, weights.source.name) == ("checkpoint", FILE)
    assert weights.source.sha256 == hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [224, 336, 448])
def test_logits_are_torchs(places: Any, network: Any, tmp_path: Path, size: int) -> None:
    """Each size of a checkpoint answers what torchvision's network, not folded, answers."""
    import torch  # noqa: PLC0415 (only where it is installed)

    branch = CATALOGUE.branches[f"places365_resnet50_{size}"]
    content, labels = places.export(
        branch, EXPORTER.find(_save(_official(network.state_dict()), tmp_path), branch)
    )
    assert labels == ()
    pixels = places.tracing.scene(size, 9)
    (answer,) = places.tracing.run(content, branch.models[-1], [[pixels]])
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    assert answer.shape == (1, 365)
    cosine = (answer * expected).sum() / np.linalg.norm(answer) / np.linalg.norm(expected)
    assert cosine > 0.99999
    np.testing.assert_allclose(answer, expected, atol=1e-3 * expected.std())
    assert np.argsort(-answer[0])[:5].tolist() == np.argsort(-expected[0])[:5].tolist()


def test_the_same_seed_gives_the_same_digest(places: Any) -> None:
    """Random weights, made and settled again, give the same bytes."""
    digests = set()
    for _ in range(2):
        places.load.cache_clear()
        content, _ = places.export(BRANCH, random_weights())
        digests.add(hashlib.sha256(content).hexdigest())
    assert len(digests) == 1


def test_sizes_share_their_weights(places: Any) -> None:
    """The graphs of two sizes look for the same file, and what is left of each is small."""
    parts = [
        sharing.split(places.export(CATALOGUE.branches[f"places365_resnet50_{size}"], random_weights())[0])
        for size in (224, 448)
    ]
    assert parts[0][1] is not None
    assert parts[0][1] == parts[1][1]
    assert max(len(graph) for graph, _, _ in parts) < 1e6


def test_random_network_tells_pictures_apart(places: Any) -> None:
    """Scenes of different light get different best classes, so that equal top-5 lists prove something."""
    import torch  # noqa: PLC0415 (only where it is installed)

    module = places.load(random_weights()).module
    with torch.no_grad():
        best = module(places._scenes()).argmax(dim=1).tolist()
    assert len(set(best)) >= 4


def test_shipped_names_are_the_official_ones() -> None:
    """365 names, each once, in the order of the official list, which is the alphabetical one."""
    assert len(set(SHIPPED)) == 365
    assert list(SHIPPED) == sorted(SHIPPED)
    assert {
        0: "airfield",
        8: "apartment_building/outdoor",
        203: "kitchen",
        364: "zen_garden",
    }.items() <= dict(enumerate(SHIPPED)).items()


def _categories(folder: Path, names: list[str]) -> None:
    """`categories_places365.txt` as MIT has it, but in another order: the numbers count."""
    lines = [f"/{name[0]}/{name} {number}" for number, name in enumerate(names)]
    (folder / "categories_places365.txt").write_text("\n".join(reversed(lines)) + "\n")


def test_names_beside_the_weights_are_served(
    places: Any, network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of `categories_places365.txt` are published, and when they change the model is made again."""
    names = [f"{name}_{number}" for number, name in enumerate(SHIPPED)]
    folder = _save(_official(network.state_dict()), tmp_path).absolute()
    where = plan.Places(tmp_path / "repository", tmp_path / "models")

    def published() -> tuple[str, tuple[str, ...]]:
        capsys.readouterr()
        assert build.models(CATALOGUE, [BRANCH], str(folder), where) == 0
        served = where.repository / BRANCH.weights_model / "1"
        labels = tuple((served / "labels.txt").read_text().splitlines())
        assert tuple(json.loads((served / "weights.json").read_bytes())["labels"]) == labels
        return capsys.readouterr().out, labels

    out, labels = published()
    assert labels == SHIPPED
    _categories(folder, names)
    out, labels = published()
    assert "exported" in out
    assert labels == tuple(names)
    out, labels = published()
    assert "is there" in out
    assert labels == tuple(names)
    _categories(folder, names[::-1])
    assert published()[1] == tuple(names[::-1])
    (folder / "categories_places365.txt").unlink()
    assert published()[1] == SHIPPED


def test_a_faulty_list_beside_the_weights_makes_nothing(places: Any, network: Any, tmp_path: Path) -> None:
    """Scenes that would be labelled wrongly aren't served, however right the weights are."""
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n")
    with pytest.raises(ExportError, match=r"categories_places365\.txt names 1 classes"):
        places.export(BRANCH, EXPORTER.find(_save(_official(network.state_dict()), tmp_path), BRANCH))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("/a/airfield 0\n", "names 1 classes", id="too few"),
        pytest.param("airfield\n", "isn't of the form", id="no numbers"),
        pytest.param("".join(f"/a/x{n} {n + 1}\n" for n in range(365)), "from 0", id="counted from 1"),
        pytest.param(
            "".join(f"/a/x{n} {n}\n" for n in range(365)) + "/a/y 0\n", "names 366", id="a number twice"
        ),
        pytest.param("\udcff", "can't be read", id="no UTF-8"),
    ],
)
def test_other_names_are_refused(places: Any, tmp_path: Path, text: str, message: str) -> None:
    """A list of another length, form or numbering would label scenes wrongly."""
    path = tmp_path / "categories_places365.txt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ExportError, match=message):
        places.read_labels(path)


class _Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_another_layout_is_refused(places: Any, network: Any, tmp_path: Path) -> None:
    """Other documents, classes and networks are errors that say what is wrong with the file."""
    import torchvision  # noqa: PLC0415 (only where it is installed)

    state = network.state_dict()
    cases = {
        "no 'state_dict'": {f"module.{name}": value for name, value in state.items()},
        "with tensors": {"state_dict": {"module.fc.weight": "text"}},
        "knows 0 classes": {"state_dict": {}},
        "knows 10 classes": _official(torchvision.models.resnet50(num_classes=10).state_dict()),
        "another network than ResNet50": _official(torchvision.models.resnet18(num_classes=365).state_dict()),
    }
    for message, document in cases.items():
        with pytest.raises(ExportError, match=message):
            places.load(EXPORTER.find(_save(document, tmp_path), BRANCH))


def test_garbage_and_code_are_refused(places: Any, tmp_path: Path) -> None:
    """A file that isn't a checkpoint is an error that names it; a pickle that would run code isn't run."""
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(ExportError, match="no checkpoint that torch can read"):
        places.load(EXPORTER.find(tmp_path, BRANCH))
    trap = tmp_path / "trapped"
    with pytest.raises(ExportError, match="no checkpoint that torch can read"):
        places.load(EXPORTER.find(_save({"state_dict": _Trap(str(trap))}, tmp_path), BRANCH))
    assert not trap.exists()
