"""Sums and the table of the benchmark of several gateways and Tritons, and the model that sleeps."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scaling.__main__ import table
from benchmarks.scaling.services import BRANCH, LEASES, SERVICE_S, Capacity, sleeping


def test_the_limit_grows_with_gateways_and_tritons() -> None:
    """The model's limit is the product of both, times one gateway's runs in flight on one Triton."""
    assert Capacity(1, 1).per_s == LEASES / SERVICE_S
    assert Capacity(3, 2).per_s == 6 * Capacity(1, 1).per_s


def test_a_row_of_the_table_has_the_ratio_to_linear() -> None:
    """Each row of figures is a row of Markdown."""
    row = {"tritons": 2, "gateways": 3, "per_s": 43.21, "capacity_per_s": 48.0, "of_linear": 0.949}
    assert table([row]).splitlines()[-1] == "| 2 | 3 | 43.2 | 48 | 0.95 |"


def test_the_model_that_sleeps_runs_as_many_requests_as_told(tmp_path: Path) -> None:
    """Its configuration asks for Triton's Python backend and so many instances."""
    text = (sleeping(tmp_path, 6) / BRANCH / "config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "python"' in text
    assert "count: 6" in text
    assert not (tmp_path / BRANCH / "1" / "model.onnx").exists()
