"""MiDaS (DPT) to ONNX: normalised pictures to inverse depth, one fixed size a graph, checked against torch."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, cast

import torch
from transformers import BitConfig, DPTConfig, DPTForDepthEstimation, Swinv2Config
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.families import tracing
from export.weights import SEED, Weights
from routing.catalogue import Branch

OPSET = EXPORTERS["depth"].opset
TINY, HYBRID = "dpt-swinv2-tiny-256", "dpt-hybrid-midas"
# Torch against ONNX Runtime, of the largest value. Measured with random weights: at most 3e-5.
TOLERANCE = 5e-4
# Parameters that the network has and never uses; Intel's files are without them.
_UNUSED = "neck.fusion_stage.layers.0.residual_layer1."
# Random networks answer depths around 3 with a spread near 1: left alone, values of 0.01 that a ReLU may cut to 0.
_CENTRE, _SPREAD = 3.0, 1.0


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch; it has no class names.

    The graph is shown to have the catalogue's contract and to compute what torch computes.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of the branch.
    """
    spec = branch.models[-1]
    module = Depth(folded(EXPORTERS["depth"].checkpoint_name(branch), weights), spec.inputs[0].shape[-1])
    feeds = [[tracing.scene(module.side, seed)] for seed in (1, 2)]
    expected = tracing.answers(module, feeds)
    content = tracing.trace(module, feeds[0], spec, OPSET)
    tracing.check_parity(spec.name, expected, tracing.run(content, spec, feeds), TOLERANCE)
    return content, ()


class Depth(torch.nn.Module):  # type: ignore[misc]  # torch isn't typed here
    """The network at one size: `[1, 3, side, side]` normalised to `[1, side, side]`."""

    def __init__(self, net: Any, side: int) -> None:
        super().__init__()
        self.net, self.side = net, side
        if net.config.is_hybrid:
            net.dpt.embeddings.image_size = (side, side)

    def forward(self, pixels: Any) -> Any:
        depth = self.net(pixels).predicted_depth
        return depth.reshape(1, self.side, self.side)  # of literal ints, or the output's shape stays symbolic


@functools.lru_cache(maxsize=1)  # the sizes of an architecture come one after the other
def folded(name: str, weights: Weights) -> Any:
    """The network with its weight standardisation computed once and for all."""
    net = network(name, weights)
    for module in net.modules():
        if isinstance(module, WeightStandardizedConv2d):
            _fold(module)
    return net


def network(name: str, weights: Weights) -> Any:
    """The reference network, in evaluation mode.

    Args:
        name: `dpt-swinv2-tiny-256` or `dpt-hybrid-midas`.
        weights: a folder in the hub's layout, or random ones.

    Raises:
        ExportError: the folder holds no such network, or not all of it.
    """
    tracing.settle_threads()
    net = random(config(name)) if weights.path is None else load(name, weights.path)
    return net.float().eval().requires_grad_(False)


def config(name: str) -> Any:
    """Return the configuration in the official config.json."""
    if name == HYBRID:
        backbone = BitConfig(
            global_padding="same",
            layer_type="bottleneck",
            depths=[3, 4, 9],
            out_features=["stage1", "stage2", "stage3"],
            embedding_dynamic_padding=True,
        )
        return DPTConfig(
            is_hybrid=True,
            backbone_config=backbone,
            reassemble_factors=[1, 1, 1, 0.5],
            neck_hidden_sizes=[256, 512, 768, 768],
        )
    backbone = Swinv2Config(
        image_size=256,
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=16,
        pretrained_window_sizes=[0, 0, 0, 0],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return DPTConfig(backbone_config=backbone, neck_hidden_sizes=[96, 192, 384, 768])


def load(name: str, folder: Path) -> Any:
    """A network from a folder in the hub's layout; every weight that it uses is in the file, and no other.

    Raises:
        ExportError: that isn't so.
    """
    try:
        net, info = DPTForDepthEstimation.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",
        )
    except Exception as error:  # whatever reading it raises is told the same way
        raise ExportError(f"{folder} is no DPT that transformers can read: {error}") from error
    missing = [key for key in info["missing_keys"] if not key.startswith(_UNUSED)]
    for keys, fault in ((missing, "lacks"), (info["unexpected_keys"], "holds, and the network has not,")):
        if keys:
            some = ", ".join(sorted(keys)[:3])
            raise ExportError(f"{folder}: the weights file {fault} {some} ({len(keys)} in all)")
    if net.config.is_hybrid != (name == HYBRID):
        raise ExportError(f"{folder} holds another architecture than {name}")
    return net


def random(configuration: Any) -> Any:
    """A seeded network whose answer depends on every part of its input."""
    torch.manual_seed(SEED)
    configuration._attn_implementation = "eager"  # noqa: SLF001 (the library's own switch)
    net = DPTForDepthEstimation(configuration).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("cls_token", "position_embeddings")):  # zero as they are made
                parameter.normal_(std=0.02)
        _rescale(net)
    return net


def _rescale(net: Any) -> None:
    """Let the last convolution answer a picture around `_CENTRE` with about `_SPREAD`, in round numbers.

    Round, so that the last bits of a processor's sums don't decide the weights.
    """
    size = net.config.image_size if net.config.is_hybrid else net.config.backbone_config.image_size
    last, seen = net.head.head[-2 if isinstance(net.head.head[-1], torch.nn.ReLU) else -1], []
    hook = last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    net(torch.from_numpy(tracing.scene(size, SEED)))
    hook.remove()
    gain = 2.0 ** round(math.log2(_SPREAD / float(seen[0].std())))
    last.weight *= gain
    last.bias.copy_(torch.tensor([_CENTRE - round(gain * float((seen[0] - last.bias).mean()), 1)]))


def _fold(module: Any) -> None:
    weight = module.weight
    flat = weight.reshape(1, module.out_channels, -1)
    standardised = torch.nn.functional.batch_norm(
        flat, None, None, training=True, momentum=0.0, eps=module.eps
    )
    weight.copy_(standardised.reshape_as(weight))
    module.__class__ = _Folded


class _Folded(WeightStandardizedConv2d):  # type: ignore[misc]  # transformers isn't typed here
    """The same convolution with a weight that is standardised already."""

    def forward(self, hidden_state: Any) -> Any:
        padded = hidden_state if self.pad is None else self.pad(hidden_state)
        return cast(torch.nn.Conv2d, self)._conv_forward(padded, self.weight, self.bias)  # noqa: SLF001
