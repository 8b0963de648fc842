"""Optical flow in torch and in ONNX: torchvision's layout read whole, and answers that depend on both pictures."""

from __future__ import annotations

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
BRANCH = CATALOGUE.branches["raft_256"]
SPEC = BRANCH.models[-1]
EXPORTER = EXPORTERS["flow"]
OFFICIAL = "raft_small_C_T_V2-01064c6d.pth"

State = dict[str, Any]


@pytest.fixture(scope="module")
def raft() -> Any:
    """The exporter; skips where torch isn't installed."""
    pytest.importorskip("torch")
    from export import raft  # noqa: PLC0415 (imports torch)

    return raft


def _net(seed: int) -> Any:
    """RAFT small with other random weights than the exporter's."""
    import torch  # noqa: PLC0415 (only where it is installed)
    from torchvision.models.optical_flow import raft_small  # noqa: PLC0415 (ditto)

    torch.manual_seed(seed)
    return raft_small(weights=None).eval()


def _save(state: Any, path: Path) -> None:
    import torch  # noqa: PLC0415 (only where it is installed)

    torch.save(state, path)


def test_torchvision_state_is_read_whole(raft: Any, tmp_path: Path) -> None:
    """The graph made from a file in torchvision's layout answers what the saved network answers."""
    import torch  # noqa: PLC0415 (only where it is installed)

    from export import tracing  # noqa: PLC0415 (ditto)

    net = _net(5)
    _save(net.state_dict(), tmp_path / OFFICIAL)
    weights = EXPORTER.find(tmp_path, BRANCH)
    assert (weights.kind, weights.source.name) == ("checkpoint", OFFICIAL)
    assert weights.source.sha256 == hashlib.sha256((tmp_path / OFFICIAL).read_bytes()).hexdigest()
    content, labels = raft.export(BRANCH, weights)
    assert labels == ()
    feed = [tracing.scene(256, 7), tracing.scene(256, 7, shift=3)]
    (answer,) = tracing.run(content, SPEC, [feed])
    with torch.no_grad():
        expected = net(*map(torch.from_numpy, feed))[-1].numpy()
    assert answer.shape == (1, 2, 256, 256)
    assert tracing.relative_error(expected, answer) < 1e-3


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
    path = tmp_path / OFFICIAL
    _save(change(_net(0).state_dict()), path)
    with pytest.raises(ExportError, match=f"(?s){OFFICIAL}.*{message}"):
        raft.load(_net(0), path)


def test_garbage_is_refused(raft: Any, tmp_path: Path) -> None:
    """A file that is no checkpoint is an error that names it."""
    (tmp_path / OFFICIAL).write_bytes(b"no weights")
    with pytest.raises(ExportError, match=f"{OFFICIAL} is no checkpoint"):
        raft.load(_net(0), tmp_path / OFFICIAL)


def test_code_in_a_checkpoint_is_not_run(raft: Any, tmp_path: Path) -> None:
    """A pickle that would call a function when loaded is refused, and the function isn't called."""
    _save({"x": _Trap(tmp_path / "trapped")}, tmp_path / OFFICIAL)
    with pytest.raises(ExportError, match="is no checkpoint"):
        raft.load(_net(0), tmp_path / OFFICIAL)
    assert not (tmp_path / "trapped").exists()


class _Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.mkdir, (self.folder,)


def test_random_network_depends_on_both_pictures(raft: Any) -> None:
    """Random weights answer finite flows that change with either picture, and give the same bytes twice."""
    from export import tracing  # noqa: PLC0415 (imports torch)

    content, _ = raft.export(BRANCH, random_weights())
    raft.network.cache_clear()
    again, _ = raft.export(BRANCH, random_weights())
    assert hashlib.sha256(content).digest() == hashlib.sha256(again).digest()
    one, two = tracing.scene(256, 1), tracing.scene(256, 2)
    answers = tracing.run(content, SPEC, [[one, two], [two, one], [one, one]])
    for answer in answers:
        assert np.isfinite(answer).all()
        assert answer.std() > 0.1
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(answers[first] - answers[second]).mean() > 0.1


def test_shared_weights_answer_the_same(raft: Any, tmp_path: Path) -> None:
    """With its parameters in a file of their own the graph answers bit for bit the same, and is small."""
    import onnxruntime  # noqa: PLC0415 (only where it is installed)

    from export import tracing  # noqa: PLC0415 (imports torch)

    content, _ = raft.export(BRANCH, random_weights())
    graph, name, data = sharing.split(content)
    assert name is not None
    sharing.store(tmp_path, name, data)
    (tmp_path / "model.onnx").write_bytes(graph)
    assert len(graph) < 0.1 * len(content)
    feed = [tracing.scene(256, 1), tracing.scene(256, 2)]
    (expected,) = tracing.run(content, SPEC, [feed])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options)
    (answer,) = session.run(None, dict(zip((t.name for t in SPEC.inputs), feed, strict=True)))
    assert np.array_equal(answer, expected)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        pytest.param([OFFICIAL, "raft_small_mine.pth"], OFFICIAL, id="official first"),
        pytest.param(["raft_small_mine.pth", "yolo11n.pt"], "raft_small_mine.pth", id="the only one"),
    ],
)
def test_checkpoint_is_found(tmp_path: Path, names: list[str], found: str) -> None:
    """The official name is taken, else the only file that is called raft_small-something."""
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    assert EXPORTER.find(tmp_path, BRANCH).source.name == found


@pytest.mark.parametrize("names", [[], ["raft_large.pth"], ["raft_small_a.pth", "raft_small_b.pth"]], ids=str)
def test_no_checkpoint_or_several_are_told(tmp_path: Path, names: list[str]) -> None:
    """None that fits, or more than one, is an error; nothing is guessed."""
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(ExportError, match="raft_small"):
        EXPORTER.find(tmp_path, BRANCH)
