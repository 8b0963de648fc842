"""A run's figures as tables: for the terminal, and for `docs/benchmarks/speed.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.common.cases import CASES
from benchmarks.speed.aims import reached
from benchmarks.speed.peers import PEERS
from benchmarks.speed.ratios import spread_text

TITLES = {
    "limit": "the limit: a plain loop without HTTP (`limit.py`)",
    "bare": "the same loop behind a minimal ASGI app (`bare_asgi.py`)",
    "ours": "**the gateway** with defaults",
    "ours_two": "the gateway with `--workers 2` (`ours_two`)",
    "ours_scaled": "the gateway with `GATEWAY_SCALED_JPEG=true` (`ours_scaled`)",
}
_COMMON = """
The models compute next to nothing (`null_models.py`: the catalogue's contracts, ten boxes per picture), and a real
Triton on the same machine serves them. The figures therefore differ only by the code between the socket and Triton.
Requests/s and CPU time are measured with four requests in flight, p50 with one. Rounds are interleaved. Ratios are
computed per round and given as median (least to greatest). Absolute figures depend on the machine.

The limit and the bare app use the filter of the family's reference processor, as the gateway does, and the fastest code
for pixels and boxes that we know (`common/squares.py`). They also keep the pages of freed memory. They have no routing,
limits, metrics, provenance or error handling. Both are one process, as the gateway is by default. Pictures are JPEGs of
quality 85. Maps are answered in the branch's size (`size=branch`), as by the peers, except in the cases whose names end
in `_source`.
"""
HEADS = {
    "speed": f"""\
# Speed

`make bench-speed` writes this page. [speed.json](speed.json) has every figure of every round. `make bench-sizes`
measures every family at more sizes and writes `sizes.md`.
{_COMMON}
Peers follow their own documentation (`benchmarks/peers/`), send tensors as bytes, and return the same boxes, maps and
numbers. The plain service fits pictures with Pillow: detection and depth with the bilinear filter that most such
services use, embeddings with the reference's bicubic one. `plain_bicubic` uses the reference's filter for depth, too.
""",
    "sizes": f"""\
# Speed by family and size

`make bench-sizes` writes this page. [sizes.json](sizes.json) has every figure of every round; [speed.md](speed.md) has
the targets and more peers.
{_COMMON}""",
}
PAGES = tuple(HEADS)


def terminal(found: dict[str, Any]) -> str:
    """Medians, then ratios."""
    lines = [f"{'':24}{'target':14}{'requests/s':>11}{'p50 alone ms':>14}{'CPU ms':>9}{'RSS MB':>8}"]
    for case in CASES:
        lines += [
            f"{case:24}{target:14}{row['rate']:11.1f}{row['p50_alone_ms']:14.2f}{row['cpu_ms']:9.2f}{row['rss_mb']:8.0f}"
            for target, row in _rows(found, case)
        ]
    for pair, by_figure in found["ratios"].items():
        for case, ratio in by_figure["rate"].items():
            lines.append(f"{case:24}{pair:24}{spread_text(ratio)}")
    lines += [f"{name}: {why}" for name, why in found["missing"].items()]
    return "\n".join(lines)


def markdown(found: dict[str, Any], page: str = "speed") -> str:
    """The whole of a page."""
    parts = [HEADS[page], _where(found["environment"]), "## Overview\n", *_overview(found)]
    if page == "speed":
        parts += ["", "## Reached\n", *reached(found)]
    for case in CASES:
        rows = list(_rows(found, case))
        if rows:
            parts += ["", f"## {_title(case)}\n", _filter(found, case), *_case(found, case)]
    if found["missing"]:
        parts += ["", "Not measured:\n", *(f"- {name}: {why}" for name, why in found["missing"].items())]
    return "\n".join(parts) + "\n"


_COLUMNS = ("bare / limit", "ours / limit", "ours / bare", "ours / plain")


def _overview(found: dict[str, Any]) -> Iterator[str]:
    """One row per case: medians of the ratios, CPU per request."""
    titles = ("limit, requests/s", "bare / limit", "gateway / limit", "gateway / bare", "gateway / plain")
    yield f"| | {' | '.join(titles)} | CPU ms: gateway (limit, bare, plain) |"
    yield "|---|---|---|---|---|---|---|"
    medians = found["medians"]
    for case in CASES:
        if case not in medians.get("ours", {}):
            continue
        rate = medians.get("limit", {}).get(case, {}).get("rate")
        ratios = [found["ratios"].get(pair, {}).get("rate", {}).get(case) for pair in _COLUMNS]
        cpu = [
            medians.get(name, {}).get(case, {}).get("cpu_ms") for name in ("ours", "limit", "bare", "plain")
        ]
        own, *others = [f"{value:.1f}" if value else "-" for value in cpu]
        cells = [f"{ratio['median']:.2f}" if ratio else "" for ratio in ratios]
        yield f"| {case} | {f'{rate:.0f}' if rate else ''} | {' | '.join(cells)} | {own} ({', '.join(others)}) |"


def _filter(found: dict[str, Any], case: str) -> str:
    family = CASES[case].family
    by = (
        ""
        if family == "detect"
        else f"; limit and bare app: {found['resized_by']} {found['environment'][found['resized_by']]}"
    )
    return f"Filter: {found['filters'][family]}{by}.\n"


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
        "pillow",
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
            f"| {_what(found, target)} | {row['rate']:.0f} | {spread_text(ratio) if ratio else ''} | "
            f"{row['p50_alone_ms']:.2f} | {row['cpu_ms']:.2f} | {row['rss_mb']:.0f} ({row['private_mb']:.0f}) |"
        )


def _what(found: dict[str, Any], target: str) -> str:
    if target in TITLES:
        return TITLES[target]
    known = ", ".join(f"{name} {number}" for name, number in found["peers"][target]["versions"].items())
    return f"{PEERS[target].what} ({known})"
