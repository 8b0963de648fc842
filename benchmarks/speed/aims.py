"""The targets of the gateway's speed, and the rows that say which of them a run reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.common.cases import MAIN
from benchmarks.speed.ratios import spread_text


@dataclass(frozen=True, slots=True)
class Aim:
    """A ratio of two targets' figures in one case; `most`: it should be at most that, not at least."""

    pair: str
    case: str
    value: float
    figure: str = "rate"
    most: bool = False

    def row(self, found: dict[str, Any]) -> str | None:
        """A line of the table; None: not measured."""
        source = found["added_ms"] if self.figure == "added_ms" else found["ratios"]
        ratio = source.get(self.pair, {})
        ratio = (
            ratio.get(self.case) if self.figure == "added_ms" else ratio.get(self.figure, {}).get(self.case)
        )
        if ratio is None:
            return None
        return _line(
            f"{_FIGURES[self.figure]}, {self.pair}, {self.case}", self, ratio["median"], spread_text(ratio)
        )


_FIGURES = {
    "rate": "requests/s",
    "cpu_ms": "CPU per request",
    "added_ms": "p50 with one request in flight, difference in ms",
}
_DENSE = [case for case in MAIN if not case.startswith("detect")]
AIMS = (
    Aim("ours / bare", "detect_640x480", 0.88),
    Aim("ours / bare", "detect_1080p", 0.93),
    *(Aim("ours / bare", case, 0.93) for case in _DENSE),
    *(Aim("ours / limit", case, 0.78) for case in _DENSE),
    Aim("ours / plain", "detect_640x480", 6.4),
    Aim("ours / plain", "detect_1080p", 5.0),
    Aim("ours / plain", "depth_640x480", 1.7),
    Aim("ours / plain", "depth_1080p", 1.8),
    Aim("ours_scaled / plain", "depth_1080p", 2.3),
    Aim("ours / plain", "clip_image_640x480", 2.5),
    Aim("ours / plain", "clip_image_1080p", 3.0),
    Aim("ours / bare", "detect_640x480", 0.5, "added_ms", most=True),
    Aim("ours / bare", "detect_640x480", 1.2, "cpu_ms", most=True),
    Aim("ours / plain_tuned", "detect_640x480", 2.8),
    Aim("ours / plain_tuned", "detect_1080p", 2.5),
)
BEST_PEER = Aim("", "detect_640x480", 3.0)
JSON_CLIENT = Aim("", "", 100.0)
RESIDENT_MB = Aim("", "", 180.0, most=True)


def reached(found: dict[str, Any]) -> Iterator[str]:
    """The lines of the table of targets."""
    yield "| | target | reached | |"
    yield "|---|---|---|---|"
    yield from filter(None, (aim.row(found) for aim in AIMS))
    best = _best_peer(found)
    if best:
        name, ratio = best
        subject = f"requests/s, ours / the best other peer ({name}), {BEST_PEER.case}"
        yield _line(subject, BEST_PEER, ratio["median"], spread_text(ratio))
    old = found["json_client"]
    if old:
        text = f"{old['ratio']:.0f} ({old['call_ms']:.0f} ms against {old['ours_ms']:.1f} ms)"
        subject = "the old client's JSON call against the whole request, detect 640"
        yield _line(subject, JSON_CLIENT, old["ratio"], text)
    memory = found["memory_after"].get("ours")
    if memory:
        own, most, private = (memory[key] for key in ("without_tensors_mb", "rss_mb", "private_mb"))
        subject = "resident MB of the worker after all cases, without the tensors that it shares with Triton"
        yield _line(
            f"{subject} (with them; private)", RESIDENT_MB, own, f"{own:.0f} ({most:.0f}; {private:.0f})"
        )


def _line(subject: str, aim: Aim, value: float, text: str) -> str:
    met = value <= aim.value if aim.most else value >= aim.value
    bound = f"at most {aim.value:g}" if aim.most else f"{aim.value:g}"
    return f"| {subject} | {bound} | {text} | {'met' if met else 'missed'} |"


def _best_peer(found: dict[str, Any]) -> tuple[str, dict[str, float]] | None:
    """Return the peer closest to the gateway, apart from the plain services."""
    others = [name for name in found["peers"] if not name.startswith("plain")]
    by_name = {name: found["ratios"][f"ours / {name}"]["rate"].get(BEST_PEER.case) for name in others}
    known = {name: ratio for name, ratio in by_name.items() if ratio}
    if not known:
        return None
    name = min(known, key=lambda name: known[name]["median"])
    return name, known[name]
