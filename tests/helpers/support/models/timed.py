"""Models of the test repository that answer the `timeout` they were given, and take as long as they are told."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

MODEL = Path(__file__).with_name("timed_model.py")
# What lets a request's own timeout end its waiting in Triton's queue.
QUEUE_POLICY = """
dynamic_batching {
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 60000000
    allow_timeout_override: true
  }
}
"""


class Timed:
    """One model of a repository that a test may change; made before the server starts."""

    def __init__(self, repository: Path, model: str, queue_policy: str = "") -> None:
        self._folder = repository / model
        shutil.copy(MODEL, self._folder / "1" / "model.py")
        config = self._folder / "config.pbtxt"
        text = re.sub('backend: "onnxruntime"', 'backend: "python"', config.read_text())
        config.write_text(re.sub("default_model_filename:.*\n", "", text) + queue_policy)
        self._begun = self._folder / "begun"
        self._begun.touch()

    @property
    def begun(self) -> int:
        """Runs that have begun so far, whatever became of them."""
        return self._begun.stat().st_size

    def takes(self, seconds: float) -> None:
        """Every run from now on."""
        fresh = self._folder / ".pause"
        fresh.write_text(str(seconds))
        fresh.rename(self._folder / "pause")

    @contextlib.contextmanager
    def held(self, what: Literal["load", "run"], after: int = 0) -> Iterator[None]:
        """Meanwhile it loads without an end, or no run of it ends but for the next `after`."""
        fresh = self._folder / f".hold_{what}"
        fresh.write_text(str(self.begun + after))
        fresh.rename(self._folder / f"hold_{what}")
        try:
            yield
        finally:
            self.release(what)

    def release(self, what: Literal["load", "run"]) -> None:
        """End that, also before the end of `held`."""
        (self._folder / f"hold_{what}").unlink(missing_ok=True)
