"""The only reader of the environment: `GATEWAY_<NAME>`, frozen, built once, passed down."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.addresses import (
    TritonAddress,
    hosts,
    job_store_url,
    networks,
    origins,
    proxies,
    rate_limit_url,
    session_store_url,
    sources,
    tritons,
)
from app.keys import access, signing

PREFIX = "GATEWAY_"
_KEY = "GATEWAY_KEY"  # a caller's own, for the commands that ask a gateway
# What begins like a setting and is none: where the tests find trained weights, too.
_OTHERS = frozenset({"GATEWAY_REFERENCE_DATA", _KEY})
# What Kubernetes puts into every container of a namespace that has a Service called `gateway`.
_SERVICE_LINK = re.compile(
    r"GATEWAY_(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
# The headings of docs/settings.md, by the first setting below each.
HEADINGS: Mapping[str, str] = {
    "engine": "Engine and models",
    "warmup": "Start-up and changes of the repository",
    "leases": "Capacity",
    "request_timeout_s": "Limits of a request",
    "text_cache_bytes": "Prompts",
    "session_store": "Tracking sessions",
    "video_max_bytes": "Videos",
    "videos_folder": "Video jobs",
    "webhook_hosts": "Webhooks",
    "host": "Server",
    "log_level": "Logs and traces",
    "api_keys": "Access",
}


def _addresses(text: str) -> str:
    tritons(text)
    return text


def _collector(url: str | None) -> str | None:
    if url is not None and not re.fullmatch(r"https?://[^\s/]+/\S*", url):
        raise ValueError("must be the full URL of a collector, such as http://collector:4318/v1/traces")
    return url


def _entries(text: SecretStr | None) -> SecretStr | None:
    if text is not None:
        access.parse(text.get_secret_value())
    return text


def _hosts(text: str) -> str:
    hosts(text)
    return text.strip()


def _networks(text: str) -> str:
    networks(text)
    return text.strip()


def _sources(text: str) -> str:
    sources(text)
    return text.strip()


def _secrets(text: SecretStr | None) -> SecretStr | None:
    if text is not None:
        signing.secrets(text.get_secret_value())
    return text


# An empty variable means none.
_EMPTY_IS_NONE = BeforeValidator(lambda value: value if value != "" else None)
OptionalPath = Annotated[Path | None, _EMPTY_IS_NONE]
OptionalText = Annotated[str | None, _EMPTY_IS_NONE]
OptionalSecret = Annotated[SecretStr | None, _EMPTY_IS_NONE]
OptionalPort = Annotated[Annotated[int, Field(ge=1, le=65535)] | None, _EMPTY_IS_NONE]


class Settings(BaseSettings):
    """Every setting of the service; a wrong value is refused at start by name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    engine: Literal["embedded", "triton"] = Field(
        "embedded",
        description="Engine that runs the models: ONNX Runtime in this process, or a Triton server.",
    )
    triton_url: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1:8001",
        description="Triton's gRPC address: host:port or grpc://host:port, with TLS grpcs://host:port. For "
        "Triton's HTTP address, http://host:port, gRPC is expected on the next port (Triton's defaults "
        "are 8000 and 8001). Several Tritons, one per GPU or host, stand with commas between them; a name that "
        "resolves to several addresses stands for all of them. See docs/replicas.md.",
    )
    triton_grpc_port: OptionalPort = Field(
        None,
        description="Triton's gRPC port, if triton_url is an http:// address and gRPC is not on the next port.",
    )
    triton_repositories: str = Field(
        "",
        description="Model repositories of the Tritons in triton_url, in the same order with commas between them, if "
        "they aren't all GATEWAY_REPOSITORY; an empty place is a repository that the gateway can't see, whose digests "
        "are `unknown`.",
    )
    triton_transport: Literal["auto", "shared_memory", "bytes"] = Field(
        "auto", description="How tensors reach Triton; auto tries shared memory and falls back to bytes."
    )
    detect_input: Literal["auto", "fp32", "uint8"] = Field(
        "auto",
        description="How frames travel to the detector: as prepared FP32 tensors, or as UINT8 pixels (a quarter of "
        "the bytes) to an ensemble that prepares them. The boxes are the same. auto uses UINT8 if "
        "tensors are sent as bytes and the ensemble is READY.",
    )
    resizer: Literal["auto", "fast", "pillow"] = Field(
        "auto",
        description="Library that resizes frames to a branch's size, in all families but detection (its letterbox "
        "always uses OpenCV). fast is cykooz-resizer, which takes about a fifth of Pillow's time; in a few pixels the "
        "two differ by one of 255 levels. auto is fast if it is installed (Linux on x86-64, macOS on Apple silicon), "
        "else Pillow. Answers name the library in models_used, as prepare, so machines with different resizers give "
        "different signatures.",
    )
    scaled_jpeg: bool = Field(
        False,
        description="Decode a JPEG at 1/2, 1/4 or 1/8 of its size if its sides remain as long as the branch needs "
        "(all families but detection). Faster for large pictures, and the pixels differ, see "
        "docs/benchmarks/resize.md. Answers say so in models_used, as prepare.scaled_decode.",
    )
    triton_silence_s: float = Field(
        1.0,
        ge=0.1,
        le=300,
        description="Longest time in seconds that Triton may take to answer a poll. After two polls without an answer "
        "it counts as hung: requests are refused until it answers. Use a longer time for a Triton that is far away "
        "or has hundreds of models.",
    )
    triton_tls_ca: OptionalPath = Field(
        None,
        description="CA certificates that verify Triton's certificate (PEM, with grpcs://); unset: the system's "
        "CAs.",
    )
    triton_tls_cert: OptionalPath = Field(
        None, description="The gateway's client certificate (PEM), if Triton asks for one."
    )
    triton_tls_key: OptionalPath = Field(None, description="Key of that client certificate (PEM).")
    repository: OptionalPath = Field(
        Path("triton/models"),
        description="Folder of the Triton model repository, if this process can read it (the embedded engine needs "
        "it).",
    )
    manifest: OptionalPath = Field(
        Path("models/manifest.json"),
        description="File with digests by model name, for a gateway that can't read the repository's files.",
    )
    rollout: str = Field(
        "",
        description="Share of requests that a further version of a branch serves: branch=version:percent%, separated "
        "by commas, such as yolo11n_640=2:10%. 0% keeps the version for requests with `version`. A gateway that "
        "can't read the repository knows the versions that are named here (docs/replicas.md).",
    )
    models: str = Field(
        "auto",
        description="Branches that the embedded engine loads: shell patterns, separated by commas; * loads all. "
        "auto loads the branches that serve requests without a branch or variant (the default variant "
        "of each family, see GATEWAY_VARIANT and GATEWAY_DETECT_INPUT), and those of "
        "GATEWAY_REQUIRE_READY.",
    )
    catalogue: OptionalPath = Field(
        Path("catalogue"),
        description="Your own catalogue, which extends the built-in one: a TOML file or a folder of TOML files, "
        "see docs/own-models.md. The default folder may be missing.",
    )
    variant: OptionalText = Field(
        None,
        description="Variant that serves requests that name none (for detection n s m l x, or one of your own). "
        "Separate variants of different families by commas. Unset: the catalogue's default (x).",
    )
    precision: Literal["fp32", "fp16"] = Field(
        "fp32",
        description="Precision of the branches that routing chooses, where a branch has both. Callers may name either. "
        "`make models PRECISION=fp16` builds FP16 branches, see docs/models.md; branches without one serve in FP32.",
    )
    require_ready: str = Field(
        "",
        description="Branches that must be READY before /readyz answers 200: patterns, separated by commas. "
        "'checklist' stands for all required branches of the READY checklist.",
    )
    warmup: bool = Field(
        True,
        description="Run every branch once before it serves. No caller then waits for a slow first run, and a "
        "branch that can't run is detected. On a processor, the embedded engine doesn't repeat a first run that "
        "has succeeded before (docs/start.md).",
    )
    warmup_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Time limit of a branch's first run in seconds. A branch that exceeds it is not served, and "
        "its state gives the reason.",
    )
    rescan_s: float = Field(
        5.0,
        ge=0,
        description="Seconds between the embedded engine's checks for new, changed and removed files in the "
        "repository; 0 disables them. (Triton is polled twice per second.)",
    )
    reload_longest_s: float = Field(
        60.0,
        ge=1,
        description="Longest delay in seconds before a branch that ran out of memory is reloaded. The delay starts "
        "at about 1 second and doubles. Use a longer one on a GPU that is too small for the branch, "
        "because loading takes memory from the others.",
    )
    leases: int = Field(
        4,
        ge=1,
        le=64,
        description="Tensor sets per branch and worker, which limit how many inferences run at once. More of them "
        "use a GPU better and take more memory.",
    )
    max_waiting: int = Field(
        64,
        ge=0,
        description="Most requests that may wait for a lease of one branch. Further requests are refused at once "
        "(429).",
    )
    max_waiting_bytes: int = Field(
        512 << 20, ge=1024, description="Memory in bytes for the bodies of requests that wait for one family."
    )
    embedded_threads: int = Field(
        0, ge=0, description="Threads per inference of the embedded engine; 0: all cores."
    )
    graph_cache: str = Field(
        "auto",
        description="Folder in which the embedded engine caches optimised graphs for the next start and for other "
        "workers (docs/start.md). auto: triton-vision-gateway/graphs in the user's cache folder; "
        "empty: no cache.",
    )
    graph_cache_bytes: int = Field(
        4 << 30,
        ge=0,
        description="Size limit of that folder in bytes; the least recently used entries are removed.",
    )
    worker_threads: int = Field(
        16, ge=1, le=256, description="Threads that decode, prepare and postprocess frames."
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that serve; each loads its own engine. With more than one, sessions need Redis.",
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Time limit of a request in seconds; X-Request-Timeout can only shorten it."
    )
    idle_timeout_s: float = Field(
        15.0,
        gt=0,
        description="Idle timeout of a connection in seconds. The connection is closed if the client sends no "
        "request, does not finish a request head, or reads less than 1 KiB of its answer per second "
        "for this long.",
    )
    max_body_bytes: int = Field(64 << 20, ge=1024, description="Largest request body in bytes.")
    max_json_bytes: int = Field(
        1 << 20,
        ge=1024,
        description="Largest JSON body without pictures, and largest sum of prompt parts, in bytes.",
    )
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        description="Largest picture in pixels. The limit is checked against the header, because a small file can "
        "unpack into gigabytes.",
    )
    max_decoded_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Memory in bytes, per worker, for decoding and answering large pictures. Further large "
        "pictures wait. Pictures that need less than 1/64 of it are not counted.",
    )
    max_parts: int = Field(64, ge=1, description="Most `file` parts in one request.")
    max_prompts: int = Field(1000, ge=1, description="Most prompts in one request or profile.")
    text_cache_bytes: int = Field(
        64 << 20, ge=0, description="Memory in bytes for cached prompt embeddings; 0 disables the cache."
    )
    text_cache_folder: OptionalPath = Field(
        None,
        description="Folder that also stores prompt embeddings, so that other workers and later processes can use "
        "them. Unset: each worker has only its own cache.",
    )
    session_store: Annotated[str, AfterValidator(session_store_url)] = Field(
        "memory",
        description="Store of tracking sessions: memory, or redis://host:port/db, which several workers can share.",
    )
    session_ttl_s: float = Field(300.0, gt=0, description="Idle time in seconds after which a session ends.")
    session_lease_s: float = Field(
        5.0,
        ge=1,
        le=600,
        description="With Redis: seconds without a sign of life after which later frames of a session no longer wait "
        "for those of a gateway. See docs/replicas.md.",
    )
    max_sessions: int = Field(
        10_000, ge=1, description="Most sessions in memory; the least recently used one is removed first."
    )
    video_max_bytes: int = Field(2 << 30, ge=1024, description="Largest video file in bytes.")
    video_max_duration_s: float = Field(
        6 * 3600.0, gt=0, description="Longest part of a video that is decoded, in seconds."
    )
    video_max_frames: int = Field(200_000, ge=1, description="Most sampled frames per video.")
    video_stall_s: float = Field(
        20.0, gt=0, description="Seconds without a response after which a decoder process is killed."
    )
    video_frame_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Time limit in seconds for a frame of a video job. A job that exceeds it is retried later.",
    )
    video_timeout_s: float = Field(
        3600.0, gt=0, description="Time limit of a streamed video in seconds; it replaces request_timeout_s."
    )
    video_window: int = Field(8, ge=2, le=64, description="Frames per video that are in memory at once.")
    video_decoders: int = Field(
        4, ge=1, description="Videos that are decoded at once, each in its own process."
    )
    spool_folder: OptionalPath = Field(
        None,
        description="Folder for uploaded videos while they are read; unset: the system's temporary folder.",
    )
    videos_folder: OptionalPath = Field(
        Path("out/videos"),
        description="Folder in which POST /v1/videos keeps jobs and artefacts; empty disables jobs.",
    )
    job_store: Annotated[str, AfterValidator(job_store_url)] = Field(
        "sqlite",
        description="Index of video jobs: sqlite, a file in GATEWAY_VIDEOS_FOLDER for the gateways of one host, or "
        "postgresql://user:password@host:port/database, which gateways on several hosts can share.",
    )
    job_artifacts: OptionalText = Field(
        None,
        description="Where the videos and artefacts of jobs lie: a folder or s3://bucket/prefix; gateways on several "
        "hosts need one that all of them reach. Unset: GATEWAY_VIDEOS_FOLDER, which then holds what is temporary, too.",
    )
    job_lease_s: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="With PostgreSQL: seconds without a sign of life after which others run a gateway's jobs.",
    )
    videos_folder_on_network: bool = Field(
        False,
        description="Accept a videos_folder on a network file system. Its locks must work, and one host alone may "
        "write to it. See docs/replicas.md.",
    )
    video_jobs: int = Field(1, ge=1, description="Jobs that run at once in one worker.")
    max_jobs_waiting: int = Field(
        1000, ge=1, description="Most jobs that may wait; further jobs are refused."
    )
    videos_waiting_bytes: int = Field(
        20 << 30,
        ge=1024,
        description="Disk space in bytes for waiting and running videos and for uploads in progress. Beyond it, "
        "POST /v1/videos answers 429.",
    )
    videos_keep_s: float = Field(7 * 86400.0, gt=0, description="Seconds for which finished videos are kept.")
    videos_keep_bytes: int = Field(
        20 << 30, ge=0, description="Disk space in bytes for finished videos; the oldest are removed first."
    )
    profiles_folder: OptionalPath = Field(
        Path("profiles"), description="Folder of the profiles that POST /v1/videos accepts by name."
    )
    video_sources: Annotated[str, AfterValidator(_sources)] = Field(
        "",
        description="Places that `source` of POST /v1/videos may name, separated by commas: hosts (names, "
        "*.example.com for all names below a domain, addresses, or * for all) for http:// and https:// URLs, "
        "s3://bucket and s3://bucket/prefix for objects; empty: none. See docs/sources.md.",
    )
    webhook_hosts: Annotated[str, AfterValidator(_hosts)] = Field(
        "",
        description="Hosts that `callback_url` of POST /v1/videos may name, separated by commas: names, *.example.com "
        "for all names below a domain, addresses, or * for all; empty: none. See docs/webhooks.md.",
    )
    webhook_secret: Annotated[OptionalSecret, AfterValidator(_secrets)] = Field(
        None,
        description="Secret that signs webhooks: whsec_ and 24 to 64 bytes in Base64. With several, separated by "
        "spaces, every message has a signature for each.",
    )
    webhook_timeout_s: float = Field(
        10.0,
        gt=0,
        le=60,
        description="Time limit in seconds of one delivery, from the connection to the head of the answer.",
    )
    webhook_retry_s: float = Field(
        5.0,
        gt=0,
        description="Pause in seconds after the first failed delivery. Each further pause is four times as long, 6 "
        "hours at most.",
    )
    webhook_give_up_s: float = Field(
        86400.0, ge=0, description="Seconds after the end of a job within which its webhook is retried."
    )
    allowed_networks: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="Private, loopback, link-local and other special addresses and networks that the gateway may call "
        "at a caller's request, separated by commas; empty: only addresses on the Internet.",
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that the service listens on; 0.0.0.0 listens on all interfaces.",
    )
    port: int = Field(
        8080, ge=0, le=65535, description="Port that the service listens on; 0 picks a free one."
    )
    operate_port: OptionalPort = Field(
        None,
        description="Separate port for /livez, /readyz and /metrics, without TLS. The main port then no longer "
        "serves them.",
    )
    operate_host: OptionalText = Field(
        None, description="Address that this port listens on; unset: the same as GATEWAY_HOST."
    )
    tls_cert: OptionalPath = Field(
        None,
        description="The service's certificate with its intermediate certificates (PEM); enables HTTPS.",
    )
    tls_key: OptionalPath = Field(None, description="The certificate's key (PEM), without a password.")
    tls_client_ca: OptionalPath = Field(
        None,
        description="CA certificates (PEM). If set, clients need a certificate that one of these CAs signed.",
    )
    trusted_proxies: Annotated[str, AfterValidator(proxies)] = Field(
        "",
        description="Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted: addresses and networks, "
        "separated by commas; *: all; empty: none.",
    )
    drain_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM for which `/readyz` is red and requests are still accepted, so that "
        "balancers notice. With 0, the drain lasts until a client that polls `/readyz` every second "
        "has seen it red four times, and 3 s at most. If no client polls that often, the service stops "
        "accepting connections at once.",
    )
    shutdown_timeout_s: int = Field(
        8,
        ge=1,
        description="Seconds that running requests have to finish after SIGTERM and the drain. By default Docker "
        "kills a container after 10 s, and Kubernetes after 30 s.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Lowest level that is logged. Failed requests are logged at info and warning, all others at "
        "debug.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Log format: console lines for people, or one JSON object per line."
    )
    tracing_endpoint: Annotated[OptionalText, AfterValidator(_collector)] = Field(
        None,
        description="URL of the OTLP/HTTP collector that receives OpenTelemetry spans, such as "
        "http://collector:4318/v1/traces. Needs the extra `tracing`; unset disables tracing.",
    )
    tracing_service_name: str = Field(
        "triton-vision-gateway", min_length=1, description="The service's name in the traces."
    )
    tracing_sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced, unless the caller decides it in `traceparent`. Tracing a "
        "request costs about a millisecond of CPU time, so use less than 1 under load.",
    )
    api_keys: Annotated[OptionalSecret, AfterValidator(_entries)] = Field(
        None,
        description="API key entries as `gateway keys new` prints them, separated by ;. If this setting and the "
        "file below are unset, no key is needed. See docs/access.md.",
    )
    api_keys_file: OptionalPath = Field(
        None, description="File with further entries, one per line; a change is read within a second."
    )
    rate_limit_store: Annotated[str, AfterValidator(rate_limit_url)] = Field(
        "auto",
        description="Where the rate limits of keys are counted: local (each gateway for itself, with all its workers), "
        "or redis://host:port/db, which several gateways can share. auto: in the Redis of GATEWAY_SESSION_STORE if "
        "that is one, else local. See docs/replicas.md.",
    )
    cors_origins: Annotated[str, AfterValidator(origins)] = Field(
        "",
        description="Origins whose pages may call the service from a browser, such as https://app.example, "
        "separated by commas; *: all; empty: none.",
    )

    @property
    def triton(self) -> TritonAddress:
        """Address of Triton's gRPC service; of several, the first."""
        return self.tritons[0]

    @property
    def tritons(self) -> tuple[TritonAddress, ...]:
        """Addresses of all Tritons' gRPC services, at least one."""
        return tritons(self.triton_url, self.triton_grpc_port)

    @property
    def repositories(self) -> tuple[Path | None, ...]:
        """The model repository of each of `tritons`; None: it can't be seen from here."""
        if not self.triton_repositories:
            return (self.repository,) * len(self.tritons)
        return tuple(
            Path(part.strip()) if part.strip() else None for part in self.triton_repositories.split(",")
        )

    @property
    def rate_limit_redis(self) -> str | None:
        """URL of the Redis in which the rate limits are counted; None: each gateway counts for itself."""
        store = self.session_store if self.rate_limit_store == "auto" else self.rate_limit_store
        return None if store in ("memory", "local") else store

    @property
    def own_catalogue(self) -> Path | None:
        """Path of the user's own catalogue; None if it doesn't exist and no setting names it."""
        if self.catalogue is None or "catalogue" in self.model_fields_set or self.catalogue.exists():
            return self.catalogue
        return None

    @model_validator(mode="after")
    def _together(self) -> Self:
        """Check combinations of settings that are valid one by one."""
        if self.engine == "embedded" and self.repository is None:
            raise ValueError(
                "GATEWAY_REPOSITORY: the embedded engine needs it; set it, or set GATEWAY_ENGINE=triton"
            )
        if self.triton_grpc_port is not None and not all(
            part.strip().startswith("http://") for part in self.triton_url.split(",")
        ):
            raise ValueError(
                "GATEWAY_TRITON_GRPC_PORT: needs a GATEWAY_TRITON_URL that begins with http://; "
                "in other addresses, give the port in GATEWAY_TRITON_URL itself"
            )
        if self.webhook_hosts and self.webhook_secret is None:
            raise ValueError(
                "GATEWAY_WEBHOOK_SECRET: GATEWAY_WEBHOOK_HOSTS needs it, because webhooks are signed"
            )
        _tls_together(self)
        if len(self.repositories) != len(self.tritons):
            raise ValueError(
                f"GATEWAY_TRITON_REPOSITORIES: has {len(self.repositories)} folders, and GATEWAY_TRITON_URL "
                f"{len(self.tritons)} addresses"
            )
        if self.operate_port is not None and self.operate_port == self.port:
            raise ValueError("GATEWAY_OPERATE_PORT: must be another port than GATEWAY_PORT")
        return self


