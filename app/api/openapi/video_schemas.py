"""The forms of the answers of `/v1/videos`, for OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.api.openapi.schemas import Schema

State = Literal["queued", "running", "done", "failed"]


class JobError(Schema):
    """The fault, the reason for waiting, or the reason for a partial result."""

    code: str = Field(examples=["triton_unavailable"])
    detail: str


class CallbackState(Schema):
    """The delivery of the job's end to `callback_url`."""

    url: str
    state: Literal["waiting", "delivered", "failed", "refused"] = Field(
        description="`waiting` until the receiver has answered 2xx; `failed` once there will be no further attempt; "
        "`refused`: the settings no longer allow its host."
    )
    attempts: int
    attempted: str | None = Field(description="Time of the last attempt.")
    status: int | None = Field(description="HTTP status of the last attempt; null if there was no answer.")
    error: str | None = Field(description="Why the last attempt failed.", examples=["no answer in time"])
    next_attempt: str | None = Field(description="Time of the next attempt; null before the job's end.")


class SourceState(Schema):
    """The place that the service fetches the video from, before the job runs."""

    url: str = Field(
        description="The URL of the request; its query, which may be a signature, is shown as `***`."
    )
    state: Literal["waiting", "fetching", "fetched", "failed"] = Field(
        description="`waiting` for its turn, or for the next attempt; `failed`: the job has failed, too."
    )
    bytes: int = Field(description="Bytes that are on the disk.")
    total: int | None = Field(description="Bytes of the video; null while the source doesn't say.")
    etag: str | None = Field(description="Version of the video, as the source names it.")
    attempts: int
    error: str | None = Field(description="Why the last attempt failed.", examples=["the connection broke"])


class Links(Schema):
    self: str
    events: str
    artifacts: list[str]


class Video(Schema):
    """A video job."""

    id: str
    state: State
    partial: bool = Field(description="The video could be read only in part; `error` gives the reason.")
    name: str
    owner: str | None = Field(description="Name of the API key that created it; null if no key was needed.")
    profile: str
    bytes: int = Field(
        description="Bytes of the video; of a video that is being fetched, those that the disk must hold."
    )
    sha256: str = Field(description="Empty until the video has been fetched.")
    created: str
    started: str | None
    finished: str | None
    frames: int = Field(description="Sampled frames that are done.")
    expected: int | None = Field(
        description="Approximate number of sampled frames; null if the container doesn't give it."
    )
    fraction: float | None = Field(description="Progress as a share of the video's time, 0 to 1.")
    attempts: int = Field(description="How often it was started or resumed.")
    error: JobError | None
    position: int | None = Field(description="Number of jobs ahead of it; null once it runs.")
    manifest: dict[str, Any] | None = Field(
        description="manifest.json, once it is done. `video` holds the facts: width, height, rotation, duration_s, "
        "fps, frames, codec, container and pixel_aspect (width of a pixel by its height); `warnings` describe "
        "irregular timestamps."
    )
    callback: CallbackState | None = Field(description="Null if the job has no `callback_url`.")
    source: SourceState | None = Field(description="Null if the video was sent with the request.")
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
    next: str | None = Field(description="Cursor of the next page, for `after`; null: this is the last one.")
