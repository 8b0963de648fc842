"""The forms of the answers, for OpenAPI. Answers are written by orjson from the same fields; a test compares them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openapi.examples import PROBLEM

Readiness = Literal[
    "ready",
    "loading",
    "unavailable",
    "contract_mismatch",
    "weights_missing",
    "out_of_memory",
    "missing",
    "unreachable",
    "several_servers",
]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(BaseModel):
    """One parameter that doesn't fit."""

    where: str = Field(examples=["query.conf"])
    what: str


class Problem(BaseModel):
    """RFC 9457, with a code, the request's id and what to do."""

    model_config = ConfigDict(json_schema_extra={"example": PROBLEM})

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(examples=["invalid_image"])
    what_to_do: str
    request_id: str
    stage: str | None = Field(None, description="deadline_exceeded: the stage in which the time ran out.")
    errors: list[Fault] | None = Field(None, description="validation_failed: each fault.")


class PassedOver(Schema):
    """A branch that the routing preferred but that didn't serve, and why. With `fallback`, it may also be a branch that
    failed on this frame.
    """

    branch: str
    reason: str = Field(examples=["out of memory"])


class BranchChosen(Schema):
    """The branch that served, and the reason for it."""

    name: str = Field(examples=["yolo11x_640"])
    family: str
    tier: Literal["small", "medium", "large"] | None
    size: int | None
    variant: str | None
    why: str = Field(examples=["rule: max(810, 1080) > 640, large not ready"])
    passed_over: list[PassedOver]
    endpoint: str | None = Field(
        None,
        description="Host and port of the Triton that answered; absent where the gateway has only one.",
        examples=["10.0.0.7:8001"],
    )


class ResizedBy(Schema):
    """The library that brought frames to the branch's size. Other libraries, versions and filters give other pixels."""

    library: str = Field(examples=["cykooz-resizer", "pillow", "opencv"])
    version: str = Field(examples=["4.0.1"])
    filter: str = Field(examples=["bicubic, antialiased"])
    scaled_decode: str | None = Field(
        None,
        description="The library that decodes large JPEGs at a fraction of their size (GATEWAY_SCALED_JPEG); absent if "
        "pictures are decoded at their full size.",
    )


class ModelUsed(Schema):
    """The model that produced the numbers."""

    model_name: str
    model_version: str
    weights_digest: str = Field(examples=["sha256:…", "unknown"])
    weights: Literal["pretrained", "checkpoint", "random", "unknown"]
    runtime: Literal["triton", "inprocess"]
    engine: str
    precision: str
    device: str = Field(examples=["cuda:0", "cpu"])
    preprocess_digest: str | None = None
    prepare: ResizedBy | None = Field(
        None,
        description="The library that resized the model's input; absent for a model that takes no frames.",
    )


class Provenance(Schema):
    resolved_model_mapping: dict[str, str] = Field(examples=[{"core_object_detections": "yolo11x_640"}])
    models_used: list[ModelUsed]
    model_signature: str = Field(description="SHA-256 of the canonical models_used.")
    degraded: bool


class ImageSize(Schema):
    width: int
    height: int


class FrameAnswer(Provenance):
    """Fields of every answer to one frame."""

    branch: BranchChosen
    warnings: list[str]


class FrameError(Schema):
    error: Problem


class Batch(Provenance):
    """Answers in the order of the parts."""

    errors: int = Field(description="Number of results that are errors.")


class Track(Schema):
    id: int
    box: tuple[float, float, float, float] = Field(description="The tracker's estimate, in source pixels.")
    score: float
    class_id: int
    state: Literal["tracked", "lost", "new"] = Field(
        description="tracked: seen in the last frame; lost: not seen since; new: seen once."
    )
    hits: int
    first_time_s: float
    last_time_s: float


class Session(Schema):
    """A tracking session; times are UTC."""

    id: str
    owner: str | None = Field(
        description="Name of the API key that owns the session; null if no key was needed."
    )
    created_at: str
    updated_at: str
    clock: Literal["timestamp", "service"] = Field(
        description="timestamp: its frames have timestamps; service: the service's clock."
    )
    frames: int
    last_timestamp: float | None
    parameters: dict[str, Any] = Field(description="Parameters that can't change during the session.")
    tracks: list[Track]
    state: str = Field(description="The tracker's state, base64.")


class ModelRow(Schema):
    name: str
    readiness: Readiness
    reason: str | None
    version: str


class EndpointRow(Schema):
    """One of several Tritons."""

    endpoint: str = Field(description="Host and port.", examples=["10.0.0.7:8001"])
    connected: bool
    transport: Literal["shared_memory", "bytes"] | None = Field(description="null: not known yet.")
    in_flight: int = Field(description="Leases that are out or awaited there.")
    moved_runs: int = Field(description="Runs that it didn't answer and that were made again at another one.")


