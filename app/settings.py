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

from app.addresses import TritonAddress, origins, proxies, session_store_url
from app.keys import access

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
    "host": "Server",
    "log_level": "Logs and traces",
    "api_keys": "Access",
}


def _address(text: str) -> str:
    TritonAddress.parse(text)
    return text


def _collector(url: str | None) -> str | None:
    if url is not None and not re.fullmatch(r"https?://[^\s/]+/\S*", url):
        raise ValueError("is the whole URL of a collector, such as http://collector:4318/v1/traces")
    return url


def _entries(text: SecretStr | None) -> SecretStr | None:
    if text is not None:
        access.parse(text.get_secret_value())
    return text


# An empty variable says: none.
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
        "embedded", description="What runs the models: ONNX Runtime in this process, or a Triton server."
    )
    triton_url: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:8001",
        description="Triton's gRPC service as host:port or grpc://host:port, with TLS as grpcs://host:port; or its "
        "HTTP service as http://host:port, then gRPC is expected on the next port (8000 and 8001 are Triton's own).",
    )
    triton_grpc_port: OptionalPort = Field(
        None, description="gRPC's port where triton_url is an http:// address and the next port isn't it."
    )
    triton_transport: Literal["auto", "shared_memory", "bytes"] = Field(
        "auto", description="How tensors reach Triton; auto tries shared memory, then sends bytes."
    )
    detect_input: Literal["auto", "fp32", "uint8"] = Field(
        "auto",
        description="How frames travel to the detector: as prepared FP32, or as UINT8 pixels (a quarter of the bytes) "
        "to an ensemble that prepares them; boxes are the same. auto: UINT8 where tensors go as bytes and it is READY.",
    )
    triton_tls_ca: OptionalPath = Field(
        None,
        description="Who signed Triton's certificate, in PEM (with grpcs://); unset: the usual authorities.",
    )
    triton_tls_cert: OptionalPath = Field(
        None, description="The gateway's own certificate for Triton, in PEM, where Triton asks for one."
    )
    triton_tls_key: OptionalPath = Field(None, description="That certificate's key, in PEM.")
    repository: OptionalPath = Field(
        Path("triton/models"),
        description="The Triton model repository, if its files can be seen from here (embedded: needed).",
    )
    manifest: OptionalPath = Field(
        Path("models/manifest.json"),
        description="Digests by model name, for a gateway that can't see the repository's files.",
    )
    models: str = Field(
        "auto",
        description="Branches that the embedded engine loads: shell patterns, separated by commas; *: all. auto: those "
        "that requests reach without naming one (of each family its default variant, see GATEWAY_VARIANT and "
        "GATEWAY_DETECT_INPUT), and those of GATEWAY_REQUIRE_READY.",
    )
    catalogue: OptionalPath = Field(
        Path("catalogue"),
        description="A catalogue of your own over ours: a TOML file or a folder of them, see docs/own-models.md. "
        "The usual folder needn't be there.",
    )
    variant: OptionalText = Field(
        None,
        description="Variant that serves when the caller names none (of detection n s m l x, or one of your own); "
        "several of different families are separated by commas. Unset: the catalogue's (x).",
    )
    require_ready: str = Field(
        "",
        description="Branches that must be READY before /readyz is green: patterns, separated by commas; "
        "'checklist' stands for every required one of the READY checklist.",
    )
    warmup: bool = Field(
        True,
        description="Run every branch once before it is served, so that no caller pays for the first run and a branch "
        "that can't run is known.",
    )
    warmup_timeout_s: float = Field(
        60.0, gt=0, description="A branch whose first run takes longer in seconds isn't served, and says so."
    )
    rescan_s: float = Field(
        5.0,
        ge=0,
        description="Seconds between two looks at the repository's files by the embedded engine, for what is new, "
        "changed or gone; 0: never. (Triton is asked every second.)",
    )
    reload_longest_s: float = Field(
        60.0,
        ge=1,
        description="A branch that ran out of memory is reloaded after about 1 second, then 2, 4, and so on, up to "
        "this many; longer on a GPU that is too small for it, because loading takes memory from the others.",
    )
    leases: int = Field(
        4,
        ge=1,
        le=64,
        description="Tensor sets a branch: how many inferences run at once, in each worker. More fill a GPU better "
        "and take more memory.",
    )
    max_waiting: int = Field(
        64,
        ge=0,
        description="Requests that may wait for a lease of one branch; the next one is refused (429) instead of "
        "waiting longer than it has time.",
    )
    max_waiting_bytes: int = Field(
        512 << 20, ge=1024, description="Bodies in memory of the requests that wait for one family, in bytes."
    )
    embedded_threads: int = Field(0, ge=0, description="Threads of one embedded inference; 0: all cores.")
    graph_cache: str = Field(
        "auto",
        description="Folder in which the embedded engine keeps what ONNX Runtime made of the models, for the next "
        "start and for other workers (docs/start.md); auto: triton-vision-gateway/graphs in the user's cache folder; "
        "empty: none.",
    )
    graph_cache_bytes: int = Field(
        4 << 30, ge=0, description="Most bytes in that folder; what was used least recently is removed."
    )
    worker_threads: int = Field(16, ge=1, le=256, description="Threads that decode, prepare and finish.")
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
        description="A connection that for so many seconds sends no request, doesn't finish a request's head, or takes "
        "less than 1 KiB a second of its answer is cut off.",
    )
    max_body_bytes: int = Field(64 << 20, ge=1024, description="Largest request body in bytes.")
    max_json_bytes: int = Field(
        1 << 20,
        ge=1024,
        description="Largest JSON body that holds no picture, and largest sum of prompt parts.",
    )
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        description="Largest picture in pixels, from its header: a small file can unpack into gigabytes.",
    )
    max_decoded_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Memory in bytes that large pictures may take at once while they are decoded and answered, in each "
        "worker; further ones wait. Pictures that take less than 1/64 of it aren't counted.",
    )
    max_parts: int = Field(64, ge=1, description="Most `file` parts of one request.")
    max_prompts: int = Field(1000, ge=1, description="Most prompts of one request or one profile.")
    text_cache_bytes: int = Field(
        64 << 20, ge=0, description="Memory for embeddings of prompts, in bytes; 0: none are remembered."
    )
    text_cache_folder: OptionalPath = Field(
        None,
        description="Also keep embeddings of prompts here, for the next process; without it each worker has its own.",
    )
    session_store: Annotated[str, AfterValidator(session_store_url)] = Field(
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
    video_frame_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Time limit of a frame of a job in seconds; a job that meets it comes back later.",
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
        Path("out/videos"), description="Where POST /v1/videos keeps its jobs and artefacts; empty: no jobs."
    )
    video_jobs: int = Field(1, ge=1, description="Jobs that run at once in one worker.")
    max_jobs_waiting: int = Field(1000, ge=1, description="Jobs that may wait; the next one is refused.")
    videos_waiting_bytes: int = Field(
        20 << 30,
        ge=1024,
        description="Room for videos that wait or run, and for uploads on their way, in bytes; beyond it "
        "POST /v1/videos is refused (429).",
    )
    videos_keep_s: float = Field(7 * 86400.0, gt=0, description="Finished videos are kept so many seconds.")
    videos_keep_bytes: int = Field(
        20 << 30, ge=0, description="Room for finished videos; the oldest are removed first."
    )
    profiles_folder: OptionalPath = Field(
        Path("profiles"), description="Profiles that POST /v1/videos knows by name."
    )
    host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the service listens on; 0.0.0.0: on all."
    )
    port: int = Field(8080, ge=0, le=65535, description="Port that the service listens on; 0: a free one.")
    operate_port: OptionalPort = Field(
        None,
        description="A port of their own for /livez, /readyz and /metrics, without TLS; they are then nowhere else.",
    )
    operate_host: OptionalText = Field(
        None, description="Address that the port for operation listens on; unset: that of GATEWAY_HOST."
    )
    tls_cert: OptionalPath = Field(
        None,
        description="The service's certificate, in PEM, with what is between it and its authority: HTTPS.",
    )
    tls_key: OptionalPath = Field(None, description="The certificate's key, in PEM, without a password.")
    tls_client_ca: OptionalPath = Field(
        None, description="Only callers with a certificate that one of these signed may connect (PEM)."
    )
    trusted_proxies: Annotated[str, AfterValidator(proxies)] = Field(
        "",
        description="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses and networks, "
        "separated by commas; *: all; empty: nobody.",
    )
    drain_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which `/readyz` is red and requests are still taken, so that balancers "
        "find out. With 0 that takes until who asks `/readyz` every second has seen it red four times, 3 s at "
        "most; where nobody asks so often, no connection is taken any more at once.",
    )
    shutdown_timeout_s: int = Field(
        8,
        ge=1,
        description="Seconds that requests under way have left after SIGTERM and the drain. Docker kills after 10 s, "
        "Kubernetes after 30 s, if they aren't told otherwise.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Least level logged. Requests that failed are logged at info and warning, all others at debug.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Lines for people, or one JSON object a line."
    )
    tracing_endpoint: Annotated[OptionalText, AfterValidator(_collector)] = Field(
        None,
        description="Where OpenTelemetry spans go: the whole URL of an OTLP/HTTP collector, such as "
        "http://collector:4318/v1/traces. Needs the extra `tracing`; unset: nothing is traced.",
    )
    tracing_service_name: str = Field(
        "triton-vision-gateway", min_length=1, description="The service's name in the traces."
    )
    tracing_sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How many of the requests are traced whose caller hasn't decided that (in `traceparent`). A traced "
        "one costs about a millisecond of CPU time, so let it be less than 1 under load.",
    )
    api_keys: Annotated[OptionalSecret, AfterValidator(_entries)] = Field(
        None,
        description="Entries of API keys as `gateway keys new` prints them, separated by ;. Unset, as the file below: "
        "no key is needed. See docs/access.md.",
    )
    api_keys_file: OptionalPath = Field(
        None, description="More of them, one a line; read again within a second when it changes."
    )
    cors_origins: Annotated[str, AfterValidator(origins)] = Field(
        "",
        description="Origins whose pages may call the service from a browser, such as https://app.example, separated "
        "by commas; *: all; empty: none.",
    )

    @property
    def triton(self) -> TritonAddress:
        """Address of Triton's gRPC service."""
        return TritonAddress.parse(self.triton_url, self.triton_grpc_port)

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
            raise ValueError("GATEWAY_REPOSITORY: the embedded engine needs it; or GATEWAY_ENGINE=triton")
        if self.triton_grpc_port is not None and not self.triton_url.startswith("http://"):
            raise ValueError(
                "GATEWAY_TRITON_GRPC_PORT: goes with a GATEWAY_TRITON_URL that begins with http://; "
                "else the port stands in GATEWAY_TRITON_URL"
            )
        _tls_together(self)
        if self.operate_port is not None and self.operate_port == self.port:
            raise ValueError("GATEWAY_OPERATE_PORT: is another port than GATEWAY_PORT")
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
    """The environment, for what profiles of the operator's name in it."""
    return dict(os.environ)


