"""Which families can be exported, and what decides the bytes: data, so that nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Protocol, cast

from export.errors import ExportError
from export.manifest import Provenance
from export.weights import Weights
from routing.catalogue import Branch


class Make(Protocol):
    """The function `export` of a family's module: the ONNX graph of a branch, checked, and its class names."""

    def __call__(self, branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]: ...


@dataclass(frozen=True, slots=True)
class Exporter:
    """How one family is exported.

    `packages` are those whose versions go into weights.json, by the name they have there. `revision` is raised by
    hand when the module makes other graphs from the same weights, so that what is there is built again.
    """

    module: str
    checkpoint: str
    release: str
    opset: int
    revision: int
    packages: Mapping[str, str]

    def checkpoint_name(self, branch: Branch) -> str:
        return self.checkpoint.format(variant=branch.variant)

    def url(self, branch: Branch) -> str:
        return f"{self.release}/{self.checkpoint_name(branch)}"

    def versions(self) -> dict[str, str | int]:
        """What stands under `exporter` in weights.json.

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
        return Provenance(weights.kind, weights.source, self.versions())

    def make(self) -> Make:
        return cast(Make, import_module(self.module).export)


EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "detect": Exporter(
            module="export.yolo11",
            checkpoint="yolo11{variant}.pt",
            release="https://github.com/ultralytics/assets/releases/download/v8.3.0",
            opset=17,
            revision=1,
            packages={"torch": "torch", "ultralytics": "ultralytics-opencv-headless", "onnx": "onnx"},
        ),
    }
)
