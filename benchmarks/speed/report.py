"""A run's figures as tables: for the terminal, and for `docs/benchmarks/speed.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.common.cases import CASES, MAIN
from benchmarks.speed.peers import PEERS

# What is aimed at: how much of the limit, and how many times a peer's throughput, in each of the main cases.
TARGETS: dict[str, tuple[float, ...]] = {
    "ours / limit": (0.82, 0.87, 0.70),
    "ours / plain": (5.5, 4.0, 2.0),
    "ours / plain_tuned": (2.8, 2.5, 1.8),
    "ours_two / limit": (0.82, 0.87, 0.70),
    "ours_two / plain_tuned": (2.8, 2.5, 1.8),
}
BEST_PEER, ADDED_MS, JSON_CLIENT, RSS_MB = 3.0, 1.0, 100.0, 200.0
CPU_MS = {"detect_640x480": 3.0, "detect_1080p": 7.0}
TITLES = {
    "limit": "the limit: a plain loop without HTTP (`limit.py`)",
    "bare": "the same loop behind a minimal ASGI app (`bare_asgi.py`)",
    "ours": "**the gateway** with defaults",
    "ours_two": "the gateway with `--workers 2` (`ours_two`)",
}
HEAD = """\
# Speed

`make bench-speed` writes this page. [speed.json](speed.json) has every figure of every round. The models compute
next to nothing (`null_models.py`: the catalogue's contracts, ten boxes per picture), and a real Triton on the same
machine serves them. The figures therefore differ only by the code between the socket and Triton. Requests/s and CPU
time are measured with four requests in flight, p50 with one. Rounds are interleaved. Ratios are computed per round
and given as median (least to greatest). Absolute figures depend on the machine.

The limit and the bare app process pixels and boxes as the gateway does, but have no routing, limits, metrics,
provenance or error handling. Both are one process, as the gateway is by default. Peers follow their own
documentation (`benchmarks/peers/`), send tensors as bytes, and return the same boxes and maps.
"""


def terminal(found: dict[str, Any]) -> str:
    """Medians, then ratios."""
    lines = [f"{'':16}{'target':12}{'requests/s':>11}{'p50 alone ms':>14}{'CPU ms':>9}{'RSS MB':>8}"]
    for case in CASES:
        lines += [
            f"{case:16}{target:12}{row['rate']:11.1f}{row['p50_alone_ms']:14.2f}{row['cpu_ms']:9.2f}{row['rss_mb']:8.0f}"
            for target, row in _rows(found, case)
        ]
    for pair, by_figure in found["ratios"].items():
        for case, ratio in by_figure["rate"].items():
            lines.append(f"{case:16}{pair:20}{_ratio(ratio)}")
    lines += [f"{name}: {why}" for name, why in found["missing"].items()]
    return "\n".join(lines)


def markdown(found: dict[str, Any]) -> str:
    """The whole of speed.md."""
    parts = [HEAD, _where(found["environment"]), "## Reached\n", *_reached(found)]
    for case in CASES:
        rows = list(_rows(found, case))
        if rows:
            parts += ["", f"## {_title(case)}\n", *_case(found, case)]
    if found["missing"]:
        parts += ["", "Not measured:\n", *(f"- {name}: {why}" for name, why in found["missing"].items())]
    return "\n".join(parts) + "\n"


def _where(at: dict[str, Any]) -> str:
    gateway = (
        "numpy",
        "grpcio",
        "fastapi",
        "starlette",
        "uvicorn",
        "uvloop",
        "httptools",
        "orjson",
        "simplejpeg",
    )
    packages = ", ".join(f"{name} {at[name]}" for name in gateway if at.get(name))
    return (
        f"{at['cpu']}, {at['cpu_count']} cores, {at['system']}, Python {at['python']}, Triton {at['triton']}, "
        f"load average at the end {at['load_average'][0]:.1f}; {packages}.\n"
    )


def _title(case: str) -> str:
    at = CASES[case]
    frames = "two JPEGs" if at.parts else "a JPEG"
    return f"`{case}`: {frames} of {at.width}x{at.height} to {'npy' if 'npy' in at.accept else 'JSON'}, {at.branch}"


def _rows(found: dict[str, Any], case: str) -> Iterator[tuple[str, dict[str, float]]]:
    for target, cases in found["medians"].items():
        if case in cases:
            yield target, cases[case]


def _case(found: dict[str, Any], case: str) -> Iterator[str]:
    yield "| | requests/s | gateway / this | p50 alone, ms | CPU per request, ms | resident MB (private) |"
    yield "|---|---|---|---|---|---|"
    for target, row in _rows(found, case):
        ratio = found["ratios"].get(f"ours / {target}", {}).get("rate", {}).get(case)
        yield (
            f"| {_what(found, target)} | {row['rate']:.0f} | {_ratio(ratio) if ratio else ''} | "
            f"{row['p50_alone_ms']:.2f} | {row['cpu_ms']:.2f} | {row['rss_mb']:.0f} ({row['private_mb']:.0f}) |"
        )


def _what(found: dict[str, Any], target: str) -> str:
    if target in TITLES:
        return TITLES[target]
    known = ", ".join(f"{name} {number}" for name, number in found["peers"][target]["versions"].items())
    return f"{PEERS[target].what} ({known})"


def _reached(found: dict[str, Any]) -> Iterator[str]:
    yield "| | target | reached |"
    yield "|---|---|---|"
    for pair, aims in TARGETS.items():
        for case, aim in zip(MAIN, aims, strict=True):
            ratio = found["ratios"].get(pair, {}).get("rate", {}).get(case)
            if ratio:
                yield f"| requests/s, {pair}, {case} | {aim:g} | {_ratio(ratio)} |"
    case, best = MAIN[0], _best_peer(found)
    if best:
        name, ratio = best
        yield f"| requests/s, ours / the best other peer ({name}), {case} | {BEST_PEER:g} | {_ratio(ratio)} |"
    added = found["added_ms"].get(case)
    if added:
        yield f"| added by the gateway to the limit's p50, {case}, ms | at most {ADDED_MS:g} | {_ratio(added)} |"
    for case, most in CPU_MS.items():
        row = found["medians"]["ours"].get(case)
        if row:
            yield f"| CPU per request, {case}, ms | at most {most:g} | {row['cpu_ms']:.2f} |"
    if found["json_client"]:
        old = found["json_client"]
        reached = f"{old['ratio']:.0f} ({old['call_ms']:.0f} ms against {old['ours_ms']:.1f} ms)"
        yield f"| the old client's JSON call against the whole request, detect 640 | {JSON_CLIENT:g} | {reached} |"
    rows = found["medians"]["ours"].values()
    keys = ("without_tensors_mb", "rss_mb", "private_mb")
    own, most, private = (max(row[key] for row in rows) for key in keys)
    yield (
        "| resident MB of the worker after all cases, without the tensors that it shares with Triton "
        f"(with them; private) | at most {RSS_MB:g} | {own:.0f} ({most:.0f}; {private:.0f}) |"
    )


def _best_peer(found: dict[str, Any]) -> tuple[str, dict[str, float]] | None:
    """Return the peer closest to the gateway, apart from the plain service."""
    others = [name for name in found["peers"] if not name.startswith("plain")]
    by_name = {name: found["ratios"][f"ours / {name}"]["rate"].get(MAIN[0]) for name in others}
    known = {name: ratio for name, ratio in by_name.items() if ratio}
    if not known:
        return None
    name = min(known, key=lambda name: known[name]["median"])
    return name, known[name]


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})"
