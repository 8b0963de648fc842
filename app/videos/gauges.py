"""Gauges: readiness, queues, leases, caches and jobs, as they are at the moment."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from app import __version__
from app.engine.base import EngineUsage, ModelState, PoolUsage
from app.errors import VideosUnavailable
from app.metrics import Metrics
from app.pipelines.clip import TextPipeline
from app.pipelines.inventory import required_models
from app.pipelines.pipeline_set import PipelineSet
from app.videos.jobs import VideoJobs

# By family: items that run, items that wait, bytes of their bodies.
Occupancy = Callable[[], Mapping[str, tuple[int, int, int]]]


_NO_POOL = PoolUsage(0, 0, 0)  # Triton is away, and so are its leases
_MOST_ENDPOINTS = 64  # addresses come and go with names
_JOB_STATES = ("fetching", "queued", "running", "done", "failed")


class Gauges:
    """Sets the gauges: call `look` before every scrape, and regularly with several workers, which answer for each
    other.

    Args:
        pipelines: whose engine and cache are looked at, and whose metrics are set.
        required: branches that `/readyz` waits for (see `inventory.required_branches`).
        jobs: of videos, if there are any.
        occupancy: of the queues.
        store: name of the jobs' store, in the label of that name.
    """

    def __init__(
        self,
        pipelines: PipelineSet,
        required: Sequence[str],
        jobs: VideoJobs | None,
        occupancy: Occupancy,
        store: str = "",
    ) -> None:
        self._pipelines = pipelines
        router = pipelines.router
        self._required = required_models(router.catalogue, required)
        self._checklist = router.catalogue.checklist(router.variant or "")
        self._jobs = jobs
        self._occupancy = occupancy
        self._store = store
        self._lock = threading.Lock()
        self._seen = EngineUsage()
        self._named: set[str] = set()  # endpoints with a series of their own
        self._metrics.set_build(__version__, router.engine.name)

    @property
    def _metrics(self) -> Metrics:
        return self._pipelines.metrics

    def look(self) -> None:
        """Set the gauges. Reads a file where there are jobs; waits for nothing else."""
        with self._lock:
            self._look_at_models(self._pipelines.router.engine.ready())
            self._look_at_engine(self._pipelines.router.engine.usage())
            self._look_at_queues()

    def _look_at_models(self, states: Mapping[str, ModelState]) -> None:
        for name, state in states.items():
            required = "true" if name in self._required else "false"
            self._metrics.model_ready.labels(name, required, self._checklist.get(name, "")).set(state.ready)
        views = [*self._pipelines.router.engine.endpoints().values()] or [states]
        branches = self._pipelines.router.catalogue.branches
        used = [view[name].used for view in views for name in branches if view[name].ready]
        rows: set[tuple[str, ...]] = {
            (u.model_name, u.weights_digest, u.weights, u.runtime, u.engine, u.precision, u.device)
            for u in used
        }
        self._metrics.set_infos(self._metrics.model_info, rows)

    def _look_at_engine(self, usage: EngineUsage) -> None:
        metrics, before = self._metrics, self._seen
        self._seen = usage
        for branch in {*before.pools, *usage.pools}:
            pool = usage.pools.get(branch, _NO_POOL)
            metrics.queue_depth.labels(branch).set(pool.waiting)
            metrics.leases_in_use.labels(branch).set(pool.in_use)
            metrics.leases.labels(branch).set(pool.size)
        for reason, count in usage.retries.items():
            metrics.retries.labels(reason).inc(count - before.retries.get(reason, 0))
        for reason, count in usage.retries_refused.items():
            metrics.retries_refused.labels(reason).inc(count - before.retries_refused.get(reason, 0))
        self._look_at_memory(before, usage)
        if usage.connected is not None:
            metrics.triton_connected.set(usage.connected)
            metrics.triton_reconnects.inc(usage.reconnects - before.reconnects)
        self._look_at_endpoints(before, usage)
        if usage.breaker_open is not None:
            metrics.triton_breaker_open.set(usage.breaker_open)
            for cause, count in usage.breaker_openings.items():
                metrics.triton_breaker_openings.labels(cause).inc(
                    count - before.breaker_openings.get(cause, 0)
                )

    def _look_at_endpoints(self, before: EngineUsage, usage: EngineUsage) -> None:
        """One series per server; those that are gone stay, at 0, and there are never more than `_MOST_ENDPOINTS`."""
        metrics = self._metrics
        for name in before.endpoints.keys() - usage.endpoints.keys():
            metrics.endpoint_away.labels(self._endpoint(name)).set(0)
            metrics.endpoint_in_flight.labels(self._endpoint(name)).set(0)
        for name, one in usage.endpoints.items():
            label, known = self._endpoint(name), before.endpoints.get(name)
            metrics.endpoint_away.labels(label).set(not one.connected)
            metrics.endpoint_in_flight.labels(label).set(one.in_flight)
            metrics.endpoint_moved.labels(label).inc(max(0, one.moved - (known.moved if known else 0)))

    def _endpoint(self, name: str) -> str:
        if len(self._named) < _MOST_ENDPOINTS:
            self._named.add(name)
        return name if name in self._named else "others"

    def _look_at_memory(self, before: EngineUsage, usage: EngineUsage) -> None:
        metrics = self._metrics
        for branch, count in usage.out_of_memory.items():
            metrics.out_of_memory.labels(branch).inc(count - before.out_of_memory.get(branch, 0))
        for branch in {*usage.pools, *before.quarantined, *usage.quarantined}:
            metrics.quarantined.labels(branch).set(branch in usage.quarantined)
        for (branch, outcome), count in usage.recovered.items():
            before_count = before.recovered.get((branch, outcome), 0)
            metrics.quarantine_attempts.labels(branch, outcome).inc(count - before_count)

    def _look_at_queues(self) -> None:
        metrics, cache = self._metrics, self._pipelines.of(TextPipeline).cache
        for family, (running, waiting, nbytes) in self._occupancy().items():
            metrics.admission_running.labels(family).set(running)
            metrics.admission_waiting.labels(family).set(waiting)
            metrics.admission_bytes.labels(family).set(nbytes)
        metrics.text_cache_bytes.set(cache.nbytes)
        metrics.text_cache_entries.set(cache.entries)
        if self._jobs is not None:
            self._look_at_jobs(self._jobs)

    def _look_at_jobs(self, jobs: VideoJobs) -> None:
        """Keep the last numbers where the jobs' index can't be read now."""
        with contextlib.suppress(VideosUnavailable):
            counts = jobs.counts()
            for state in _JOB_STATES:
                self._metrics.video_jobs.labels(state, self._store).set(counts.get(state, 0))
