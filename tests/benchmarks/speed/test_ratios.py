"""Ratios of interleaved rounds, and what counts as worse."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.speed.ratios import FLOOR, compared, differences, is_worse, medians, ratios, spread, worse


def _rounds(rates: list[float], limits: list[float]) -> dict[str, dict[str, list[dict[str, float]]]]:
    return {
        "ours": {"detect": [{"rate": rate, "cpu_ms": 2.0} for rate in rates]},
        "limit": {"detect": [{"rate": rate, "cpu_ms": 1.0} for rate in limits], "depth": []},
    }


def _ratio(median: float, noise: float = 0.0) -> dict[str, float]:
    return {"median": median, "least": median, "greatest": median, "noise": noise}


def test_ratios_are_made_round_by_round() -> None:
    """A round in which the machine was half as fast changes no ratio."""
    found = ratios(_rounds([80, 40, 80], [100, 50, 100]), "ours", "limit")
    assert found == {"detect": {"median": 0.8, "least": 0.8, "greatest": 0.8, "noise": 0.0}}


def test_only_cases_that_both_have_make_a_ratio() -> None:
    """A peer without an endpoint for a case has no ratio there."""
    assert ratios(_rounds([80], [100]), "ours", "nobody") == {}
    assert "depth" not in ratios(_rounds([80], [100]), "limit", "limit")


def test_differences_are_made_round_by_round() -> None:
    """Added latency is the median of the rounds' own differences."""
    assert differences(_rounds([7, 9, 8], [5, 8, 5]), "ours", "limit", "rate")["detect"]["median"] == 2


def test_medians_are_over_rounds() -> None:
    """Each figure has the median of its rounds; a case without rounds has none."""
    found = medians(_rounds([1, 5, 100], [3]))
    assert found["ours"]["detect"] == {"rate": 5, "cpu_ms": 2}
    assert found["limit"] == {"detect": {"rate": 3, "cpu_ms": 1}}


def test_one_bad_round_is_no_noise_but_scattered_ones_are() -> None:
    """Noise comes from the median absolute deviation, and less of it is left of more rounds."""
    assert spread([1.0, 1.0, 1.0, 1.0, 0.2])["noise"] == 0
    few, many = spread([0.8, 1.0, 1.2]), spread([0.8, 1.0, 1.2] * 4)
    assert few["noise"] > many["noise"] > 0


@pytest.mark.parametrize(
    ("before", "after", "higher_is_better", "expected"),
    [
        (_ratio(0.80), _ratio(0.80 * (1 - FLOOR) - 0.01), True, True),
        (_ratio(0.80), _ratio(0.80 * (1 - FLOOR) + 0.01), True, False),
        (_ratio(0.80), _ratio(1.60), True, False),
        (_ratio(1.20), _ratio(1.20 / (1 - FLOOR) + 0.01), False, True),
        (_ratio(1.20), _ratio(1.20 / (1 - FLOOR) - 0.01), False, False),
        (_ratio(1.20), _ratio(0.60), False, False),
        (_ratio(0.80, 0.1), _ratio(0.60), True, False),
        (_ratio(0.80), _ratio(0.60, 0.1), True, False),
        (_ratio(0.80, 0.02), _ratio(0.60, 0.02), True, True),
    ],
    ids=[
        "rate fell", "rate within the floor", "rate rose", "cpu rose", "cpu within the floor", "cpu fell",
        "committed noise", "fresh noise", "beyond both noises",
    ],
)  # fmt: skip
def test_worse_is_a_change_in_the_wrong_direction_beyond_the_noise(
    before: dict[str, float], after: dict[str, float], higher_is_better: bool, expected: bool
) -> None:
    """Neither what got better nor what may be chance is a fault."""
    assert is_worse(before, after, higher_is_better=higher_is_better) is expected


def test_a_fault_names_case_figure_and_both_values() -> None:
    """Whoever reads the guard's output knows what to look at; what one run lacks isn't compared."""
    committed: dict[str, Any] = {
        "ours / limit": {"rate": {"detect": _ratio(0.8), "depth": _ratio(0.7)}, "cpu_ms": {"detect": _ratio(1.2)}},
        "ours / ray": {"rate": {"detect": _ratio(9.0)}},
    }  # fmt: skip
    fresh: dict[str, Any] = {
        "ours / limit": {"rate": {"detect": _ratio(0.5)}, "cpu_ms": {"detect": _ratio(1.25)}}
    }
    assert compared(committed, fresh) == 2
    (fault,) = worse(committed, fresh)
    for part in ("detect: rate ours / limit is 0.50", "committed is 0.80", f"{FLOOR:.0%}"):
        assert part in fault
    assert worse(committed, committed) == []
