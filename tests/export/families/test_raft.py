"""Optical flow in torch and in ONNX: torchvision's layout read whole, and answers that depend on both pictures."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import sharing
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
EXPORTER = EXPORTERS["flow"]
BRANCHES = {"small": CATALOGUE.branches["raft_256"], "large": CATALOGUE.branches["raft_large_256"]}
OFFICIAL = {"small": "raft_small_C_T_V2-01064c6d.pth", "large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth"}

State = dict[str, Any]
both = pytest.mark.parametrize("variant", ["small", "large"])


@pytest.fixture(scope="module")
def raft() -> Any:
    """The exporter; skips where torch isn't installed."""
    pytest.importorskip("torch")
    from export.families import raft  # noqa: PLC0415 (imports torch)

    return raft


@pytest.fixture(scope="module")
def random_graph(raft: Any) -> Callable[[str], bytes]:
    """The graph of a branch with random weights, made once."""
    return functools.cache(lambda name: raft.export(CATALOGUE.branches[name], random_weights())[0])


def _net(variant: str, seed: int) -> Any:
    """RAFT with other random weights than the exporter's; its BatchNorm layers, if any, have seen something."""
    import torch  # noqa: PLC0415 (only where it is installed)
    from torchvision.models.optical_flow import raft_large, raft_small  # noqa: PLC0415 (ditto)

    torch.manual_seed(seed)
    net = {"small": raft_small, "large": raft_large}[variant](weights=None)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.running_mean, std=0.1)
        torch.nn.init.uniform_(norm.running_var, 0.8, 1.2)
    return net.eval()


def _save(state: Any, path: Path) -> None:
    import torch  # noqa: PLC0415 (only where it is installed)

    torch.save(state, path)


@both
def test_torchvision_state_is_read_whole(raft: Any, tmp_path: Path, variant: str) -> None:
    """The graph made from a file in torchvision's layout answers what the saved network answers."""
    import torch  # noqa: PLC0415 (only where it is installed)

    from export.families import tracing  # noqa: PLC0415 (ditto)

    net, branch, name = _net(variant, 5), BRANCHES[variant], OFFICIAL[variant]
    _save(net.state_dict(), tmp_path / name)
    weights = EXPORTER.find(tmp_path, branch)
    assert (weights.kind, weights.source.name) == ("checkpoint", name)
    assert weights.source.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    content, labels = raft.export(branch, weights)
    assert labels == ()
    feed = [tracing.scene(256, 7), tracing.scene(256, 7, shift=3)]
    (answer,) = tracing.run(content, branch.models[-1], [feed])
    with torch.no_grad():
        expected = net(*map(torch.from_numpy, feed))[-1].numpy()
    assert answer.shape == (1, 2, 256, 256)
    assert tracing.relative_error(expected, answer) < 1e-3


def test_official_names_are_torchvision_s_defaults(raft: Any) -> None:
    """The files that are downloaded are those that torchvision's DEFAULT weights name; both run twelve updates."""
    from inspect import signature  # noqa: PLC0415 (for this test alone)

    from torchvision.models import optical_flow as flows  # noqa: PLC0415 (only where it is installed)

    for variant, official in (("small", flows.Raft_Small_Weights), ("large", flows.Raft_Large_Weights)):
        assert EXPORTER.url(BRANCHES[variant]) == official.DEFAULT.url
    assert signature(flows.RAFT.forward).parameters["num_flow_updates"].default == raft.UPDATES


def _lacking(state: State) -> State:
    return {key: value for key, value in state.items() if key != "update_block.flow_head.conv2.bias"}


def _extra(state: State) -> State:
    return {**state, "mask_predictor.conv.bias": state["update_block.flow_head.conv2.bias"]}


def _reshaped(state: State) -> State:
    return {**state, "update_block.flow_head.conv2.bias": state["update_block.flow_head.conv1.bias"]}


def _wrapped(state: State) -> State:
    return {"state_dict": state}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(_lacking, r"Missing key.*update_block\.flow_head\.conv2\.bias", id="missing"),
        pytest.param(_extra, r"Unexpected key.*mask_predictor\.conv\.bias", id="extra"),
        pytest.param(_reshaped, "size mismatch", id="shape"),
        pytest.param(_wrapped, "isn't torchvision's raft_small", id="wrapped"),
        pytest.param(lambda _: [1, 2], "isn't torchvision's raft_small", id="no state"),
    ],
)
def test_other_states_are_refused(
    raft: Any, tmp_path: Path, change: Callable[[State], Any], message: str
) -> None:
    """Keys that are missing, left over or of another shape are named; nothing is filled up or dropped."""
    path = tmp_path / OFFICIAL["small"]
    _save(change(_net("small", 0).state_dict()), path)
    with pytest.raises(ExportError, match=f"(?s){path.name}.*{message}"):
        raft.load(_net("small", 0), "small", path)


@both
def test_the_other_variant_is_refused(raft: Any, tmp_path: Path, variant: str) -> None:
    """A state of small in a file of large, or the other way round, is an error that says which was wanted."""
    other = "large" if variant == "small" else "small"
    _save(_net(other, 0).state_dict(), tmp_path / OFFICIAL[variant])
    with pytest.raises(ExportError, match=f"{OFFICIAL[variant]} isn't torchvision's raft_{variant}"):
        raft.network(variant, EXPORTER.find(tmp_path, BRANCHES[variant]))


