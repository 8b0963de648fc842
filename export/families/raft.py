"""RAFT, small and large, to ONNX: two normalised pictures to the flow between them, after twelve updates."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.optical_flow import raft_large, raft_small
from torchvision.ops.misc import Conv2dNormActivation

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.families import tracing
from export.weights import SEED, Weights
from routing.catalogue import Branch

OPSET = EXPORTERS["flow"].opset
# Torchvision's default, with which its recipe trains both networks. What it reports on Sintel and KITTI took 32 and 24,
# that is two to three times the time. Small and large take the same number, so that they compare.
UPDATES = 12
NETWORKS = {"small": raft_small, "large": raft_large}
# Torch against ONNX Runtime, of the largest value. Measured with random weights: at most 3e-5.
TOLERANCE = 1e-3


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch; it has no class names.

    The graph is shown to have the catalogue's contract and to compute what torch computes.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of the branch's variant.
    """
    spec = branch.models[-1]
    net = network(str(branch.variant), weights)
    module, traced = (Flow(each, spec.inputs[0].shape[-1]).eval() for each in (net, fused(net)))
    feeds = [
        [tracing.scene(module.side, 1), tracing.scene(module.side, 1, shift=4)],
        [tracing.scene(module.side, 2), tracing.scene(module.side, 2, shift=-7)],
    ]
    expected = tracing.answers(module, feeds)
    content = tracing.trace(traced, feeds[0], spec, OPSET)
    tracing.check_parity(spec.name, expected, tracing.run(content, spec, feeds), TOLERANCE)
    return content, ()


class Flow(torch.nn.Module):  # type: ignore[misc]  # torch isn't typed here
    """The network at one size: two `[1, 3, side, side]` in -1…1 to `[1, 2, side, side]` in pixels, x before y."""

    def __init__(self, net: Any, side: int) -> None:
        super().__init__()
        self.net, self.side = net, side

    def forward(self, first: Any, second: Any) -> Any:
        return self.net(first, second, num_flow_updates=UPDATES)[-1].reshape(1, 2, self.side, self.side)


@functools.lru_cache(maxsize=1)  # the sizes of a variant come one after the other
def network(variant: str, weights: Weights) -> Any:
    """RAFT `small` or `large` as torchvision has it, in evaluation mode.

    Raises:
        ExportError: the file holds no state of this network.
    """
    tracing.settle_threads()
    torch.manual_seed(SEED)
    net = NETWORKS[variant](weights=None)
    if weights.path is not None:
        load(net, variant, weights.path)
    return net.float().eval().requires_grad_(False)


def load(net: Any, variant: str, path: Path) -> None:
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
        raise ExportError(f"{path} isn't torchvision's raft_{variant}: {error}") from error


def fused(net: Any) -> Any:
    """A copy whose BatchNorm layers (large has some, small none) are folded into the convolutions before them.

    Folded here and not by the exporter, they are parameters, which the sizes share.
    """
    copied = copy.deepcopy(net)
    for block in (m for m in copied.modules() if isinstance(m, Conv2dNormActivation)):
        if len(block) > 1 and isinstance(block[1], torch.nn.BatchNorm2d):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), torch.nn.Identity()
    return copied
