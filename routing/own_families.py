"""THE table of families to which users can add models of their own, a row per family.

`gateway models add` and the exporter read it. It is here because installations without the exporter have `--help`, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class OwnFamily:
    """One family of `gateway models add`.

    `planner` names the function that makes the `Plan` of a `Request`, as `module:function`. `weights` describes the
    files that it takes, for `--help`. `sample` is a command that asks for the new variant: `{picture}`, `{host}`,
    `{port}` and `{name}` stand in it. Without `pytorch` the planner runs in the service's environment, and takes ONNX
    files. With `classes` the answers name classes, which `--labels` may give.
    """

    name: str
    planner: str
    weights: str
    sample: str
    pytorch: bool = True
    classes: bool = False


_FRAME = "curl --data-binary @{picture} 'http://{host}:{port}"
OWN_FAMILIES: Mapping[str, OwnFamily] = MappingProxyType(
    {
        row.name: row
        for row in (
            OwnFamily(
                "detect",
                "export.own.detect:plan",
                "an Ultralytics checkpoint of YOLO11 (.pt) with any classes, built without PyTorch; or an ONNX file "
                "of a detector as Ultralytics exports it (also YOLOv8); dynamic axes become fixed, NMS in the graph "
                "is refused",
                f"{_FRAME}/v1/detect?variant={{name}}'",
                pytorch=False,
                classes=True,
            ),
            OwnFamily(
                "depth",
                "export.own.dense:depth",
                "a folder with config.json and model.safetensors of a DPT",
                f"{_FRAME}/v1/depth?variant={{name}}'",
            ),
            OwnFamily(
                "flow",
                "export.own.dense:flow",
                "a torchvision checkpoint of RAFT, small or large (.pth)",
                "curl -F frame0=@{picture} -F frame1=@{picture} 'http://{host}:{port}/v1/flow?variant={name}'",
            ),
            OwnFamily(
                "clip",
                "export.own.dense:clip",
                "a folder with config.json and model.safetensors of a CLIP of any width: adds images and text",
                "curl -F file=@{picture} -F 'prompt=an astronaut' "
                "'http://{host}:{port}/v1/clip/similarity?variant={name}'",
            ),
            OwnFamily(
                "places",
                "export.own.dense:places",
                "a checkpoint of a ResNet50 with any scenes, as MIT's training script writes it (--labels)",
                f"{_FRAME}/v1/places?variant={{name}}'",
                classes=True,
            ),
        )
    }
)
