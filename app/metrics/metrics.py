"""Every metric: its name, labels and meaning."""

from __future__ import annotations

import functools
import platform
import threading
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Gauge

from app.metrics.exposition import OfWorkers, exposition
from app.metrics.registry import Declared, Labels


class Metrics:
    """See the module.

    Args:
        folder: where the workers' files lie (`PROMETHEUS_MULTIPROC_DIR`); None: this process is alone.
        triton: whether there is a Triton to be connected with.
    """

    def __init__(self, folder: Path | None = None, *, triton: bool = False) -> None:
        self._folder = folder
        made = Declared()
        self.registry, self.described = made.registry, made.described
        self._requests(made)
        self._models(made)
        self._caches_and_sessions(made)
        self._videos(made)
        if triton:
            self._triton(made)
        # A label set's own counter is found by a lock and a loop, ten times a request; there are few of them.
        self._of = functools.cache(lambda metric, *labels: metric.labels(*labels))
        self._infos: dict[Gauge, set[Labels]] = {}
        self._infos_lock = threading.Lock()

    def _requests(self, made: Declared) -> None:
        self.requests = made.counter(
            "gateway_requests",
            "Requests answered, by route template, by the family and branch that served (empty: none did; several: "
            "frames of a batch or video were served by more than one) and by status; aborted: the caller left first.",
            ("route", "family", "branch", "status"),
        )
        self.request_seconds = made.histogram(
            "gateway_request_duration_seconds",
            "From the request's headers to the answer's last byte.",
            ("route", "family", "branch"),
        )
        self.in_flight = made.gauge(
            "gateway_requests_in_flight", "Requests that are being answered.", "livesum", ("route",)
        )
        self.rejections = made.counter(
            "gateway_rejections",
            "Problems answered, by code: of whole requests, and of single frames of a batch or video.",
            ("route", "code"),
        )
        self.key_requests = made.counter(
            "gateway_key_requests",
            "Requests that came with an API key of the configuration, by its name there and by what became of them "
            "(admitted, expired, forbidden, rate_limited); unknown keys have no name, and are rejections.",
            ("key_name", "judgement"),
        )
        self.stage_seconds = made.histogram(
            "gateway_stage_duration_seconds",
            "Time of one frame in one stage (decode queue prepare infer finish), as far as it went through it; encode: "
            "of one answer, whatever its frames.",
            ("family", "branch", "stage"),
        )
        self.decisions = made.counter(
            "gateway_branch_decisions",
            "Frames by the branch that served them and why (rule, override, fallback).",
            ("family", "branch", "kind"),
        )

    def _models(self, made: Declared) -> None:
        self.queue_depth = made.gauge(
            "gateway_queue_depth", "Requests that wait for a lease.", "livesum", ("branch",)
        )
        self.admission_waiting = made.gauge(
            "gateway_admission_waiting",
            "Frames and prompts that wait to begin, before they are decoded.",
            "livesum",
            ("family",),
        )
        self.admission_running = made.gauge(
            "gateway_admission_running",
            "Frames and prompts that are being worked on.",
            "livesum",
            ("family",),
        )
        self.admission_bytes = made.gauge(
            "gateway_admission_bytes",
            "Bodies in memory of those that wait or are worked on.",
            "livesum",
            ("family",),
        )
        self.leases_in_use = made.gauge(
            "gateway_leases_in_use", "Leases (sets of tensors) that are out.", "livesum", ("branch",)
        )
        self.leases = made.gauge(
            "gateway_leases", "Leases that a branch may have out at once.", "livesum", ("branch",)
        )
        self.retries = made.counter(
            "gateway_retries",
            "What was done again: region_lost (Triton had forgotten a shared-memory region), unavailable (the "
            "connection to it broke), shutdown (it was stopping), not_ready (it was reloading the model), "
            "backend_away, overloaded, model_not_ready, out_of_memory (a video's frame waited), job_postponed (a video "
            "job comes back later).",
            ("reason",),
        )
        self.retries_refused = made.counter(
            "gateway_retries_refused",
            "Inferences that were not sent again, because retries may be one in ten of all; reasons as above.",
            ("reason",),
        )
        self.out_of_memory = made.counter(
            "gateway_out_of_memory",
            "Runs that failed because the device's memory ran out, callers' own and first runs.",
            ("branch",),
        )
        self.quarantined = made.gauge(
            "gateway_quarantined",
            "1 while the branch isn't served by some worker because a run of it was out of memory.",
            "livemax",
            ("branch",),
        )
        self.quarantine_attempts = made.counter(
            "gateway_quarantine_attempts",
            "Attempts to bring back a branch that ran out of memory, by outcome: reloaded (reloaded, and it ran), "
            "ran (without that, see docs/memory.md), gone (somebody has unloaded it), out_of_memory, failed.",
            ("branch", "outcome"),
        )
        self.inferences = made.counter(
            "gateway_inferences",
            "Inferences that ended well, by how their tensors travelled (shared_memory, bytes, inprocess).",
            ("branch", "transport"),
        )
        self.transport_bytes = made.counter(
            "gateway_transport_bytes",
            "Bytes of the tensors of those inferences; only those of transport bytes are copied into messages.",
            ("transport", "direction"),
        )
        self.model_ready = made.gauge(
            "gateway_model_ready",
            "1 while the model is READY for every worker; required: /readyz waits for it (GATEWAY_REQUIRE_READY); "
            "checklist: its place on the READY checklist (required, optional, empty: none).",
            "livemin",
            ("model", "required", "checklist"),
        )
        self.model_info = made.gauge(
            "gateway_model_info",
            "1 for each READY branch, with the weights that serve it.",
            "livemax",
            ("model", "weights_digest", "weights", "runtime", "engine", "precision", "device"),
        )
        self.build_info = made.gauge(
            "gateway_build_info", "1, with what is running.", "livemax", ("version", "python", "engine")
        )

    def _triton(self, made: Declared) -> None:
        self.triton_connected = made.gauge(
            "gateway_triton_connected",
            "1 while Triton answers every worker; only with the engine triton.",
            "livemin",
        )
        self.triton_reconnects = made.counter(
            "gateway_triton_reconnects",
            "Times that Triton answered again after it had been away; only with the engine triton.",
        )
        self.triton_breaker_open = made.gauge(
            "gateway_triton_breaker_open",
            "1 while some worker refuses calls at once because Triton is away or silent; only with the engine triton.",
            "livemax",
        )
        self.triton_breaker_openings = made.counter(
            "gateway_triton_breaker_openings",
            "Times that the breaker has opened, by cause: refused (no connection), silent (two polls in a row got no "
            "answer: Triton hangs); only with the engine triton.",
            ("cause",),
        )

    def _caches_and_sessions(self, made: Declared) -> None:
        self.text_cache = made.counter(
            "gateway_text_cache_lookups",
            "Prompts looked up in the cache of embeddings, by result (hit, miss).",
            ("result",),
        )
        self.text_cache_bytes = made.gauge(
            "gateway_text_cache_bytes", "Memory that the cache of embeddings holds.", "livesum"
        )
        self.text_cache_entries = made.gauge(
            "gateway_text_cache_entries", "Prompts in the cache of embeddings.", "livesum"
        )
        self.sessions_live = made.gauge(
            "gateway_sessions_live",
            "Tracking sessions in this process; those in Redis are not counted here.",
            "livesum",
        )
        self.session_evictions = made.counter(
            "gateway_session_evictions",
            "Sessions in this process that ended by themselves: idle for too long (ttl), or too many (lru).",
            ("reason",),
        )
        self.session_conflicts = made.counter(
            "gateway_session_conflicts",
            "Requests that a session refused, by why (parameters, clock, order, size, format).",
            ("reason",),
        )
        self.session_retries = made.counter(
            "gateway_session_retries",
            "Updates of a session that were done again because another worker was faster.",
        )
        self.session_update_seconds = made.histogram(
            "gateway_session_update_duration_seconds",
            "From reading a session to having written it back, the tracker between.",
        )

    def _videos(self, made: Declared) -> None:
        self.video_streams = made.gauge(
            "gateway_video_streams_in_progress", "Videos that are being answered line by line.", "livesum"
        )
        self.video_frames = made.counter(
            "gateway_video_frames",
            "Sampled frames of videos, by route (job: of a video job) and result (ok, error).",
            ("route", "result"),
        )
        self.video_lag_seconds = made.histogram(
            "gateway_video_lag_seconds",
            "From a frame's being decoded to its line's being handed to the connection; streamed videos only.",
        )
        self.video_jobs = made.gauge(
            "gateway_video_jobs",
            "Video jobs by state; all workers see the same ones.",
            "livemostrecent",
            ("state",),
        )

    def observe_frame(self, family: str, branch: str, kind: str, stages_ms: Mapping[str, float]) -> None:
        """Count one frame that was answered; `stages_ms` in milliseconds, 0 for a stage that it didn't go through."""
        self._of(self.decisions, family, branch, kind).inc()
        for stage, ms in stages_ms.items():
            if ms > 0 and stage != "encode":  # one a request: see `observe_encode`
                self._of(self.stage_seconds, family, branch, stage).observe(ms / 1000)

    def observe_encode(self, family: str, branch: str, ms: float) -> None:
        """Count the encoding of one answer."""
        if ms > 0 and family:
            self._of(self.stage_seconds, family, branch, "encode").observe(ms / 1000)

    def observe_inference(self, branch: str, transport: str, bytes_in: int, bytes_out: int) -> None:
        """Count one inference that ended well."""
        self._of(self.inferences, branch, transport).inc()
        self._of(self.transport_bytes, transport, "in").inc(bytes_in)
        self._of(self.transport_bytes, transport, "out").inc(bytes_out)

    def observe_request(self, labels: Labels, status: str, seconds: float, trace_id: str | None) -> None:
        """Count one request that is over; `labels` are its route, family and branch."""
        self._of(self.requests, *labels, status).inc()
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._of(self.request_seconds, *labels).observe(seconds, exemplar)

    def set_infos(self, gauge: Gauge, rows: set[Labels]) -> None:
        """1 for each of these label values; those that were there before and aren't any more are gone."""
        with self._infos_lock:
            known = self._infos.setdefault(gauge, set())
            for row in known - rows:
                gauge.labels(*row).set(0)  # hidden by `_Shown`: files of several workers can't forget
            for row in rows:
                gauge.labels(*row).set(1)
            known |= rows

    def set_build(self, version: str, engine: str) -> None:
        """Set the metric that names the running version."""
        self.set_infos(self.build_info, {(version, platform.python_version(), engine)})

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return self.negotiated("")[0]

    def negotiated(self, accept: str) -> tuple[bytes, str]:
        """See `exposition`."""
        collector = self.registry if self._folder is None else OfWorkers(self._folder)
        return exposition(collector, accept)
