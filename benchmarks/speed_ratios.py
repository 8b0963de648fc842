"""From rounds to medians and ratios, and whether two runs' ratios differ by more than their noise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# By what two targets' figures are divided so that more is better for the first of them.
HIGHER_IS_BETTER = {"rate": True, "cpu_ms": False, "p50_alone_ms": False}
# Medians of a few short rounds on a shared machine vary so much even when their rounds happen to agree.
NOISE_FLOOR = 0.10
Rounds = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


def medians(rounds: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """Of every target, case and figure, the median over its rounds."""
    return {
        target: {
            case: {figure: _rounded(statistics.median(row[figure] for row in rows)) for figure in rows[0]}
            for case, rows in cases.items()
            if rows
        }
        for target, cases in rounds.items()
    }


def ratios(rounds: Rounds, of: str, to: str, figure: str = "rate") -> dict[str, dict[str, float]]:
    """`of` against `to` in every case that both have: median, least and greatest of the rounds' own ratios.

    Rounds are compared one by one: what slowed the machine in a round slowed both.
    """
    found = {}
    for case, rows in rounds.get(of, {}).items():
        others = rounds.get(to, {}).get(case, ())
        values = [row[figure] / other[figure] for row, other in zip(rows, others, strict=False)]
        if values:
            found[case] = {
                "median": _rounded(statistics.median(values)),
                "least": _rounded(min(values)),
                "greatest": _rounded(max(values)),
            }
    return found


def noise(ratio: Mapping[str, float]) -> float:
    """How far a run's median may lie from this one by chance, as a part of it: half the rounds' spread, or the floor."""
    return max(NOISE_FLOOR, (ratio["greatest"] - ratio["least"]) / 2 / ratio["median"])


def worse(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Sentences about what got worse beyond the noise of both runs; empty: nothing.

    Both are `{pair: {figure: {case: ratio}}}`; what stands in one of them alone isn't compared.
    """
    faults = []
    for pair, figures in committed.items():
        for figure, cases in figures.items():
            for case, before in cases.items():
                after = fresh.get(pair, {}).get(figure, {}).get(case)
                if after is not None and is_worse(before, after, better_is_higher=HIGHER_IS_BETTER[figure]):
                    faults.append(
                        f"{case}: {figure} {pair} is {after['median']:.2f} "
                        f"({after['least']:.2f} to {after['greatest']:.2f}), "
                        f"committed {before['median']:.2f} ({before['least']:.2f} to {before['greatest']:.2f})"
                    )
    return faults


def is_worse(before: Mapping[str, float], after: Mapping[str, float], *, better_is_higher: bool) -> bool:
    """Whether the change of a ratio's median goes in the wrong direction and beyond the greater noise."""
    change = after["median"] / before["median"]
    if not better_is_higher:
        change = 1 / change
    return change < 1 - max(noise(before), noise(after))


def compared(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> int:
    """How many ratios both runs have."""
    return sum(
        case in fresh.get(pair, {}).get(figure, {})
        for pair, figures in committed.items()
        for figure, cases in figures.items()
        for case in cases
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
