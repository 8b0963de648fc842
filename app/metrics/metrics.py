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
    """All metrics of the service.

    Args:
        folder: the workers' files (`PROMETHEUS_MULTIPROC_DIR`); None for a single process.
        triton: declare the metrics of the connection to Triton, too.
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
            "Requests answered, by route template, family, branch and status. An empty family and branch: "
            "no model served the request; several: more than one served the frames of a batch or video; "
            "status aborted: the caller left first.",
            ("route", "family", "branch", "status"),
        )
        self.request_seconds = made.histogram(
            "gateway_request_duration_seconds",
            "Time from the request's headers to the last byte of the answer.",
            ("route", "family", "branch"),
        )
        self.in_flight = made.gauge(
            "gateway_requests_in_flight", "Requests that are being answered.", "livesum", ("route",)
        )
        self.rejections = made.counter(
            "gateway_rejections",
            "Problems answered, by code, for whole requests and for single frames of a batch or video.",
            ("route", "code"),
        )
        self.key_requests = made.counter(
            "gateway_key_requests",
            "Requests with a configured API key, by the key's name and the judgement (admitted, expired, "
            "forbidden, rate_limited). Requests with an unknown key count as rejections instead.",
            ("key_name", "judgement"),
        )
        self.rate_limit_fallbacks = made.counter(
            "gateway_rate_limit_fallbacks",
            "Requests whose key's rate limit was counted by this replica alone, because Redis could not be reached.",
        )
        self.stage_seconds = made.histogram(
            "gateway_stage_duration_seconds",
            "Time that one frame spent in one stage (decode queue prepare infer finish). encode is counted "
            "once per answer, regardless of its frames.",
            ("family", "branch", "stage"),
        )
        self.decisions = made.counter(
            "gateway_branch_decisions",
            "Frames by the branch that served them and the reason (rule, override, fallback, rollout).",
            ("family", "branch", "kind"),
        )

    def _models(self, made: Declared) -> None:
        self.queue_depth = made.gauge(
            "gateway_queue_depth", "Requests that wait for a lease.", "livesum", ("branch",)
        )
        self.admission_waiting = made.gauge(
            "gateway_admission_waiting",
            "Frames and prompts that wait for admission, before they are decoded.",
            "livesum",
            ("family",),
        )
        self.admission_running = made.gauge(
            "gateway_admission_running",
            "Frames and prompts that are being processed.",
            "livesum",
            ("family",),
        )
        self.admission_bytes = made.gauge(
            "gateway_admission_bytes",
            "Bytes in memory of request bodies that wait or are being processed.",
            "livesum",
            ("family",),
        )
        self.leases_in_use = made.gauge(
            "gateway_leases_in_use", "Leases (tensor sets) in use.", "livesum", ("branch",)
        )
        self.leases = made.gauge(
            "gateway_leases", "Most leases of a branch that can be in use at once.", "livesum", ("branch",)
        )
        self.retries = made.counter(
            "gateway_retries",
            "Retries, by reason: region_lost (Triton no longer knew a shared-memory region), unavailable "
            "(the connection to Triton broke), shutdown (Triton was stopping), not_ready (Triton was "
            "reloading the model), backend_away, overloaded, model_not_ready, out_of_memory (a video's "
            "frame waited), job_postponed (a video job is retried later).",
            ("reason",),
        )
        self.webhook_attempts = made.counter(
            "gateway_webhook_attempts",
            "Deliveries of webhooks that were attempted, by outcome: delivered, retried (it failed and is attempted "
            "again), given_up, refused (the settings no longer allow the host).",
            ("outcome",),
        )
        self.retries_refused = made.counter(
            "gateway_retries_refused",
            "Inferences that were not retried, because retries are limited to a tenth of all inferences; "
            "reasons as above.",
            ("reason",),
        )
        self.out_of_memory = made.counter(
            "gateway_out_of_memory",
            "Inferences and first runs that failed because the device ran out of memory.",
            ("branch",),
        )
        self.quarantined = made.gauge(
            "gateway_quarantined",
            "1 while a worker does not serve the branch because it ran out of memory.",
            "livemax",
            ("branch",),
        )
        self.quarantine_attempts = made.counter(
            "gateway_quarantine_attempts",
            "Attempts to restore a branch that ran out of memory, by outcome: reloaded (the branch was "
            "reloaded and ran), ran (it ran without a reload, see docs/memory.md), gone (someone has "
            "unloaded it), out_of_memory, failed.",
            ("branch", "outcome"),
        )
        self.inferences = made.counter(
            "gateway_inferences",
            "Successful inferences, by transport of their tensors (shared_memory, bytes, inprocess).",
            ("branch", "transport"),
        )
        self.transport_bytes = made.counter(
            "gateway_transport_bytes",
            "Tensor bytes of those inferences; only the transport bytes copies them into messages.",
            ("transport", "direction"),
        )
        self.model_ready = made.gauge(
            "gateway_model_ready",
            "1 while the model is READY in every worker. required: /readyz waits for it "
            "(GATEWAY_REQUIRE_READY). checklist: its place on the READY checklist (required, optional, or "
            "empty for none).",
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
            "gateway_build_info", "1, with the running version.", "livemax", ("version", "python", "engine")
        )

    def _triton(self, made: Declared) -> None:
        self.triton_connected = made.gauge(
            "gateway_triton_connected",
            "1 while every worker reaches Triton; only with the engine triton.",
            "livemin",
        )
        self.triton_reconnects = made.counter(
            "gateway_triton_reconnects",
            "Times that Triton became reachable again after an outage; only with the engine triton.",
        )
        self.triton_breaker_open = made.gauge(
            "gateway_triton_breaker_open",
            "1 while the circuit breaker of a worker is open, because Triton is unreachable or hangs; only "
            "with the engine triton.",
            "livemax",
        )
        self.triton_breaker_openings = made.counter(
            "gateway_triton_breaker_openings",
            "Times that the circuit breaker opened, by cause: refused (no connection), silent (two polls "
            "in a row got no answer: Triton hangs); only with the engine triton.",
            ("cause",),
        )
        self.endpoint_away = made.gauge(
            "gateway_triton_endpoint_away",
            "1 while a worker doesn't reach this Triton, by host and port; 0 too for one that its name has lost.",
            "livemax",
            ("endpoint",),
        )
        self.endpoint_in_flight = made.gauge(
            "gateway_triton_endpoint_in_flight",
            "Leases at this Triton that are out or awaited.",
            "livesum",
            ("endpoint",),
        )
        self.endpoint_moved = made.counter(
            "gateway_triton_endpoint_moved_runs",
            "Runs that this Triton didn't answer, and that were made again at another one.",
            ("endpoint",),
        )

    def _caches_and_sessions(self, made: Declared) -> None:
        self.text_cache = made.counter(
            "gateway_text_cache_lookups",
            "Prompts looked up in the cache of embeddings, by result (hit, miss).",
            ("result",),
        )
        self.text_cache_bytes = made.gauge(
            "gateway_text_cache_bytes", "Bytes of memory that the cache of embeddings holds.", "livesum"
        )
        self.text_cache_entries = made.gauge(
            "gateway_text_cache_entries", "Prompts in the cache of embeddings.", "livesum"
        )
        self.sessions_live = made.gauge(
            "gateway_sessions_live",
            "Tracking sessions in this process, without those in Redis.",
            "livesum",
        )
        self.session_evictions = made.counter(
            "gateway_session_evictions",
            "Sessions in this process that were removed: idle for too long (ttl), or too many sessions "
            "(lru).",
            ("reason",),
        )
        self.session_conflicts = made.counter(
            "gateway_session_conflicts",
            "Requests that a session refused, by reason (parameters, clock, order, size, format, weights).",
            ("reason",),
        )
        self.session_retries = made.counter(
            "gateway_session_retries",
            "Session updates that were retried because another worker was faster.",
        )
        self.session_update_seconds = made.histogram(
            "gateway_session_update_duration_seconds",
            "Time to read a session, run the tracker and write the session back.",
        )

    def _videos(self, made: Declared) -> None:
        self.video_streams = made.gauge(
            "gateway_video_streams_in_progress", "Videos that are being streamed as lines.", "livesum"
        )
        self.video_frames = made.counter(
            "gateway_video_frames",
            "Sampled frames of videos, by route (job: of a video job) and result (ok, error).",
            ("route", "result"),
        )
        self.video_lag_seconds = made.histogram(
            "gateway_video_lag_seconds",
            "Time from decoding a frame to handing its line to the connection; streamed videos only.",
        )
        self.video_jobs = made.gauge(
            "gateway_video_jobs",
            "Video jobs by state (fetching: the gateway fetches the video) and store (host and folder, or the address "
            "of the database). All workers and replicas with one store report the same jobs: "
            "sum by (state) (max by (store, state) (gateway_video_jobs)).",
            "livemostrecent",
            ("state", "store"),
        )

    def observe_frame(self, family: str, branch: str, kind: str, stages_ms: Mapping[str, float]) -> None:
        """Count one answered frame; `stages_ms` is in milliseconds, 0 for a stage that it skipped."""
        self._of(self.decisions, family, branch, kind).inc()
        for stage, ms in stages_ms.items():
            if ms > 0 and stage != "encode":  # one per request: see `observe_encode`
                self._of(self.stage_seconds, family, branch, stage).observe(ms / 1000)

    def observe_encode(self, family: str, branch: str, ms: float) -> None:
        """Count the encoding of one answer."""
        if ms > 0 and family:
            self._of(self.stage_seconds, family, branch, "encode").observe(ms / 1000)

    def observe_inference(self, branch: str, transport: str, bytes_in: int, bytes_out: int) -> None:
        """Count one successful inference."""
        self._of(self.inferences, branch, transport).inc()
        self._of(self.transport_bytes, transport, "in").inc(bytes_in)
        self._of(self.transport_bytes, transport, "out").inc(bytes_out)

    def observe_request(self, labels: Labels, status: str, seconds: float, trace_id: str | None) -> None:
        """Count one finished request; `labels` are its route, family and branch."""
        self._of(self.requests, *labels, status).inc()
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._of(self.request_seconds, *labels).observe(seconds, exemplar)

    def set_infos(self, gauge: Gauge, rows: set[Labels]) -> None:
        """Set the gauge to 1 for each of these label values, and remove all others."""
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
        """Return the metrics in Prometheus' text format."""
        return self.negotiated("")[0]

    def negotiated(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that `accept` asks for, and its media type."""
        collector = self.registry if self._folder is None else OfWorkers(self._folder)
        return exposition(collector, accept)
