"""The families that can be exported, and the facts that decide the bytes: data, so that nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from export.artifacts import sha256
from export.errors import ExportError
from export.manifest import Provenance
from export.weights import Weights, checkpoint, hub_folder
from routing.catalogue import Branch


class Make(Protocol):
    """The function `export` of a family's module: the ONNX graph of a branch, checked, and its class names."""

    def __call__(self, branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]: ...


@dataclass(frozen=True, slots=True)
class Exporter:
    """Exporter of one family.

    `packages` are those whose versions go into weights.json, by the name they have there. `revision` is raised by
    hand when the module makes other graphs from the same weights, so that what is there is built again.
    `checkpoint` names a file, or with `hub` a folder in the hub's layout; `checkpoints` are those of branches and
    variants that have another one, and `pattern` finds a file that goes by another name. `labels` names a file of class
    names that may lie beside the weights. With `shared`, sizes of one architecture share one file of weights.
    """

    module: str
    checkpoint: str
    release: str
    opset: int
    revision: int
    packages: Mapping[str, str]
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None
    labels: str | None = None
    hub: bool = False
    shared: bool = False

    def checkpoint_name(self, branch: Branch) -> str:
        other = self.checkpoints.get(branch.name) or self.checkpoints.get(str(branch.variant))
        return (other or self.checkpoint).format(variant=branch.variant)

    def find(self, place: Path, branch: Branch) -> Weights:
        """The weights of a branch in a folder of somebody's, or in a file.

        Raises:
            ExportError: they aren't there.
        """
        name = self.checkpoint_name(branch)
        if self.hub:
            return hub_folder(place, name)
        return checkpoint(place, name, self.pattern and self.pattern.format(variant=branch.variant))

    def url(self, branch: Branch) -> str:
        """Address of the official weights: a file, or the common prefix of a hub's files."""
        base = f"{self.release}/{self.checkpoint_name(branch)}"
        return f"{base}/resolve/main" if self.hub else base

    def versions(self) -> dict[str, str | int]:
        """Return the `exporter` field of weights.json.

        Raises:
            ExportError: this Python hasn't the packages.
        """
        try:
            there: dict[str, str | int] = {name: version(package) for name, package in self.packages.items()}
        except PackageNotFoundError as error:
            raise ExportError(
                f"{self.module} needs the export environment (`make models`): {error}"
            ) from error
        return {**there, "opset": self.opset, "revision": self.revision}

    def provenance(self, weights: Weights) -> Provenance:
        labels = {} if self.labels is None else beside(weights, self.labels)
        return Provenance(weights.kind, weights.source, {**self.versions(), **labels})

    def make(self) -> Make:
        return cast(Make, import_module(self.module).export)


def beside(weights: Weights, name: str) -> dict[str, str]:
    """The file `name` beside the weights with its digest; nothing where it isn't there."""
    path = weights.path.with_name(name) if weights.path else None
    return {name: f"sha256:{sha256(path)}"} if path and path.is_file() else {}


_CLIP = Exporter(
    module="export.families.clip",
    checkpoint="clip-vit-base-patch32",
    release="https://huggingface.co/openai",
    opset=17,
    revision=1,
    packages={"torch": "torch", "transformers": "transformers", "onnx": "onnx"},
    hub=True,
    shared=True,
)

EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "detect": Exporter(
            module="export.yolo11",
            checkpoint="yolo11{variant}.pt",
            release="https://github.com/ultralytics/assets/releases/download/v8.3.0",
            opset=17,
            revision=2,
            packages={"onnx": "onnx"},
            shared=True,
        ),
        "depth": Exporter(
            module="export.families.midas",
            checkpoint="dpt-hybrid-midas",
            checkpoints={"midas_256": "dpt-swinv2-tiny-256"},
            release="https://huggingface.co/Intel",
            opset=17,
            revision=1,
            packages={"torch": "torch", "transformers": "transformers", "onnx": "onnx"},
            hub=True,
            shared=True,
        ),
        "flow": Exporter(
            module="export.families.raft",
            checkpoint="raft_small_C_T_V2-01064c6d.pth",
            checkpoints={"large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth"},  # torchvision's defaults, both
            release="https://download.pytorch.org/models",
            opset=17,
            revision=1,
            packages={"torch": "torch", "torchvision": "torchvision", "onnx": "onnx"},
            pattern="raft_{variant}*.pth",
            shared=True,
        ),
        "clip_image": _CLIP,
        "clip_text": replace(_CLIP, shared=False),  # it has one size
        "places": Exporter(
            module="export.families.places",
            checkpoint="resnet50_places365.pth.tar",
            labels="categories_places365.txt",
            release="http://places2.csail.mit.edu/models_places365",
            opset=17,
            revision=1,
            packages={"torch": "torch", "torchvision": "torchvision", "onnx": "onnx"},
            shared=True,
        ),
    }
)
