"""The pipeline of the family `toy`: how bright a frame is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.pipelines.base import Framed, Served
from app.pipelines.dense import Analysis, DensePipeline
from routing.policy import Wishes


@dataclass(frozen=True, slots=True)
class ToyParameters:
    """Query parameters of the family."""

    scale: float = field(
        default=1.0, metadata={"ge": 0, "le": 10, "description": "Factor of the brightness."}
    )


class ToyAnswer(TypedDict):
    """The JSON answer."""

    brightness: float


@dataclass(frozen=True, slots=True)
class Brightness:
    """`values` `[1]` float32 from the model."""

    values: NDArray[np.float32]
    scale: float
    served: Served

    def body(self) -> dict[str, Any]:
        return {"brightness": float(self.values[0]) * self.scale}


@dataclass(frozen=True, slots=True)
class ToyPipeline(DensePipeline):
    """Mean brightness of a frame."""

    family: ClassVar[str] = "toy"
    title: ClassVar[str] = "Brightness of a frame"
    Parameters: ClassVar[type[Any]] = ToyParameters
    Answer: ClassVar[type[Any]] = ToyAnswer
    EXAMPLE: ClassVar[Mapping[str, Any]] = MappingProxyType({"brightness": 0.5})

    def __call__(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        parameters: ToyParameters,
        analysis: Analysis = (None, None),
    ) -> Brightness:
        values, _, served = self.run_picture(data, wishes, deadline, analysis)
        self.observe(served)
        return Brightness(values, parameters.scale, served)

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, parameters: ToyParameters) -> Brightness:
        values, served = self.run_frames([rgb], framed)
        self.observe(served)
        return Brightness(values, parameters.scale, served)
