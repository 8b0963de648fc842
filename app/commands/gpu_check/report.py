"""The results of `gateway gpu-check`, as lines and as one document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from app.commands.gpu_check.reference import RTX_2060_MS, WHERE
from app.commands.gpu_check.runs import Run
from app.process.gpus import Gpu
from routing.units import format_size

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Alone:
    """A branch that ran without others: what it took, and the estimate for it; None: not known."""

    run: Run
    taken: int | None
    estimate: int | None


@dataclass(frozen=True, slots=True)
class Precisions:
    """One branch in single and half precision, on the same input: medians, greatest difference, and cosine."""

    name: str
    half: str
    p50_ms: float
    half_p50_ms: float
    greatest: float
    cosine: float


@dataclass(slots=True)
class Results:
    """Everything that is known so far."""

    gpus: Sequence[Gpu] = ()
    providers: Sequence[str] = ()
    engine: str = ""
    memory: int = 0
    reserve: int = 0
    missing: list[str] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)
    before: int | None = None
    together: list[Run] = field(default_factory=list)
    precisions: list[Precisions] = field(default_factory=list)

    @property
    def good(self) -> bool:
        runs = [*(row.run for row in self.alone), *self.together]
        return bool(runs) and all(run.ok for run in runs)


def document(results: Results) -> dict[str, Any]:
    """All of it, for `--json`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "engine": results.engine,
        "gpus": [asdict(gpu) for gpu in results.gpus],
        "providers": list(results.providers),
        "memory_bytes": results.memory,
        "reserve_bytes": results.reserve,
        "missing": results.missing,
        "reference": {"where": WHERE, "p50_ms": dict(RTX_2060_MS)},
        "alone": [
            {**row.run.to_json(), "taken_bytes": row.taken, "estimate_bytes": row.estimate}
            for row in results.alone
        ],
        "together": {"before_bytes": results.before, "runs": [run.to_json() for run in results.together]},
        "precisions": [asdict(pair) for pair in results.precisions],
    }


def devices(results: Results) -> Iterator[str]:
    """The machine, and what is missing."""
    for gpu in results.gpus:
        yield (
            f"GPU {gpu.index}: {gpu.name}, {format_size(gpu.total)}, {format_size(gpu.used)} in use, "
            f"driver {gpu.driver}, compute capability {gpu.compute}"
        )
    yield f"engine: {results.engine}"
    if results.providers:
        yield f"ONNX Runtime: {', '.join(results.providers)}"
    for line in results.missing:
        yield f"missing: {line}"


ALONE_HEAD = (
    f"{'branch':28} {'status':>24} {'p50 ms':>8} {'p95 ms':>8} {'RTX 2060':>9} {'taken':>9} {'estimate':>9}"
)


def alone_line(row: Alone) -> str:
    """A branch that ran alone."""
    run = row.run
    cells = (
        f"{run.name:28} {run.status:>24} {_ms(run.p50_ms):>8} {_ms(run.p95_ms):>8} {_reference(run.name):>9} "
        f"{_size(row.taken):>9} {_size(row.estimate):>9}"
    )
    return cells if run.ok else f"{cells}  {run.detail}"


def together_line(run: Run, before: int | None) -> str:
    """A branch that was loaded beside those before it."""
    taken = None if before is None or run.memory is None else run.memory - before
    line = f"{run.name:28} {run.status:>24} {_size(taken):>9} together"
    return line if run.ok else f"{line}  {run.detail}"


def precision_line(pair: Precisions) -> str:
    """A branch in both precisions."""
    return (
        f"{pair.name:28} fp32 {pair.p50_ms:.1f} ms, fp16 {pair.half_p50_ms:.1f} ms ({pair.half}), "
        f"greatest difference {pair.greatest:.3g} of the range, cosine {pair.cosine:.6f}"
    )


def _reference(name: str) -> str:
    if name not in RTX_2060_MS:
        return ""
    value = RTX_2060_MS[name]
    return "OOM" if value is None else f"{value:.1f}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _size(value: int | None) -> str:
    return "?" if value is None else format_size(value)
