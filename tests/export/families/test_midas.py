"""Depth networks in torch and in ONNX: the hub's layout read whole, and answers that depend on the picture."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
EXPORTER = EXPORTERS["depth"]
TINY, HYBRID = "dpt-swinv2-tiny-256", "dpt-hybrid-midas"
BRANCHES = {TINY: CATALOGUE.branches["midas_256"], HYBRID: CATALOGUE.branches["midas_384"]}


@pytest.fixture(scope="module")
def midas() -> Any:
    """The exporter; skips where torch isn't installed."""
    pytest.importorskip("torch")
    from export.families import midas  # noqa: PLC0415 (imports torch)

    return midas


@pytest.fixture
def folder(midas: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a small network of the architecture `request.param`, as `save_pretrained` leaves it."""
    _save(_small(midas, request.param), tmp_path / request.param)
    return tmp_path


both = pytest.mark.parametrize("folder", [TINY, HYBRID], indirect=True)


def _small(midas: Any, name: str) -> Any:
    """A network with the official one's parts, and few channels."""
    from transformers import BitConfig, DPTConfig, Swinv2Config  # noqa: PLC0415 (imports torch)

    small = {"neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16}
    if name == HYBRID:
        backbone = BitConfig(
            hidden_sizes=[32, 32, 64],
            embedding_size=32,
            depths=[1, 1, 1],
            num_groups=8,
            global_padding="same",
            layer_type="bottleneck",
            out_features=["stage1", "stage2", "stage3"],
            embedding_dynamic_padding=True,
        )
        config = DPTConfig(
            is_hybrid=True,
            backbone_config=backbone,
            backbone_featmap_shape=[1, 64, 24, 24],
            reassemble_factors=[1, 1, 1, 0.5],
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=64,
            backbone_out_indices=[0, 1, 2, 3],
            **(small | {"neck_hidden_sizes": [32, 32, 32, 32]}),
        )
    else:
        backbone = Swinv2Config(
            image_size=256,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 2],
            window_size=16,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        config = DPTConfig(backbone_config=backbone, **(small | {"neck_hidden_sizes": [8, 16, 32, 64]}))
    return midas.random(config)


def _save(net: Any, folder: Path, state: dict[str, Any] | None = None) -> None:
    net.save_pretrained(folder, **({"state_dict": state} if state else {}))


def _without(state: dict[str, Any], part: str) -> dict[str, Any]:
    """A state without the keys that contain `part`; there are some."""
    left = {key: value for key, value in state.items() if part not in key}
    assert len(left) < len(state)
    return left


def _load(midas: Any, root: Path, name: str) -> Any:
    return midas.network(name, EXPORTER.find(root, BRANCHES[name]))


@both
def test_hub_folder_is_read_whole(midas: Any, folder: Path) -> None:
    """The graph made from a hub's folder answers what the saved network answers, and its source is the file."""
    import torch  # noqa: PLC0415 (only where it is installed)
    from transformers import DPTForDepthEstimation  # noqa: PLC0415 (ditto)

    from export.families import tracing  # noqa: PLC0415 (ditto)

    name = next(folder.iterdir()).name
    weights, branch = EXPORTER.find(folder, BRANCHES[name]), BRANCHES[name]
    file = folder / name / "model.safetensors"
    assert (weights.kind, weights.source.name) == ("checkpoint", f"{name}/model.safetensors")
    assert weights.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    content, labels = midas.export(branch, weights)
    assert labels == ()
    pixels = tracing.scene(branch.size or 0, 7)
    (answer,) = tracing.run(content, branch.models[-1], [[pixels]])
    reference = DPTForDepthEstimation.from_pretrained(folder / name, local_files_only=True).eval()
    with torch.no_grad():
        expected = reference(torch.from_numpy(pixels)).predicted_depth.numpy()
    assert answer.shape == branch.outputs[0].shape
    assert tracing.relative_error(expected, answer) < 1e-3


@both
def test_the_same_weights_give_the_same_bytes(midas: Any, folder: Path) -> None:
    """Read and traced again, a network becomes the same file, so its digest says which network it is."""
    name = next(folder.iterdir()).name
    weights = EXPORTER.find(folder, BRANCHES[name])
    first, _ = midas.export(BRANCHES[name], weights)
    midas.folded.cache_clear()
    second, _ = midas.export(BRANCHES[name], weights)
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


@both
def test_unused_parameters_may_be_missing(midas: Any, folder: Path) -> None:
    """Intel's own files lack the first fusion layer's residual unit, which no picture passes through."""
    name = next(folder.iterdir()).name
    net = _small(midas, name)
    state = _without(net.state_dict(), "neck.fusion_stage.layers.0.residual_layer1.")
    _save(net, folder / name, state)
    assert _load(midas, folder, name) is not None


@both
@pytest.mark.parametrize(
    ("part", "message"),
    [
        pytest.param("head.head.2.weight", "lacks head.head.2.weight", id="head"),
        pytest.param("neck.fusion_stage.layers.1.residual_layer1.", r"lacks .*layers\.1", id="fusion"),
    ],
)
def test_missing_keys_are_named(midas: Any, folder: Path, part: str, message: str) -> None:
    """A file without some of the weights isn't filled up with random ones."""
    name = next(folder.iterdir()).name
    net = _small(midas, name)
    _save(net, folder / name, _without(net.state_dict(), part))
    with pytest.raises(ExportError, match=message):
        _load(midas, folder, name)


@pytest.mark.parametrize("folder", [TINY], indirect=True)
def test_extra_keys_are_named(midas: Any, folder: Path) -> None:
    """A file with weights that the network doesn't use is one of another network."""
    import torch  # noqa: PLC0415 (only where it is installed)
    from safetensors.torch import save_file  # noqa: PLC0415 (ditto)

    state = {**_small(midas, TINY).state_dict(), "neck.more.weight": torch.ones(3)}
    file = folder / TINY / "model.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file, {"format": "pt"})
    with pytest.raises(ExportError, match=r"has not, neck\.more\.weight"):
        _load(midas, folder, TINY)


@pytest.mark.parametrize("folder", [TINY], indirect=True)
def test_another_architecture_is_refused(midas: Any, folder: Path) -> None:
    """A Swin network in the folder of the hybrid isn't served at 384."""
    (folder / TINY).rename(folder / HYBRID)
    with pytest.raises(ExportError, match="another architecture than dpt-hybrid-midas"):
        _load(midas, folder, HYBRID)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("folder", [TINY], indirect=True)
def test_garbage_is_refused(midas: Any, folder: Path, file: str) -> None:
    """Files that transformers can't read are an error that names the folder."""
    (folder / TINY / file).write_bytes(b"no weights")
    with pytest.raises(ExportError, match=f"{TINY} is no DPT"):
        _load(midas, folder, TINY)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_what_was_looked_for_is_told(tmp_path: Path, file: str) -> None:
    """Half a folder is an error that names what must be in it."""
    (tmp_path / TINY).mkdir()
    (tmp_path / TINY / file).write_bytes(b"")
    with pytest.raises(
        ExportError, match=r"looked for config\.json and model\.safetensors or pytorch_model\.bin"
    ):
        EXPORTER.find(tmp_path, BRANCHES[TINY])


def test_old_weights_files_are_read_too(midas: Any, tmp_path: Path) -> None:
    """`pytorch_model.bin`, as the hub had it before safetensors."""
    import torch  # noqa: PLC0415 (only where it is installed)

    net = _small(midas, TINY)
    _save(net, tmp_path / TINY)
    (tmp_path / TINY / "model.safetensors").unlink()
    torch.save(net.state_dict(), tmp_path / TINY / "pytorch_model.bin")
    assert EXPORTER.find(tmp_path, BRANCHES[TINY]).source.name == f"{TINY}/pytorch_model.bin"
    loaded = _load(midas, tmp_path, TINY).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in net.state_dict().items())


def test_folding_changes_nothing(midas: Any) -> None:
    """With its weight standardisation computed beforehand the network answers the same, to rounding."""
    import torch  # noqa: PLC0415 (only where it is installed)

    from export.families import tracing  # noqa: PLC0415 (ditto)

    net = _small(midas, HYBRID)
    pixels = [[tracing.scene(384, 1)]]
    (expected,) = tracing.answers(midas.Depth(net, 384), pixels)
    with torch.no_grad():
        folded = [midas._fold(m) for m in net.modules() if type(m).__name__ == "WeightStandardizedConv2d"]
    assert len(folded) > 3
    (answer,) = tracing.answers(midas.Depth(net, 384), pixels)
    assert tracing.relative_error(expected, answer) < 1e-4


def test_random_network_depends_on_its_input(midas: Any) -> None:
    """The official tiny architecture with random weights: two pictures and noise get other depths."""
    from export.families import tracing  # noqa: PLC0415 (imports torch)

    branch = BRANCHES[TINY]
    content, _ = midas.export(branch, random_weights())
    noise = np.random.default_rng(1).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
    feeds = [[tracing.scene(256, 1)], [tracing.scene(256, 2)], [noise]]
    answers = tracing.run(content, branch.models[-1], feeds)
    for answer in answers:
        assert np.isfinite(answer).all()
        assert 0 <= answer.min() < answer.max() < 100
        assert answer.std() > 0.1
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(answers[first] - answers[second]).mean() > 0.1


def test_official_configurations_are_hybrid_and_swin(midas: Any) -> None:
    """The configurations in the code are those of the official files, down to what the defaults would leave open."""
    hybrid, tiny = midas.config(HYBRID), midas.config(TINY)
    assert (hybrid.is_hybrid, hybrid.image_size, hybrid.patch_size) == (True, 384, 16)
    assert (list(hybrid.neck_hidden_sizes), list(hybrid.reassemble_factors)) == (
        [256, 512, 768, 768],
        [1, 1, 1, 0.5],
    )
    assert (list(hybrid.backbone_config.depths), hybrid.backbone_config.layer_type) == (
        [3, 4, 9],
        "bottleneck",
    )
    assert (tiny.is_hybrid, tiny.backbone_config.model_type) == (False, "swinv2")
    assert (tiny.backbone_config.image_size, tiny.backbone_config.window_size) == (256, 16)
    assert list(tiny.backbone_config.depths) == [2, 2, 6, 2]
