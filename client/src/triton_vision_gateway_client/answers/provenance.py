"""The makers of an answer: models, branch and reason, warnings, and the time of each stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from triton_vision_gateway_client.errors import GatewayError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedBy:
    """The library that brought frames to the branch's size."""

    library: str
    version: str
    filter: str
    scaled_decode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsed:
    """A model that took part. `weights`: pretrained, checkpoint, random or unknown."""

    model_name: str
    model_version: str
    weights_digest: str
    weights: str
    runtime: str
    engine: str
    precision: str
    device: str
    preprocess_digest: str | None = None
    prepare: ResizedBy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A preferred branch that didn't serve, and why."""

    branch: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """The branch that served; `why` is the reason for it."""

    name: str
    family: str
    why: str
    tier: str | None = None
    size: int | None = None
    variant: str | None = None
    passed_over: tuple[PassedOver, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Fields of every answer. `timings_ms`: milliseconds of each stage in the service.

    `model_signature` is the SHA-256 of the canonical `models_used`: answers with one signature came from the same
    models. `degraded`: another branch served than routing prefers.
    """

    models_used: tuple[ModelUsed, ...]
    model_signature: str
    resolved_model_mapping: Mapping[str, str]
    degraded: bool
    warnings: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAnswer(Answer):
    """Fields of every answer to one frame."""

    branch: Branch

    @property
    def reason(self) -> str:
        """The reason for this branch."""
        return self.branch.why


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSize:
    """Width and height in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Outcome(Generic[T]):
    """The answer to one of several frames, or its error."""

    value: T | None
    error: GatewayError | None = None

    @property
    def answer(self) -> T:
        """The answer.

        Raises:
            GatewayError: this frame's own error, if it has one.
        """
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch(Answer, Generic[T]):
    """Answers in the order of the pictures; iterate for an `Outcome` each. `errors` is the number that failed."""

    results: tuple[Outcome[T], ...]
    errors: int

    def __iter__(self) -> Iterator[Outcome[T]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> Outcome[T]:
        return self.results[index]

    def answers(self) -> list[T]:
        """Return all answers.

        Raises:
            GatewayError: the error of the first picture that has one.
        """
        return [outcome.answer for outcome in self.results]


def timings_of(headers: Mapping[str, str]) -> dict[str, float]:
    """Return the milliseconds of each stage in `Server-Timing`."""
    found: dict[str, float] = {}
    for entry in headers.get("server-timing", "").split(","):
        stage, *parameters = (word.strip() for word in entry.split(";"))
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            try:
                if name == "dur":
                    found[stage] = float(value)
            except ValueError:
                continue
    return found


def described(document: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a document with what the headers add: `timings_ms` and `request_id`."""
    return {**document, "timings_ms": timings_of(headers), "request_id": headers.get("x-request-id")}
