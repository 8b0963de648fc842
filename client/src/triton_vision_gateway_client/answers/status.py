"""State of the service, its models and its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """One reason for which the service isn't ready."""

    name: str
    readiness: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """`ready`, and what fails; a service with keys tells that only to a key with the scope `operate`."""

    ready: bool
    failing: tuple[Failing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Versions of the service and of this client."""

    service: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A model's input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model in the repository."""

    name: str
    readiness: str
    version: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRow(ModelRow):
    """A model, with its place on the READY checklist."""

    required: bool
    checklist: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The models beside the READY checklist; `missing` are the required ones that aren't ready."""

    engine: str
    models: tuple[RepositoryRow, ...]
    checklist_ready: bool
    missing: tuple[str, ...]
    required: tuple[ModelRow, ...]
    optional: tuple[ModelRow, ...]
    others_ready: tuple[ModelRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchMemory:
    """Estimated memory of a branch alone, in bytes, on the kind of device that it is for."""

    device: str
    weights_bytes: int
    activations_bytes: int
    workspace_bytes: int
    total_bytes: int
    lease_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version of a branch. `branch` is the name that answers have for it, `rollout` its share of the requests."""

    version: str
    branch: str
    default: bool
    readiness: str
    weights_digest: str
    reason: str | None = None
    rollout: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRow:
    """A branch of the catalogue, with its readiness and weights."""

    name: str
    readiness: str
    weights: str
    weights_digest: str
    device: str
    required: bool
    own: bool
    tier: str | None = None
    size: int | None = None
    variant: str | None = None
    max_side: int | None = None
    model_size: int | None = None
    classes: int | None = None
    reason: str | None = None
    twin_of: str | None = None
    precision: str = "fp32"
    alternate_of: str | None = None
    version_of: str | None = None
    versions: tuple[VersionRow, ...] = ()
    weights_source: str | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    models: tuple[ModelRow, ...] = ()
    memory: BranchMemory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """A family. `route` is the choice for the size that was asked about: `branch`, `why`, or `error`."""

    name: str
    title: str
    component: str
    variants: tuple[str, ...]
    branches: tuple[BranchRow, ...]
    default_variant: str | None = None
    min_short_side: int | None = None
    route: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """The catalogue."""

    engine: str
    families: tuple[FamilyRow, ...]

    def family(self, name: str) -> FamilyRow:
        """Return a family.

        Raises:
            KeyError: there is none of this name.
        """
        for row in self.families:
            if row.name == name:
                return row
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """An object that a session follows. `state`: tracked, lost or new."""

    id: int
    box: tuple[float, float, float, float]
    score: float
    class_id: int
    state: str
    hits: int
    first_time_s: float
    last_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A tracking session. `state` is that of the tracker, in base64."""

    id: str
    created_at: str
    updated_at: str
    clock: str
    frames: int
    parameters: Mapping[str, Any]
    tracks: tuple[Track, ...]
    state: str
    owner: str | None = None
    last_timestamp: float | None = None
