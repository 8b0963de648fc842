"""Making metrics on a registry of one's own, and remembering what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# A letterbox takes tenths of a millisecond, a large model on a CPU tens of seconds: both must be told apart.
STAGE_BUCKETS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60,
)  # fmt: skip

# How the gauges of several workers become one: only live workers count, for a dead one holds nothing.
Workers = Literal["livesum", "livemin", "livemax", "livemostrecent"]
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """One row of the documentation.

    `workers`: how the values of several workers become one. `replicas`: the function of PromQL for those of several
    replicas.
    """

    name: str
    kind: str
    labels: Labels
    help: str
    workers: str
    replicas: str


class Declared:
    """Makes metrics on one registry, and remembers what they are."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []

    def counter(self, name: str, text: str, labels: Labels = ()) -> Counter:
        self.described.append(Described(f"{name}_total", "counter", labels, text, "sum", "sum"))
        return Counter(name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, labels: Labels = ()) -> Histogram:
        self.described.append(Described(name, "histogram", labels, text, "sum", "sum"))
        return Histogram(name, text, labels, buckets=STAGE_BUCKETS, registry=self.registry)

    def gauge(self, name: str, text: str, workers: Workers, labels: Labels = ()) -> Gauge:
        combined = workers.removeprefix("live")
        replicas = "max" if combined == "mostrecent" else combined
        self.described.append(Described(name, "gauge", labels, text, combined, replicas))
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=workers)