def _tls_together(settings: Settings) -> None:
    for prefix in ("tls", "triton_tls"):
        cert, key = (getattr(settings, f"{prefix}_{name}") for name in ("cert", "key"))
        if (cert is None) != (key is None):
            raise ValueError(f"{variable(f'{prefix}_cert')}: goes with {variable(f'{prefix}_key')}")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise ValueError("GATEWAY_TLS_CLIENT_CA: goes with GATEWAY_TLS_CERT")
    if (settings.triton_tls_ca or settings.triton_tls_cert) and not settings.triton.tls:
        raise ValueError(
            "GATEWAY_TRITON_TLS_CA, _CERT, _KEY: go with a GATEWAY_TRITON_URL that begins with grpcs://"
        )


def environment() -> Mapping[str, str]:
    """Return the environment, for variables that the operator's profiles name."""
    return dict(os.environ)


def caller_key() -> str:
    """Return the API key that commands send to a gateway; empty: none."""
    return os.environ.get(_KEY, "").strip()


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name; read when it is imported


def metrics_folder() -> Path | None:
    """Return the folder in which workers write their metrics, each to its own files; None for a single process."""
    folder = os.environ.get(_METRICS_FOLDER)
    return Path(folder) if folder else None


def share_metrics(folder: Path) -> None:
    """Let child processes write their metrics to this folder."""
    os.environ[_METRICS_FOLDER] = str(folder)


