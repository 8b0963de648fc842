"""The only reader of the environment: `GATEWAY_<NAME>`, frozen, built once, passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# An empty variable says: none.
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value if value != "" else None)]


class Settings(BaseSettings):
    """Every setting of the service; a wrong value is refused at start by name."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True, extra="forbid")

    engine: Literal["embedded", "triton"] = Field(
        "embedded", description="What runs the models: ONNX Runtime in this process, or a Triton server."
    )
    triton_url: str = Field("127.0.0.1:8001", description="host:port of Triton's gRPC service.")
    triton_transport: Literal["auto", "shared_memory", "bytes"] = Field(
        "auto", description="How tensors reach Triton; auto tries shared memory, then sends bytes."
    )
    repository: OptionalPath = Field(
        Path("triton/models"),
        description="The Triton model repository, if its files can be seen from here (embedded: needed).",
    )
    manifest: OptionalPath = Field(
        Path("models/manifest.json"),
        description="Digests by model name, for a gateway that can't see the repository's files.",
    )
    models: str = Field(
        "*", description="Which branches the embedded engine loads: shell patterns, separated by commas."
    )
    variant: str | None = Field(
        None,
        description="Detection variant (n s m l x) when the caller names none; unset: the catalogue's (x).",
    )
    require_ready: str = Field(
        "",
        description="Branches that must be READY before /readyz is green: patterns, separated by commas; "
        "'checklist' stands for every required one of the READY checklist.",
    )
    leases: int = Field(4, ge=1, le=64, description="Tensor sets a branch: how many inferences run at once.")
    max_waiting: int = Field(64, ge=0, description="Requests that may wait for a lease of one branch.")
    embedded_threads: int = Field(0, ge=0, description="Threads of one embedded inference; 0: all cores.")
    worker_threads: int = Field(16, ge=1, le=256, description="Threads that decode, prepare and finish.")
    max_body_bytes: int = Field(64 << 20, ge=1024, description="Largest request body in bytes.")
    max_pixels: int = Field(64_000_000, ge=1, description="Largest picture in pixels, from its header.")
    max_parts: int = Field(64, ge=1, description="Most `file` parts of one request.")
    max_prompts: int = Field(1000, ge=1, description="Most prompts of one request.")
    text_cache_bytes: int = Field(
        64 << 20, ge=0, description="Memory for embeddings of prompts, in bytes; 0: none are remembered."
    )
    text_cache_folder: OptionalPath = Field(
        None, description="Also keep embeddings of prompts here, for the next process."
    )
    session_store: str = Field(
        "memory",
        description="Where tracking sessions live: memory, or redis://host:port/db, which several workers share.",
    )
    session_ttl_s: float = Field(300.0, gt=0, description="A session that is idle for so many seconds ends.")
    max_sessions: int = Field(
        10_000, ge=1, description="Most sessions in memory; the least recently used goes first."
    )
    video_max_bytes: int = Field(2 << 30, ge=1024, description="Largest video file in bytes.")
    video_max_duration_s: float = Field(
        6 * 3600.0, gt=0, description="Longest part of a video that is decoded, in seconds."
    )
    video_max_frames: int = Field(200_000, ge=1, description="Most sampled frames of one video.")
    video_stall_s: float = Field(
        20.0, gt=0, description="A decoder that answers nothing for so many seconds is killed."
    )
    video_timeout_s: float = Field(
        3600.0, gt=0, description="Time limit of a streamed video in seconds, in place of request_timeout_s."
    )
    video_window: int = Field(8, ge=2, le=64, description="Frames of one video in memory at once.")
    video_decoders: int = Field(4, ge=1, description="Videos that are decoded at once, one process each.")
    spool_folder: OptionalPath = Field(
        None, description="Where bodies of videos wait while they are read; unset: the system's."
    )
    videos_folder: OptionalPath = Field(
        Path("out/videos"), description="Where POST /v1/videos keeps its jobs and artefacts."
    )
    video_jobs: int = Field(1, ge=1, description="Jobs that run at once in one worker.")
    max_jobs_waiting: int = Field(1000, ge=1, description="Jobs that may wait; the next one is refused.")
    videos_keep_s: float = Field(7 * 86400.0, gt=0, description="Finished videos are kept so many seconds.")
    videos_keep_bytes: int = Field(
        20 << 30, ge=0, description="Room for finished videos; the oldest are removed first."
    )
    profiles_folder: OptionalPath = Field(
        Path("profiles"), description="Profiles that POST /v1/videos knows by name."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that serve; each loads its own engine.")
    request_timeout_s: float = Field(
        30.0, gt=0, description="Time limit of a request in seconds; X-Request-Timeout can only shorten it."
    )
    host: str = Field("127.0.0.1", description="Address that the service listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port that the service listens on; 0: a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")


def environment() -> Mapping[str, str]:
    """The environment, for what profiles of the operator's name in it."""
    return dict(os.environ)


def pass_on(settings: Settings) -> None:
    """Let the processes that this one starts have the same settings, whatever they came from."""
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        os.environ[f"GATEWAY_{name.upper()}"] = "" if value is None else str(value)
