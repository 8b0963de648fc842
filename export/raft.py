"""RAFT small to ONNX: two normalised pictures to the flow between them, after twelve updates."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import torch
from torchvision.models.optical_flow import raft_small

from export import tracing
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.weights import SEED, Weights
from routing.catalogue import Branch

OPSET = EXPORTERS["flow"].opset
UPDATES = 12  # torchvision's default, with which its weights are evaluated
# Torch against ONNX Runtime, of the largest value. Measured with random weights: at most 3e-5.
TOLERANCE = 1e-3


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch; it has no class names.

    The graph is shown to have the catalogue's contract and to compute what torch computes.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of RAFT small.
    """
    spec = branch.models[-1]
    module = Flow(network(weights), spec.inputs[0].shape[-1]).eval()
    feeds = [
        [tracing.scene(module.side, 1), tracing.scene(module.side, 1, shift=4)],
        [tracing.scene(module.side, 2), tracing.scene(module.side, 2, shift=-7)],
    ]
    expected = tracing.answers(module, feeds)
    content = tracing.trace(module, feeds[0], spec, OPSET)
    tracing.check_parity(spec.name, expected, tracing.run(content, spec, feeds), TOLERANCE)
    return content, ()


class Flow(torch.nn.Module):  # type: ignore[misc]  # torch isn't typed here
    """The network at one size: two `[1, 3, side, side]` in -1…1 to `[1, 2, side, side]` in pixels, x before y."""

    def __init__(self, net: Any, side: int) -> None:
        super().__init__()
        self.net, self.side = net, side

    def forward(self, first: Any, second: Any) -> Any:
        return self.net(first, second, num_flow_updates=UPDATES)[-1].reshape(1, 2, self.side, self.side)


@functools.lru_cache(maxsize=1)
def network(weights: Weights) -> Any:
    """RAFT small as torchvision has it, in evaluation mode.

    Raises:
        ExportError: the file holds no state of this network.
    """
    tracing.settle_threads()
    torch.manual_seed(SEED)
    net = raft_small(weights=None)
    if weights.path is not None:
        load(net, weights.path)
    return net.float().eval().requires_grad_(False)


def load(net: Any, path: Path) -> None:
    """Put a state in torchvision's layout into `net`, whole.

    Raises:
        ExportError: it can't be read, or keys are missing, left over or of other shapes.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ExportError(f"{path} is no checkpoint that torch can read: {error}") from error
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} isn't torchvision's raft_small: {error}") from error
