"""Percentiles, and verdicts that know noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.matrix.plan import policies, targets
from benchmarks.matrix.statistics import compare, percentiles, ratio_of_medians, thinned, verdict


def rounds(centre: float, noise: float, seed: int, *, count: int = 3, each: int = 10) -> list[list[float]]:
    """Samples around `centre`; `noise` is the standard deviation of the rounds' means and of their samples."""
    random = np.random.default_rng(seed)
    means = centre * (1 + noise * random.standard_normal(count))
    return [list(mean * (1 + noise * random.standard_normal(each))) for mean in means]


def row(samples: list[list[float]] | None, **fields: Any) -> dict[str, Any]:
    base = {"branch": "b", "policy": "seq", "target": "t", "status": "ok", "code": None}
    if samples is None:
        return {**base, "status": "error", "code": "insufficient_gpu_memory", **fields}
    return {**base, "samples_ms": samples, **percentiles([v for part in samples for v in part]), **fields}


def test_percentiles_of_known_numbers() -> None:
    """The numbers 0 to 100 are their own percentiles; an empty list has none."""
    found = percentiles([float(value) for value in range(101)])
    assert (found["p50_ms"], found["p95_ms"], found["p99_ms"]) == (50, 95, 99)
    assert (found["mean_ms"], found["min_ms"], found["max_ms"]) == (50, 0, 100)
    assert percentiles([]) == {}


@pytest.mark.parametrize(("factor", "wanted"), [(2.0, "slower"), (0.5, "faster"), (1.0, "same")])
def test_a_clear_difference_is_seen(factor: float, wanted: str) -> None:
    """Twice as slow is slower, half is faster, and the same numbers are the same, at 2 % of noise."""
    ratio, low, high = ratio_of_medians(rounds(10, 0.02, 1), rounds(10 * factor, 0.02, 2))
    assert low <= ratio <= high
    assert abs(ratio / factor - 1) < 0.1
    assert verdict(low, high, 0.1) == wanted


def test_noise_is_no_regression() -> None:
    """Two hundred pairs with 20 % of noise and no difference yield nearly no regression."""
    pairs = [ratio_of_medians(rounds(10, 0.2, seed), rounds(10, 0.2, seed + 1000)) for seed in range(200)]
    verdicts = [verdict(low, high, 0.1) for _, low, high in pairs]
    assert verdicts.count("slower") <= 4


def test_a_slow_round_is_no_certainty() -> None:
    """One round of three that was slow as a whole widens the interval: its samples don't count one by one."""
    calm = [[10.0, 10.1, 9.9] * 10] * 3
    disturbed = [[10.0, 10.1, 9.9] * 10, [30.0, 30.1, 29.9] * 10, [30.0, 30.1, 29.9] * 10]
    _, low, high = ratio_of_medians(calm, disturbed)
    assert low < 1.1 < high
    assert verdict(low, high, 0.1) == "unsure"


def test_every_kind_of_verdict() -> None:
    """Cells of one run alone, and cells whose status changed, are told; regressions stand first."""
    good, slow = rounds(10, 0.01, 1), rounds(20, 0.01, 2)
    old = [
        row(good),
        row(good, policy="c4"),
        row(None, policy="c8"),
        row(good, branch="gone"),
        row(None, branch="x"),
    ]
    new = [
        row(slow),
        row(None, policy="c4"),
        row(good, policy="c8"),
        row(good, branch="new"),
        row(None, branch="x"),
    ]
    found = {(r["branch"], r["policy"]): r["verdict"] for r in compare(old, new, 0.1)}
    assert found == {
        ("b", "seq"): "slower",
        ("b", "c4"): "broken",
        ("b", "c8"): "mended",
        ("gone", "seq"): "gone",
        ("new", "seq"): "new",
        ("x", "seq"): "error",
    }
    assert [r["verdict"] for r in compare(old, new, 0.1)][:2] == ["broken", "slower"]


def test_thinning_keeps_rounds_and_their_medians() -> None:
    """A long run keeps few samples, from every round and from all of its time."""
    kept = thinned([list(np.arange(1000.0)), list(np.arange(2000.0))])
    assert sum(map(len, kept)) <= 241
    assert abs(np.median(kept[0]) - 499.5) < 10
    assert thinned([[1.23456, 2.0]]) == [[1.235, 2.0]]


def test_policies_are_read() -> None:
    """Every form has its meaning."""
    seq, four, text, fixed, relative = policies("seq, c4, prompts29, open@2.5, open@0.8x")
    assert (seq.in_flight, four.in_flight, text.prompts) == (1, 4, 29)
    assert (fixed.rate, fixed.relative) == (2.5, False)
    assert (relative.rate, relative.relative) == (0.8, True)


@pytest.mark.parametrize(
    "name", ["", "c0", "open@", "open@0", "prompts", "c4x", "sequential", "open@-1", "open@1e3"]
)
def test_what_is_no_policy_is_refused(name: str) -> None:
    """A typo is no silent default."""
    with pytest.raises(ValueError, match="is no policy"):
        policies(f"seq,{name}")


def test_what_is_no_target_is_refused() -> None:
    """Nor is one of a target."""
    assert targets("gateway, embedded") == ["gateway", "embedded"]
    with pytest.raises(ValueError, match="triton_shmem"):
        targets("gateway,triton_shmem")
