"""Percentiles of a cell, and whether two runs of it differ by more than their noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_SAMPLES = 240
DRAWS = 2000
# Many cells are compared at once: at 95 % one in forty would look slower by chance alone.
INTERVAL = (0.5, 99.5)
Rounds = Sequence[Sequence[float]]


def percentiles(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 (linear between samples), mean, least and greatest, in ms; of none: nothing."""
    if not samples_ms:
        return {}
    p50, p95, p99 = np.percentile(samples_ms, (50, 95, 99))
    values = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "mean_ms": np.mean(samples_ms)}
    values |= {"min_ms": np.min(samples_ms), "max_ms": np.max(samples_ms)}
    return {name: round(float(value), 4) for name, value in values.items()}


def thinned(rounds: Rounds) -> list[list[float]]:
    """At most `KEPT_SAMPLES` samples, every k-th of each round, at four digits: enough for a later comparison."""
    total = sum(len(samples) for samples in rounds)
    step = -(-total // KEPT_SAMPLES) or 1
    return [[float(f"{value:.4g}") for value in samples[::step]] for samples in rounds]


def ratio_of_medians(old: Rounds, new: Rounds, seed: int = 0) -> tuple[float, float, float]:
    """`median(new) / median(old)` and its 99 % interval by bootstrap.

    Rounds are drawn first and then samples within them: on a shared machine the samples of one round are slow
    together, and drawing samples alone would take that for certainty.
    """
    random = np.random.default_rng(seed)
    ratio = float(np.median(_flat(new)) / np.median(_flat(old)))
    draws = _drawn_medians(new, random) / _drawn_medians(old, random)
    low, high = np.percentile(draws, INTERVAL)
    return ratio, float(low), float(high)


def verdict(low: float, high: float, tolerance: float) -> str:
    """`slower` or `faster` when the whole interval is beyond the tolerance, `same` when it is within, else `unsure`."""
    if low > 1 + tolerance:
        return "slower"
    if high < 1 / (1 + tolerance):
        return "faster"
    return "same" if high <= 1 + tolerance and low >= 1 / (1 + tolerance) else "unsure"


def compare(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], tolerance: float
) -> list[dict[str, Any]]:
    """A verdict for every cell of either run, worst first. `broken` is ok before and an error now; `mended`, the
    reverse; `gone` and `new` stand in one run alone.
    """
    before, after = ({key_of(row): row for row in rows} for rows in (old, new))
    rows = [
        {
            "branch": key[0],
            "policy": key[1],
            "target": key[2],
            **_compared(before.get(key), after.get(key), tolerance),
        }
        for key in {**before, **after}
    ]
    return sorted(rows, key=lambda row: (_ORDER.index(row["verdict"]), -row.get("ratio", 0)))


_ORDER = ("broken", "slower", "unsure", "gone", "new", "mended", "same", "faster", "error")
REGRESSIONS = ("broken", "slower")


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["branch"], row["policy"], row["target"]


def _compared(old: dict[str, Any] | None, new: dict[str, Any] | None, tolerance: float) -> dict[str, Any]:
    if old is None or new is None:
        return {"verdict": "new" if old is None else "gone"}
    ok = old["status"] == "ok", new["status"] == "ok"
    if not all(ok):
        found = {(True, False): "broken", (False, True): "mended"}.get(ok, "error")
        return {"verdict": found, "code": new.get("code") or old.get("code")}
    ratio, low, high = ratio_of_medians(old["samples_ms"], new["samples_ms"])
    return {
        "verdict": verdict(low, high, tolerance),
        "ratio": round(ratio, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "old_p50_ms": old["p50_ms"],
        "new_p50_ms": new["p50_ms"],
    }


def _flat(rounds: Rounds) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(samples, np.float64) for samples in rounds if len(samples)])


def _drawn_medians(rounds: Rounds, random: np.random.Generator) -> NDArray[np.float64]:
    """`[DRAWS]`: as many rounds as there are, drawn with replacement; of each as many samples as the longest has."""
    filled = [np.asarray(samples, np.float64) for samples in rounds if len(samples)]
    lengths = np.array([len(samples) for samples in filled])
    padded = np.zeros((len(filled), lengths.max()))
    for at, samples in enumerate(filled):
        padded[at, : len(samples)] = samples
    chosen = random.integers(len(filled), size=(DRAWS, len(filled)))  # [draws, rounds]
    places = (
        random.random((*chosen.shape, lengths.max())) * lengths[chosen][:, :, None]
    )  # [draws, rounds, samples]
    drawn = padded[chosen[:, :, None], places.astype(np.int64)]
    return np.asarray(np.median(drawn.reshape(DRAWS, -1), axis=1))
