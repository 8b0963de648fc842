"""Metrics of `gateway bulk`, which it serves itself while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from app.metrics.registry import Declared


class BulkMetrics:
    """Metrics of one run, on a registry of their own."""

    def __init__(self) -> None:
        made = Declared()
        self.registry, self.described = made.registry, made.described
        self._videos = made.counter(
            "gateway_bulk_videos",
            "Videos of a bulk run, by state (done partial skipped failed poison); only with --metrics-port.",
            ("state",),
        )
        self._frames = made.counter(
            "gateway_bulk_frames", "Frames of those videos that were analysed in this run."
        )
        self._seconds = made.counter(
            "gateway_bulk_video_seconds", "Time that workers spent on those videos, in seconds.", ("state",)
        )
        self._left = made.gauge(
            "gateway_bulk_videos_left",
            "Videos that have no result yet; NaN until they are counted.",
            "livesum",
        )
        self._left.set(math.nan)

    def add(self, state: str, frames: int, seconds: float) -> None:
        """Count one video; `frames` are those that were analysed now."""
        self._videos.labels(state).inc()
        self._frames.inc(frames)
        self._seconds.labels(state).inc(seconds)

    def set_left(self, videos: int) -> None:
        """Set the number of videos that have no result yet."""
        self._left.set(videos)

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[None]:
        """Context manager that serves the metrics at `/metrics`.

        Raises:
            OSError: the address can't be listened on.
        """
        server, thread = start_http_server(port, host, self.registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
