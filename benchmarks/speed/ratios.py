"""From rounds to medians and ratios, and whether two runs' ratios differ by more than their noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# The figures that ratios are made of, and whether more is better for the first of the two.
HIGHER_IS_BETTER = {"rate": True, "cpu_ms": False, "p50_alone_ms": False}
# Two runs on a shared machine differ so much even when the rounds of each happen to agree.
FLOOR = 0.15
SIGMAS = 3.0
# A normal distribution's deviation by its median absolute deviation, and its median's error by its mean's.
_DEVIATION, _MEDIAN = 1.4826, 1.2533
Rounds = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]
Ratio = Mapping[str, float]


def medians(rounds: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median over the rounds of every target, case and figure."""
    return {
        target: {
            case: {figure: rounded(statistics.median(row[figure] for row in rows)) for figure in rows[0]}
            for case, rows in cases.items()
            if rows
        }
        for target, cases in rounds.items()
    }


def ratios(rounds: Rounds, of: str, to: str, figure: str = "rate") -> dict[str, dict[str, float]]:
    """Divide `of` by `to` in every case that both have, round by round: a slow round slows both."""
    return _by_round(rounds, of, to, lambda row, other: row[figure] / other[figure])


def differences(rounds: Rounds, of: str, to: str, figure: str) -> dict[str, dict[str, float]]:
    """Like `ratios`, but `of` minus `to`."""
    return _by_round(rounds, of, to, lambda row, other: row[figure] - other[figure])


def _by_round(
    rounds: Rounds, of: str, to: str, combine: Callable[[Mapping[str, float], Mapping[str, float]], float]
) -> dict[str, dict[str, float]]:
    found = {}
    for case, rows in rounds.get(of, {}).items():
        others = rounds.get(to, {}).get(case, ())
        values = [combine(row, other) for row, other in zip(rows, others, strict=False)]
        if values:
            found[case] = spread(values)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, greatest, and `noise`: the median's standard error, as a part of it.

    From the median absolute deviation, so that one round in which the machine stood still doesn't count.
    """
    median = statistics.median(values)
    deviation = _DEVIATION * statistics.median(abs(value - median) for value in values)
    noise = _MEDIAN * deviation / math.sqrt(len(values)) / abs(median) if median else 0.0
    return {
        "median": rounded(median),
        "least": rounded(min(values)),
        "greatest": rounded(max(values)),
        "noise": rounded(noise),
    }


def allowed(before: Ratio, after: Ratio, floor: float = FLOOR) -> float:
    """Return how far two runs' medians may differ by chance, as a fraction."""
    return max(floor, SIGMAS * math.hypot(before["noise"], after["noise"]))


def is_worse(before: Ratio, after: Ratio, floor: float = FLOOR, *, higher_is_better: bool) -> bool:
    """Return whether a ratio went in the wrong direction by more than is allowed."""
    change = after["median"] / before["median"]
    if not higher_is_better:
        change = 1 / change
    return change < 1 - allowed(before, after, floor)


def worse(committed: Mapping[str, Any], fresh: Mapping[str, Any], floor: float = FLOOR) -> list[str]:
    """Sentences about what got worse; empty: nothing.

    Both are `{pair: {figure: {case: ratio}}}`; what stands in one of them alone isn't compared.
    """
    return [
        f"{case}: {figure} {pair} is {spread_text(after)}, committed is {spread_text(before)}, "
        f"noise allows {allowed(before, after, floor):.0%}"
        for pair, figure, case, before, after in _both(committed, fresh)
        if is_worse(before, after, floor, higher_is_better=HIGHER_IS_BETTER[figure])
    ]


def compared(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> int:
    """Return the number of ratios that both runs have."""
    return len(_both(committed, fresh))


def _both(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[tuple[str, str, str, Ratio, Ratio]]:
    return [
        (pair, figure, case, before, fresh[pair][figure][case])
        for pair, figures in committed.items()
        for figure, cases in figures.items()
        for case, before in cases.items()
        if case in fresh.get(pair, {}).get(figure, {})
    ]


def spread_text(ratio: Ratio) -> str:
    """Median, with the least and the greatest."""
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})"


def rounded(value: float) -> float:
    """Four digits: more were never measured."""
    return float(f"{value:.4g}")
