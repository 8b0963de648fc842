"""Choice of frames and their times."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidParameter
from app.media.video.sampling import Choice, Sampler, Sampling

MP4 = Fraction(1, 90_000)
MS = Fraction(1, 1000)


def chosen(sampling: Sampling, times: list[Fraction], tick: Fraction = MP4) -> list[int]:
    """The numbers of the frames that are taken."""
    sampler = Sampler(sampling, tick)
    taken = []
    for number, time in enumerate(times):
        choice = sampler.choose(time, number)
        if choice is Choice.END:
            break
        if choice is Choice.TAKE:
            taken.append(number)
    return taken


def rate(frames: int, fps: float, tick: Fraction | None = None) -> list[Fraction]:
    """Times of a constant rate, rounded to a container's clock."""
    times = [number / Fraction(fps).limit_denominator(1001) for number in range(frames)]
    return times if tick is None else [round(time / tick) * tick for time in times]


VFR = [Fraction(t, 100) for t in (0, 4, 8, 50, 52, 54, 130, 131, 190, 400, 404, 405)]


@pytest.mark.parametrize(
    ("sampling", "times", "tick", "expected"),
    [
        (Sampling(), rate(5, 25), MP4, [0, 1, 2, 3, 4]),
        (Sampling(every=1), rate(5, 25), MP4, [0, 1, 2, 3, 4]),
        (Sampling(every=3), rate(10, 25), MP4, [0, 3, 6, 9]),
        (Sampling(fps=5), rate(25, 25), MP4, [0, 5, 10, 15, 20]),
        (Sampling(fps=10), rate(13, 30), MP4, [0, 3, 6, 9, 12]),
        (Sampling(fps=10), rate(12, 25), MP4, [0, 3, 5, 8, 10]),
        (Sampling(fps=25), rate(5, 25), MP4, [0, 1, 2, 3, 4]),
        (Sampling(fps=100), rate(5, 25), MP4, [0, 1, 2, 3, 4]),
        (Sampling(fps=29.97), rate(5, 29.97), MP4, [0, 1, 2, 3, 4]),
        # 24 frames a second in Matroska stand at 0, 42, 83, 125, 167 ms; half of them is every second one
        (Sampling(fps=12), rate(9, 24, MS), MS, [0, 2, 4, 6, 8]),
        (Sampling(fps=8), rate(13, 24, MS), MS, [0, 3, 6, 9, 12]),
        (Sampling(fps=0.5), rate(150, 25), MP4, [0, 50, 100]),
        (Sampling(start_s=0.1), rate(6, 25), MP4, [3, 4, 5]),
        (Sampling(start_s=0.12), rate(6, 25), MP4, [3, 4, 5]),
        (Sampling(end_s=0.12), rate(6, 25), MP4, [0, 1, 2]),
        (Sampling(end_s=0.121), rate(6, 25), MP4, [0, 1, 2, 3]),
        (Sampling(start_s=0.08, end_s=0.16), rate(6, 25), MP4, [2, 3]),
        (Sampling(every=2, start_s=0.04), rate(6, 25), MP4, [1, 3, 5]),
        (Sampling(fps=5, start_s=0.5), rate(30, 25), MP4, [13, 18, 23, 28]),
        (Sampling(fps=5, start_s=0.08, end_s=0.5), rate(30, 25), MP4, [2, 7, 12]),
        (Sampling(start_s=9), rate(5, 25), MP4, []),
        # cells of one second hold 0-54, 130-190, nothing, nothing, 400-405
        (Sampling(fps=1), VFR, MP4, [0, 6, 9]),
        (Sampling(fps=2), VFR, MP4, [0, 3, 6, 8, 9]),
        (Sampling(fps=1, start_s=0.5), VFR, MP4, [3, 8, 9]),
        (Sampling(every=5), VFR, MP4, [0, 5, 10]),
        (Sampling(start_s=1.31, end_s=4.04), VFR, MP4, [7, 8, 9]),
    ],
)
def test_the_frames_of_a_table(
    sampling: Sampling, times: list[Fraction], tick: Fraction, expected: list[int]
) -> None:
    """Rates, strides and ranges choose these frames, at constant and variable frame rates."""
    assert chosen(sampling, times, tick) == expected


@given(
    gaps=st.lists(st.integers(0, 200_000), min_size=1, max_size=60),
    fps=st.integers(1, 60),
    start=st.integers(0, 5),
)
def test_a_rate_is_never_exceeded_and_never_missed(gaps: list[int], fps: int, start: int) -> None:
    """Each cell of 1/fps seconds gives one frame if it has any, and never two."""
    times = [sum(gaps[: n + 1], 0) * MP4 for n in range(len(gaps))]
    taken = [times[n] for n in chosen(Sampling(fps=fps, start_s=start), times)]
    early = MP4 * Fraction(999, 1000)  # a time counts as reached less than one tick early
    cells = [(time + early - start) * fps // 1 for time in taken]
    assert cells == sorted(set(cells))
    assert set(cells) == {
        (time + early - start) * fps // 1 for time in times if time + early >= start or start == 0
    }


@given(gaps=st.lists(st.integers(1, 9000), min_size=1, max_size=60), at=st.integers(1, 30))
def test_ranges_side_by_side_share_nothing_and_lose_nothing(gaps: list[int], at: int) -> None:
    """A range begins after the last frame of the one before it: end is exclusive by the same measure as start."""
    times = [sum(gaps[: n + 1], 0) * MP4 for n in range(len(gaps))]
    cut = at / 10
    both = chosen(Sampling(end_s=cut), times) + chosen(Sampling(start_s=cut), times)
    assert both == list(range(len(times)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fps": 1.0, "every": 2}, "exclude"),
        ({"fps": 0.0}, "fps"),
        ({"fps": -1.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"every": 0}, "every"),
        ({"start_s": -0.1}, "start"),
        ({"start_s": float("inf")}, "start"),
        ({"end_s": 0.0}, "end"),
        ({"start_s": 2.0, "end_s": 2.0}, "end"),
        ({"end_s": float("nan")}, "end"),
        ({"every": 10**30}, "every"),
        ({"every": 10**5000}, "every"),
        ({"every": 10**9 + 1}, "every"),
        ({"fps": 1e-5}, "fps"),
        ({"fps": 1001.0}, "fps"),
        ({"start_s": 1.1e9}, "start"),
        ({"end_s": 1e300}, "end"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, float], said: str) -> None:
    """Contradictions and values out of range are named."""
    with pytest.raises(InvalidParameter, match=said):
        Sampling(**fields)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("sampling", "duration", "fps", "expected"),
    [
        (Sampling(), 10.0, 25.0, 250),
        (Sampling(fps=2), 10.0, 25.0, 20),
        (Sampling(fps=50), 10.0, 25.0, 250),
        (Sampling(fps=2), 10.0, None, 20),
        (Sampling(every=10), 10.0, 25.0, 25),
        (Sampling(start_s=8), 10.0, 25.0, 50),
        (Sampling(end_s=2), 10.0, 25.0, 50),
        (Sampling(end_s=2), None, 25.0, 50),
        (Sampling(start_s=20), 10.0, 25.0, 0),
        (Sampling(), None, 25.0, 0),
        (Sampling(), 10.0, None, 0),
        (Sampling(keyframes=True), 10.0, 25.0, 0),
    ],
)
def test_how_many_frames_to_expect(
    sampling: Sampling, duration: float | None, fps: float | None, expected: int
) -> None:
    """A header's duration and rate tell the number before any work is done; 0 where they don't."""
    assert sampling.expected(duration, fps) == expected
