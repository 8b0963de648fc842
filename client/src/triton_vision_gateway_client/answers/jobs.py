"""Video jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_OVER = ("done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Reason for which a job failed, waits, or has only a part."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """The delivery of the job's end to its `callback_url`. `state`: waiting, delivered or failed."""

    url: str
    state: str
    attempts: int
    attempted: str | None = None
    status: int | None = None
    error: str | None = None
    next_attempt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The place that the service fetches the video from. `state`: waiting, fetching, fetched or failed.

    `bytes` of `total` are there (None: the source doesn't say). `url` is shown without its query.
    """

    url: str
    state: str
    bytes: int
    attempts: int
    total: int | None = None
    etag: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Paths of the job's resources."""

    self: str
    events: str
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The state of a job. `state`: queued, running, done or failed; times are UTC, as text.

    `fraction` is the progress, 0 to 1; `position` the number of jobs ahead. `partial`: only a part of the video could
    be read, and `error` says why. `manifest` describes the results, once it is done.
    """

    id: str
    state: str
    partial: bool
    name: str
    profile: str
    bytes: int
    sha256: str
    created: str
    frames: int
    attempts: int
    links: Links
    owner: str | None = None
    started: str | None = None
    finished: str | None = None
    expected: int | None = None
    fraction: float | None = None
    error: JobError | None = None
    position: int | None = None
    manifest: Mapping[str, Any] | None = None
    callback: Callback | None = None
    source: Source | None = None

    @property
    def over(self) -> bool:
        """True once it is done or failed."""
        return self.state in _OVER

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Names of the files that can be fetched, such as `core_clip/embeddings.npz`."""
        start = f"{self.links.self}/artifacts/"
        return tuple(link.removeprefix(start) for link in self.links.artifacts)

    def sha256_of(self, artifact: str) -> str | None:
        """Return the SHA-256 that the manifest gives for a file, in hex; None if it gives none."""
        rows = [] if self.manifest is None else self.manifest.get("artifacts", [])
        return next((str(row["sha256"]) for row in rows if row.get("name") == artifact), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job in the list."""

    id: str
    state: str
    partial: bool
    name: str
    created: str
    owner: str | None = None


class JobPage(list[JobRow]):
    """A page of the list of jobs. `next` is the cursor of the page after it, for `after`; None: it is the last."""

    def __init__(self, rows: Iterable[JobRow], next: str | None) -> None:  # noqa: A002  # as the service calls it
        super().__init__(rows)
        self.next = next


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One event: `progress`, then one of `done`, `failed` and `removed`. `job` is None once it is removed."""

    event: str
    job: Job | None = field(default=None)
