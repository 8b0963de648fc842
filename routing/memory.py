"""Estimated memory of models: records that the exporter writes beside them, and sums over the models of branches.

Every number is an estimate. `docs/memory.md` says how they are made, and how they compare with measured ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from routing.catalogue import Branch, ModelSpec

Device = Literal["cuda", "cpu"]
_KEYS = ("weights", "activations", "arena", "workspace")


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Estimated bytes of one model with one instance.

    `weights`: its parameters. `activations`: the most that its buffers take at once. `arena`: what ONNX Runtime's arena
    takes for them, which never shrinks. `workspace`: scratch memory of the largest convolution. `shared`: the part of
    the weights in files that other models have too, by the name of the file. `unknown`: tensors of unknown size.
    """

    weights: int
    activations: int
    arena: int
    workspace: int
    shared: Mapping[str, int] = field(default_factory=dict, hash=False)
    unknown: int = 0

    def to_json(self) -> dict[str, Any]:
        numbers = {f"{key}_bytes": getattr(self, key) for key in _KEYS}
        return {**numbers, "shared_bytes": dict(self.shared), "unknown_tensors": self.unknown}


def from_json(value: object) -> ModelMemory | None:
    """Read a record; None where there is none, or it makes no sense."""
    if not isinstance(value, Mapping):
        return None
    numbers = [value.get(f"{key}_bytes") for key in _KEYS] + [value.get("unknown_tensors", 0)]
    shared = value.get("shared_bytes", {})
    counted = [*numbers, *shared.values()] if isinstance(shared, Mapping) else [None]
    if not all(type(number) is int and number >= 0 for number in counted):
        return None
    weights, activations, arena, workspace, unknown = (int(number or 0) for number in numbers)
    return ModelMemory(
        weights, activations, arena, workspace, {str(name): size for name, size in shared.items()}, unknown
    )


@dataclass(frozen=True, slots=True)
class Need:
    """Estimated bytes on the device, added up; `unknown`: names of models without an estimate."""

    weights: int = 0
    activations: int = 0
    workspace: int = 0
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.workspace


def need(
    models: Iterable[ModelSpec],
    known: Mapping[str, ModelMemory],
    device: Device = "cuda",
    instances: int = 1,
) -> Need:
    """Add up models, each once.

    A GPU has an arena and a copy of the weights per instance of a model. On a processor, the instances and the sizes of
    a network have their weights in common, and one arena serves all models, since few of them run at once.

    Args:
        models: of one or more branches; ensembles hold no memory of their own.
        known: estimates by name.
        device: of the models.
        instances: of each model on a GPU; on a processor, inferences that run at once.
    """
    specs = {spec.name: spec for spec in models if spec.kind != "ensemble"}
    there = {name: _limited(known[name], spec) for name, spec in specs.items() if name in known}
    unknown = tuple(name for name in specs if name not in known)
    if device == "cuda":
        return Need(
            instances * sum(one.weights for one in there.values()),
            instances * sum(one.arena for one in there.values()),
            instances * sum(one.workspace for one in there.values()),
            unknown,
        )
    files = {name: size for one in there.values() for name, size in one.shared.items()}
    private = sum(one.weights - sum(one.shared.values()) for one in there.values())
    arena = max((one.arena for one in there.values()), default=0)
    return Need(private + sum(files.values()), instances * arena, 0, unknown)


def _limited(memory: ModelMemory, spec: ModelSpec) -> ModelMemory:
    """The estimate within the limits that an accelerator's options set."""
    accelerator = spec.accelerator
    if accelerator is None:
        return memory
    workspace, arena = memory.workspace, memory.arena
    if accelerator.name == "tensorrt" and accelerator.workspace is not None:
        workspace = accelerator.workspace
    if accelerator.memory_limit is not None:
        arena = max(0, min(arena, accelerator.memory_limit - memory.weights))
        workspace = max(0, min(workspace, accelerator.memory_limit - memory.weights - arena))
    return replace(memory, arena=arena, workspace=workspace)


def lease_bytes(branch: Branch) -> int:
    """Host memory of one lease: its input and output tensors."""
    return sum(tensor.nbytes for tensor in (*branch.inputs, *branch.outputs))
