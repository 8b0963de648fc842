"""The only reader of the environment: `GATEWAY_<NAME>`, frozen, built once, passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    repository: Path | None = Field(
        Path("triton/models"),
        description="The Triton model repository, if its files can be seen from here (embedded: needed).",
    )
    manifest: Path | None = Field(
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
    text_cache_folder: Path | None = Field(
        None, description="Also keep embeddings of prompts here, for the next process."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Time limit of a request in seconds; X-Request-Timeout can only shorten it."
    )
    host: str = Field("127.0.0.1", description="Address that the service listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port that the service listens on; 0: a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