def test_garbage_is_refused(raft: Any, tmp_path: Path) -> None:
    """A file that is no checkpoint is an error that names it."""
    path = tmp_path / OFFICIAL["large"]
    path.write_bytes(b"no weights")
    with pytest.raises(ExportError, match=f"{path.name} is no checkpoint"):
        raft.network("large", EXPORTER.find(tmp_path, BRANCHES["large"]))


def test_code_in_a_checkpoint_is_not_run(raft: Any, tmp_path: Path) -> None:
    """A pickle that would call a function when loaded is refused, and the function isn't called."""
    path = tmp_path / OFFICIAL["small"]
    _save({"x": _Trap(tmp_path / "trapped")}, path)
    with pytest.raises(ExportError, match="is no checkpoint"):
        raft.load(_net("small", 0), "small", path)
    assert not (tmp_path / "trapped").exists()


class _Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.mkdir, (self.folder,)


@both
def test_random_network_depends_on_both_pictures(
    raft: Any, random_graph: Callable[[str], bytes], variant: str
) -> None:
    """Random weights answer finite flows that change with either picture."""
    from export.families import tracing  # noqa: PLC0415 (imports torch)

    branch = BRANCHES[variant]
    content = random_graph(branch.name)
    one, two = tracing.scene(256, 1), tracing.scene(256, 2)
    answers = tracing.run(content, branch.models[-1], [[one, two], [two, one], [one, one]])
    for answer in answers:
        assert np.isfinite(answer).all()
        assert answer.std() > 0.1
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(answers[first] - answers[second]).mean() > 0.1


@both
def test_the_same_seed_gives_the_same_bytes(
    raft: Any, random_graph: Callable[[str], bytes], variant: str
) -> None:
    """Random weights, made and traced again, become the same file."""
    first = random_graph(BRANCHES[variant].name)
    raft.network.cache_clear()
    again, _ = raft.export(BRANCHES[variant], random_weights())
    assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()


def test_variants_are_two_networks(raft: Any) -> None:
    """The same seed gives each variant weights of its own, whichever was asked for first."""
    small, large = (
        sum(p.numel() for p in raft.network(variant, random_weights()).parameters())
        for variant in ("small", "large")
    )
    assert (small, large) == (990162, 5257536)  # num_params of torchvision's weights


@both
def test_shared_weights_answer_the_same(
    random_graph: Callable[[str], bytes], tmp_path: Path, variant: str
) -> None:
    """With its parameters in a file of their own the graph answers bit for bit the same, and is small."""
    import onnxruntime  # noqa: PLC0415 (only where it is installed)

    from export.families import tracing  # noqa: PLC0415 (imports torch)

    spec = BRANCHES[variant].models[-1]
    content = random_graph(BRANCHES[variant].name)
    graph, name, data = sharing.split(content)
    assert name is not None
    sharing.store(tmp_path, name, data)
    (tmp_path / "model.onnx").write_bytes(graph)
    assert len(graph) < 0.1 * len(content)
    feed = [tracing.scene(256, 1), tracing.scene(256, 2)]
    (expected,) = tracing.run(content, spec, [feed])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options)
    (answer,) = session.run(None, dict(zip((t.name for t in spec.inputs), feed, strict=True)))
    assert np.array_equal(answer, expected)


def test_sizes_share_their_weights(random_graph: Callable[[str], bytes]) -> None:
    """The graphs of two sizes of large look for the same file, although BatchNorm is folded into its convolutions."""
    names = {sharing.split(random_graph(f"raft_large_{size}"))[1] for size in (256, 384)}
    assert len(names) == 1
    assert None not in names


@both
@pytest.mark.parametrize(
    ("names", "found"),
    [
        pytest.param(["{official}", "raft_{variant}_mine.pth"], "{official}", id="official first"),
        pytest.param(
            ["raft_{variant}_mine.pth", "raft_{other}_mine.pth", "yolo11n.pt"],
            "raft_{variant}_mine.pth",
            id="the only one",
        ),
    ],
)
def test_checkpoint_is_found(tmp_path: Path, variant: str, names: list[str], found: str) -> None:
    """The official name is taken, else the only file that is called raft_small- or raft_large-something."""
    words = {
        "official": OFFICIAL[variant],
        "variant": variant,
        "other": "large" if variant == "small" else "small",
    }
    for name in names:
        (tmp_path / name.format(**words)).write_bytes(b"weights")
    assert EXPORTER.find(tmp_path, BRANCHES[variant]).source.name == found.format(**words)


@both
@pytest.mark.parametrize("endings", [[], ["_a", "_b"]], ids=["none", "two"])
def test_no_checkpoint_or_several_are_told(tmp_path: Path, variant: str, endings: list[str]) -> None:
    """None that fits, or more than one, is an error; nothing is guessed, and the other variant doesn't stand in."""
    for name in [*(f"raft_{variant}{ending}" for ending in endings), "raft_s", "raft_l"]:
        (tmp_path / f"{name}.pth").write_bytes(b"weights")
    other = "large" if variant == "small" else "small"
    (tmp_path / f"raft_{other}.pth").write_bytes(b"weights")
    with pytest.raises(ExportError, match=f"raft_{variant}"):
        EXPORTER.find(tmp_path, BRANCHES[variant])
