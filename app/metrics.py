"""Every metric: name, labels, and buckets with their reason; on a registry of its own."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# A letterbox takes tenths of a millisecond, a large model on a CPU tens of seconds: both must be told apart.
STAGE_BUCKETS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60,
)  # fmt: skip


class Metrics:
    """No label takes a value from the caller: routes, families, branches and codes are ours."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gateway_requests",
            "Requests answered, by route template and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "gateway_request_duration_seconds",
            "From the request's headers to the answer's last byte.",
            ("route",),
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "gateway_stage_duration_seconds",
            "Time of one frame in one stage.",
            ("family", "branch", "stage"),
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.decisions = Counter(
            "gateway_branch_decisions",
            "Frames by the branch that served them and why (rule, override, fallback).",
            ("family", "branch", "kind"),
            registry=self.registry,
        )
        self.text_cache = Counter(
            "gateway_text_cache_lookups",
            "Prompts looked up in the cache of embeddings, by result (hit, miss).",
            ("result",),
            registry=self.registry,
        )
        self.sessions_live = Gauge(
            "gateway_sessions_live",
            "Tracking sessions in this process; those in Redis are not counted here.",
            registry=self.registry,
        )
        self.session_evictions = Counter(
            "gateway_session_evictions",
            "Sessions in this process that ended by themselves: idle for too long (ttl), or too many (lru).",
            ("reason",),
            registry=self.registry,
        )
        self.session_conflicts = Counter(
            "gateway_session_conflicts",
            "Requests that a session refused, by why (parameters, clock, order, size, format).",
            ("reason",),
            registry=self.registry,
        )
        self.session_retries = Counter(
            "gateway_session_retries",
            "Updates of a session that were done again because another worker was faster.",
            registry=self.registry,
        )
        self.session_update_seconds = Histogram(
            "gateway_session_update_duration_seconds",
            "From reading a session to having written it back, the tracker between.",
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.model_ready = Gauge(
            "gateway_model_ready",
            "1 while the model is READY.",
            ("model",),
            registry=self.registry,
        )

    def observe_frame(self, family: str, branch: str, kind: str, stages_ms: Mapping[str, float]) -> None:
        """Count one frame that was answered; `stages_ms` in milliseconds."""
        self.decisions.labels(family, branch, kind).inc()
        for stage, ms in stages_ms.items():
            self.stage_seconds.labels(family, branch, stage).observe(ms / 1000)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
