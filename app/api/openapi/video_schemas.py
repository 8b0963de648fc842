"""The forms of the answers of `/v1/videos`, for OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.api.openapi.schemas import Schema

State = Literal["queued", "running", "done", "failed"]


class JobError(Schema):
    """The fault, the reason for waiting, or the reason why a result is only partial."""

    code: str = Field(examples=["triton_unavailable"])
    detail: str


class Links(Schema):
    self: str
    events: str
    artifacts: list[str]


class Video(Schema):
    """A video job."""

    id: str
    state: State
    partial: bool = Field(description="Done as far as the video could be read; `error` says why not further.")
    name: str
    owner: str | None = Field(description="Name of the API key that made it; null where none was needed.")
    profile: str
    bytes: int
    sha256: str
    created: str
    started: str | None
    finished: str | None
    frames: int = Field(description="Samples that are done.")
    expected: int | None = Field(
        description="About how many there will be; null where the container doesn't say."
    )
    fraction: float | None = Field(description="Of the video's time, 0 to 1.")
    attempts: int = Field(description="How often it was begun or gone on with.")
    error: JobError | None
    position: int | None = Field(description="How many wait before it; null once it runs.")
    manifest: dict[str, Any] | None = Field(
        description="manifest.json, once it is done. `video` holds the facts: width, height, rotation, duration_s, "
        "fps, frames, codec, container and pixel_aspect (width of a pixel by its height); `warnings` say what is odd "
        "about its times."
    )
    links: Links


class VideoRow(Schema):
    id: str
    state: State
    partial: bool
    name: str
    owner: str | None
    created: str


class Videos(Schema):
    videos: list[VideoRow]