def graph_cache(settings: Settings) -> tuple[Path, int] | None:
    """Return the folder of optimised graphs and its size limit in bytes; None if the cache is disabled."""
    if not settings.graph_cache or not settings.graph_cache_bytes:
        return None
    folder = Path(settings.graph_cache)
    if settings.graph_cache == "auto":
        home = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
        try:
            place = Path(os.environ.get("XDG_CACHE_HOME") or home).expanduser()
        except RuntimeError:  # a user without a home
            return None
        folder = place / "triton-vision-gateway" / "graphs"
    return folder.absolute(), settings.graph_cache_bytes


def from_environment() -> set[str]:
    """Return the names of the settings that the environment sets."""
    given = {name.upper() for name in os.environ}
    return {name for name in Settings.model_fields if variable(name) in given}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return a message for each variable that looks like a setting but is not one, such as a typo.

    Args:
        names: of environment variables.
    """
    known = [variable(name) for name in Settings.model_fields]
    faults = []
    for name in sorted({n.upper() for n in names} - {*known, *_OTHERS}):
        if not name.startswith(PREFIX):
            continue
        if _SERVICE_LINK.fullmatch(name):
            hint = "Kubernetes set it for a Service called gateway: set enableServiceLinks: false to avoid it"
        else:
            near = difflib.get_close_matches(name, known, 1, 0.7)
            hint = f"did you mean {near[0]}?" if near else "`gateway config` lists all settings"
        faults.append(f"{name}: there is no such setting; {hint}")
    return faults


def is_secret(value: object) -> bool:
    """Return whether a setting's value is secret."""
    return isinstance(value, SecretStr)


def pass_on(settings: Settings) -> None:
    """Give child processes the same settings, regardless of their source."""
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()  # its text is stars
        os.environ[variable(name)] = "" if value is None else str(value)