def caller_key() -> str:
    """The API key with which the commands ask a gateway; empty: none."""
    return os.environ.get(_KEY, "").strip()


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name; read when it is imported


def metrics_folder() -> Path | None:
    """Folder where several workers write their metrics, each into its own files; None for a single process."""
    folder = os.environ.get(_METRICS_FOLDER)
    return Path(folder) if folder else None


def share_metrics(folder: Path) -> None:
    """Let the processes that this one starts write their metrics there."""
    os.environ[_METRICS_FOLDER] = str(folder)


def graph_cache(settings: Settings) -> tuple[Path, int] | None:
    """The folder of optimised graphs and the most bytes in it; None: there is to be none."""
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
    """Names of the settings that the environment gives."""
    given = {name.upper() for name in os.environ}
    return {name for name in Settings.model_fields if variable(name) in given}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting and is none: a typo must not pass for a
    setting.

    Args:
        names: of environment variables.
    """
    known = [variable(name) for name in Settings.model_fields]
    faults = []
    for name in sorted({n.upper() for n in names} - {*known, *_OTHERS}):
        if not name.startswith(PREFIX):
            continue
        if _SERVICE_LINK.fullmatch(name):
            hint = "Kubernetes set it for a Service called gateway: enableServiceLinks: false keeps it out"
        else:
            near = difflib.get_close_matches(name, known, 1, 0.7)
            hint = f"did you mean {near[0]}?" if near else "`gateway config` lists all settings"
        faults.append(f"{name}: there is no such setting; {hint}")
    return faults


def is_secret(value: object) -> bool:
    """Return whether a setting's value is secret."""
    return isinstance(value, SecretStr)


def pass_on(settings: Settings) -> None:
    """Let the processes that this one starts have the same settings, whatever they came from."""
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()  # its text is stars
        os.environ[variable(name)] = "" if value is None else str(value)
