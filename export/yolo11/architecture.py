"""YOLO11 from its table, with random weights that are settled: its answers depend on its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from export.errors import ExportError
from export.yolo11.network import Convolution, Network, Norm
from export.yolo11.numpy_ops import Numpy, convolve
from export.yolo11.pictures import clouds
from export.yolo11.records import Array, Record

CLASSES, BINS = 80, 16
EPSILON = 1e-3
# Variant -> what multiplies repeats and channels, and the most channels before that.
SCALES = {
    "n": (0.50, 0.25, 1024),
    "s": (0.50, 0.50, 1024),
    "m": (0.50, 1.00, 512),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.50, 512),
}
# Where a layer's input comes from, its kind, and its channels with what else describes it. A C3k2 has the share of its
# channels that its blocks have, and says if those are C3k; from m on all are.
LAYERS: tuple[tuple[int | tuple[int, ...], str, tuple[Any, ...]], ...] = (
    (-1, "Conv", (64,)), (-1, "Conv", (128,)), (-1, "C3k2", (256, 0.25, False)),
    (-1, "Conv", (256,)), (-1, "C3k2", (512, 0.25, False)),
    (-1, "Conv", (512,)), (-1, "C3k2", (512, 0.5, True)),
    (-1, "Conv", (1024,)), (-1, "C3k2", (1024, 0.5, True)), (-1, "SPPF", (1024,)), (-1, "C2PSA", (1024,)),
    (-1, "Upsample", ()), ((-1, 6), "Concat", ()), (-1, "C3k2", (512, 0.5, False)),
    (-1, "Upsample", ()), ((-1, 4), "Concat", ()), (-1, "C3k2", (256, 0.5, False)),
    (-1, "Conv", (256,)), ((-1, 13), "Concat", ()), (-1, "C3k2", (512, 0.5, False)),
    (-1, "Conv", (512,)), ((-1, 10), "Concat", ()), (-1, "C3k2", (1024, 0.5, True)),
    ((16, 19, 22), "Detect", ()),
)  # fmt: skip
_REPEATS = 2  # of every C3k2 and C2PSA in the table
# The gain of BatchNorm in random networks. With gains near 1 such a network is chaotic: rounding grows from layer to
# layer until two runtimes disagree by hundreds of pixels. At 0.1 they agree as on trained ones, at 0.05 nothing gets
# through.
DAMPED = 0.1
_BOX_CENTRE, _CLASS_CENTRE = 0.0, -9.0
_SETTLE_SIDE, _SETTLE_BATCH = 160, 2


def random(variant: str, seed: int) -> Record:
    """A settled random network. The same seed gives the same bytes, whatever the number of threads.

    The statistics of its normalisations are those of noise that went through it, computed in double precision and
    rounded, so that the order of sums doesn't show. The last layers are scaled to a spread of one around a low centre:
    few scores pass 0.25.
    """
    generator = np.random.default_rng(seed)
    model = network(variant, generator)
    settling = _Settling()
    Network(settling).run(model, clouds(generator, _SETTLE_BATCH, _SETTLE_SIDE).astype(np.float64))
    return model


def network(variant: str, generator: np.random.Generator) -> Record:
    """The modules of a variant with random convolutions and normalisations that do nothing.

    Raises:
        ExportError: there is no such variant.
    """
    if variant not in SCALES:
        raise ExportError(f"there is no yolo11{variant}")
    layers, channels = [], [3]
    make = _Maker(generator, *SCALES[variant], c3k=variant in "mlx")
    for index, (source, kind, arguments) in enumerate(LAYERS):
        sources = [channels[-1] if i == -1 else channels[i + 1] for i in _sequence(source)]
        layer, out = make.layer(kind, sources, arguments)
        layer.state.update(f=list(source) if isinstance(source, tuple) else source, i=index, type=kind)
        layers.append(layer)
        channels.append(out)
    model = sequential(layers)
    return Record("DetectionModel", {"_modules": {"model": model}, "yaml": {"scale": variant, "nc": CLASSES}})


def sequential(modules: Sequence[Record], kind: str = "Sequential") -> Record:
    return Record(kind, {"_modules": {str(i): module for i, module in enumerate(modules)}})


@dataclass(frozen=True, slots=True)
class _Maker:
    generator: np.random.Generator
    depth: float
    width: float
    most: int
    c3k: bool

    def layer(self, kind: str, sources: Sequence[int], arguments: tuple[Any, ...]) -> tuple[Record, int]:
        """One layer of the table, and its number of channels."""
        if not arguments:
            return self.joint(kind, sources)
        channels, out = sources[0], round(min(arguments[0], self.most) * self.width / 8) * 8
        repeats = max(round(_REPEATS * self.depth), 1)
        makers: dict[str, Callable[[], Record]] = {
            "Conv": lambda: self.conv(channels, out, 3, 2),
            "SPPF": lambda: self.sppf(channels, out),
            "C2PSA": lambda: self.c2psa(out, repeats),
            "C3k2": lambda: self.c3k2(
                channels, out, repeats, share=arguments[1], c3k=arguments[2] or self.c3k
            ),
        }
        return makers[kind](), out

    def joint(self, kind: str, sources: Sequence[int]) -> tuple[Record, int]:
        """A layer whose channels follow from its sources, and their number."""
        if kind == "Upsample":
            return Record(kind, {"scale_factor": 2.0, "mode": "nearest"}), sources[0]
        if kind == "Concat":
            return Record(kind, {"d": 1}), sum(sources)
        return self.detect(sources), 0

    def conv(
        self, inputs: int, out: int, kernel: int, stride: int = 1, groups: int = 1, *, act: bool = True
    ) -> Record:
        parts = {
            "conv": self.conv2d(inputs, out, kernel, stride, groups),
            "bn": norm(out),
            "act": Record("SiLU" if act else "Identity"),
        }
        return Record("Conv", {"_modules": parts})

    def conv2d(
        self, inputs: int, out: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
    ) -> Record:
        fan_in = inputs // groups * kernel**2
        shape = (out, inputs // groups, kernel, kernel)
        weight = (2 * self.generator.random(shape, np.float32) - 1) / np.float32(fan_in**0.5)
        state = {"stride": stride, "padding": kernel // 2, "dilation": 1, "groups": groups}
        return Record(
            "Conv2d",
            {"_parameters": {"weight": weight, "bias": np.zeros(out, np.float32) if bias else None}, **state},
        )

    def parts(self, kind: str, **parts: Record) -> Record:
        return Record(kind, {"_modules": parts})

    def bottleneck(self, channels: int, hidden: int) -> Record:
        block = self.parts(
            "Bottleneck", cv1=self.conv(channels, hidden, 3), cv2=self.conv(hidden, channels, 3)
        )
        block.state["add"] = True
        return block

    def c3k2(self, inputs: int, out: int, repeats: int, *, share: float, c3k: bool) -> Record:
        hidden = int(out * share)
        make = self.c3k_block if c3k else lambda channels: self.bottleneck(channels, channels // 2)
        return self.parts(
            "C3k2",
            cv1=self.conv(inputs, 2 * hidden, 1),
            cv2=self.conv((2 + repeats) * hidden, out, 1),
            m=sequential([make(hidden) for _ in range(repeats)], "ModuleList"),
        )

    def c3k_block(self, channels: int) -> Record:
        hidden = channels // 2
        return self.parts(
            "C3k",
            cv1=self.conv(channels, hidden, 1),
            cv2=self.conv(channels, hidden, 1),
            cv3=self.conv(2 * hidden, channels, 1),
            m=sequential([self.bottleneck(hidden, hidden) for _ in range(2)]),
        )

    def sppf(self, inputs: int, out: int) -> Record:
        hidden = inputs // 2
        return self.parts(
            "SPPF",
            cv1=self.conv(inputs, hidden, 1),
            cv2=self.conv(4 * hidden, out, 1),
            m=Record("MaxPool2d", {"kernel_size": 5, "stride": 1, "padding": 2}),
        )

    def c2psa(self, channels: int, repeats: int) -> Record:
        hidden = channels // 2
        return self.parts(
            "C2PSA",
            cv1=self.conv(channels, 2 * hidden, 1),
            cv2=self.conv(2 * hidden, channels, 1),
            m=sequential([self.psa_block(hidden) for _ in range(repeats)]),
        )

    def psa_block(self, channels: int) -> Record:
        heads = max(channels // 64, 1)
        head = channels // heads
        key = head // 2
        attention = self.parts(
            "Attention",
            qkv=self.conv(channels, channels + 2 * key * heads, 1, act=False),
            proj=self.conv(channels, channels, 1, act=False),
            pe=self.conv(channels, channels, 3, groups=channels, act=False),
        )
        attention.state.update(num_heads=heads, head_dim=head, key_dim=key, scale=key**-0.5)
        ffn = sequential(
            [self.conv(channels, 2 * channels, 1), self.conv(2 * channels, channels, 1, act=False)]
        )
        block = self.parts("PSABlock", attn=attention, ffn=ffn)
        block.state["add"] = True
        return block

    def detect(self, levels: Sequence[int]) -> Record:
        boxes, scores = max(16, levels[0] // 4, 4 * BINS), max(levels[0], min(CLASSES, 100))
        head = self.parts(
            "Detect",
            cv2=sequential([self.box_branch(inputs, boxes) for inputs in levels], "ModuleList"),
            cv3=sequential([self.score_branch(inputs, scores) for inputs in levels], "ModuleList"),
            dfl=self.parts("DFL", conv=self.conv2d(BINS, 1, 1)),
        )
        bins = np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1)
        head.child("dfl").child("conv").state["_parameters"]["weight"] = bins
        head.state.update(nc=CLASSES, reg_max=BINS, stride=np.array([8, 16, 32], np.float32))
        return head

    def box_branch(self, inputs: int, hidden: int) -> Record:
        convs = [self.conv(inputs, hidden, 3), self.conv(hidden, hidden, 3)]
        return sequential([*convs, self.conv2d(hidden, 4 * BINS, 1, bias=True)])

    def score_branch(self, inputs: int, hidden: int) -> Record:
        pairs = [
            sequential([self.conv(c, c, 3, groups=c), self.conv(c, hidden, 1)]) for c in (inputs, hidden)
        ]
        return sequential([*pairs, self.conv2d(hidden, CLASSES, 1, bias=True)])


def norm(channels: int) -> Record:
    """A batch normalisation that has seen nothing yet, damped."""
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return Record(
        "BatchNorm2d",
        {
            "_parameters": {"weight": one * np.float32(DAMPED), "bias": zero},
            "_buffers": {"running_mean": zero, "running_var": one},
            "eps": EPSILON,
        },
    )


class _Settling(Numpy):
    """Gives every normalisation the statistics of what comes through it, and every last layer its spread."""

    def convolve(self, x: Array, convolution: Convolution, norm: Norm | None) -> Array:
        y = convolve(x, convolution)
        if norm is not None:
            mean, variance = _statistics(y)
            norm.record.state["_buffers"].update(running_mean=mean, running_var=variance)
            return self.normalise(y, replace(norm, mean=mean, variance=variance))
        if convolution.bias is not None:
            self._scale(y, convolution)
        return y

    @staticmethod
    def _scale(y: Array, convolution: Convolution) -> None:
        """Scale weight and bias in place: logits get a spread of one around a centre."""
        mean, variance = _statistics(y)
        spread = np.sqrt(variance).mean(dtype=np.float32)
        centre = _BOX_CENTRE if len(y[0]) == 4 * BINS else _CLASS_CENTRE
        assert convolution.bias is not None  # noqa: S101 (the caller has looked)
        convolution.weight[:] /= spread
        convolution.bias[:] = np.float32(centre) - mean / spread


def _statistics(y: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel. A mean that is nothing but rounding is rounded away."""
    return y.mean((0, 2, 3)).round(9).astype(np.float32), y.var((0, 2, 3)).astype(np.float32)


def _sequence(source: int | tuple[int, ...]) -> tuple[int, ...]:
    return source if isinstance(source, tuple) else (source,)