class ModelAtEndpoint(Schema):
    """A model as one of several Tritons has it."""

    endpoint: str
    readiness: Readiness
    reason: str | None
    version: str
    weights: str
    weights_digest: str
    device: str


class AtEndpoints(Schema):
    """A model on each of several Tritons; both fields are absent where the gateway has only one."""

    endpoints: list[ModelAtEndpoint] | None = None
    weights_differ: bool | None = Field(
        None, description="The Tritons that have it READY have different versions or weights of it."
    )


class RepositoryRow(ModelRow, AtEndpoints):
    required: bool = Field(description="/readyz waits for it (GATEWAY_REQUIRE_READY).")
    checklist: Literal["required", "optional"] | None = Field(
        description="Its place on the READY checklist; null if it is not listed."
    )


class Repository(Schema):
    """The models and the READY checklist: required, optional and missing required models."""

    engine: str
    models: list[RepositoryRow] = Field(description="Models that are on the checklist, required, or READY.")
    checklist_ready: bool
    missing: list[str]
    required: list[ModelRow]
    optional: list[ModelRow]
    others_ready: list[ModelRow]
    endpoints: list[EndpointRow] | None = Field(
        None, description="The Tritons; absent where the gateway has only one."
    )


class Tensor(Schema):
    name: str
    datatype: Literal["UINT8", "INT64", "FP32"]
    shape: list[int]


class BranchMemory(Schema):
    device: Literal["cuda", "cpu"] = Field(description="The kind of device that the estimate is for.")
    weights_bytes: int
    activations_bytes: int = Field(description="ONNX Runtime's arena for tensors between the nodes.")
    workspace_bytes: int = Field(description="Scratch memory of convolutions on a GPU.")
    total_bytes: int = Field(description="Their sum, for one instance.")
    lease_bytes: int = Field(description="Host memory of the input and output tensors of one lease.")


class VersionRow(Schema):
    version: str = Field(
        description="Its number, as in `version` of a request and `model_version` of an answer."
    )
    branch: str = Field(description="The name that answers have for it.")
    default: bool = Field(description="It serves requests that ask for no version and are in no rollout.")
    readiness: Readiness
    reason: str | None
    weights_digest: str
    rollout: str | None = Field(description="Its share of the requests; null: none.")


class BranchRow(AtEndpoints):
    name: str
    tier: str | None
    size: int | None
    variant: str | None
    max_side: int | None = Field(description="Largest analysis size that it serves; null: no limit.")
    model_size: int | None = Field(description="Side of the model's input, if it differs from `size`.")
    required: bool = Field(description="/readyz waits for it (GATEWAY_REQUIRE_READY).")
    checklist: Literal["required", "optional"] = Field(description="Its place on the READY checklist.")
    when_ready: bool = Field(description="The routing rule uses it only while it is ready.")
    classes: int | None = Field(description="Number of classes; null if the model has none.")
    own: bool = Field(
        description="Defined in your own catalogue (GATEWAY_CATALOGUE), not in the built-in one."
    )
    twin_of: str | None = Field(
        description="The branch that this twin replaces: it runs the same weights on UINT8 pixels. "
        "null if it is not a twin."
    )
    precision: Literal["fp32", "fp16"] = Field(description="Precision of its weights in the catalogue.")
    alternate_of: str | None = Field(
        description="The branch that routing prefers to this one, which has the same weights in another precision. "
        "null if it is not an alternate."
    )
    version_of: str | None = Field(
        description="The branch that this is a further version of; null if it is the default version."
    )
    versions: list[VersionRow] = Field(description="All versions of the branch, the default one first.")
    readiness: Readiness
    reason: str | None
    weights: str
    weights_digest: str
    weights_source: str | None
    device: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    models: list[ModelRow]
    memory: BranchMemory | None = Field(
        None, description="Estimated memory of the branch alone (docs/memory.md); null: unknown."
    )


class FamilyRow(Schema):
    name: str
    title: str
    component: str
    variants: list[str]
    default_variant: str | None
    min_short_side: int | None
    prepare: dict[str, Any] | None
    branches: list[BranchRow]
    route: dict[str, Any] | None = None


class Branches(Schema):
    engine: str
    families: list[FamilyRow]
    endpoints: list[EndpointRow] | None = Field(
        None, description="The Tritons; absent where the gateway has only one."
    )


class Alive(Schema):
    status: Literal["ok"]


class Failing(Schema):
    name: str
    readiness: Readiness
    reason: str


class Ready(Schema):
    status: Literal["ok", "not ready"]
    failing: list[Failing]
