"""A request's way through the service stays short: project files, Python calls."""

from __future__ import annotations

from pathlib import Path

from app.settings import Settings
from benchmarks.speed import calls

# Measured on the embedded engine: 23 files, 333 calls, 373 of builtins. The models of this test find more than 32
# boxes, whose overlaps `app.vision.boxes` computes. A few calls may come with another Python or library.
MOST_FILES, MOST_CALLS, MOST_BUILTINS = 24, 365, 410


def test_a_detection_takes_a_short_way(repository: Path) -> None:
    """One JPEG runs few files of the project and few calls; who adds a step sees it here."""
    settings = Settings(
        repository=repository, manifest=None, variant="n", embedded_threads=1, videos_folder=None, port=0
    )
    count = calls.counted(settings, "/v1/detect", calls.picture())
    assert len(count.files) <= MOST_FILES, sorted(count.files)
    assert count.total <= MOST_CALLS, count.calls.most_common(40)
    assert count.builtins <= MOST_BUILTINS
