"""One run: everything that it needs is started, measured in interleaved rounds, and stopped."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import null_models, squares
from benchmarks.common.cases import CASES
from benchmarks.common.environment import environment
from benchmarks.common.services import triton
from benchmarks.speed.peers import PEERS, json_client, serve, versions
from benchmarks.speed.ratios import HIGHER_IS_BETTER, differences, medians, ratios, rounded
from benchmarks.speed.targets import Effort, Target, Unavailable, bare, limit, ours, prepare, take
from routing import catalogue

ESSENTIAL = ("limit", "bare", "ours")
VARIANTS = ("ours", "ours_two", "ours_scaled")
ALL = tuple(dict.fromkeys((*ESSENTIAL, *VARIANTS, *PEERS)))
_PACKAGES = ("fastapi", "starlette", "orjson", "pillow", "simplejpeg", "uvloop", "httptools")
Measured = dict[str, dict[str, list[dict[str, float]]]]


class Run:
    """The targets of one run; what can't be had is in `missing`, with the reason."""

    def __init__(self, targets: Sequence[str], cases: Sequence[str], effort: Effort, folder: Path) -> None:
        self._targets, self._cases, self._effort, self._folder = targets, cases, effort, folder
        self.missing: dict[str, str] = {}
        self.measured: Measured = {}
        self.memory: dict[str, dict[str, float]] = {}
        self.environment: dict[str, Any] = {}
        self.json_ms: float | None = None

    def go(self, rounds: int, *, json_calls: int = 0) -> None:
        """Measure; `json_calls` of the old client at the end."""
        repository = null_models.build(self._folder / "models")
        with triton(repository, self._folder / "triton.log") as server, contextlib.ExitStack() as stack:
            standing = self._start(stack, server.grpc_url)
            for target in standing:
                self._prepare(target)
            for number in range(rounds):
                self._round(standing if number % 2 else standing[::-1], server.grpc_url)
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            self.memory = {target.name: _rounded(target.memory()) for target in standing}
            if json_calls:
                self.json_ms = json_client(server.http_url, CASES["detect_640x480"], json_calls)
            self.environment = {
                **environment(server.grpc_url, "http://127.0.0.1:9", {}),
                **{name: version(name) for name in (*_PACKAGES, squares.LIBRARY.lower())},
                "null_model_boxes": null_models.BOXES,
            }

    def _start(self, stack: contextlib.ExitStack, triton_grpc: str) -> list[Target]:
        standing = []
        for name in self._targets:
            if name in PEERS and PEERS[name].restless:
                continue
            try:
                standing.append(stack.enter_context(self._target(name, triton_grpc)))
            except Unavailable as error:
                self.missing[name] = str(error)
        return standing

    def _target(self, name: str, triton_grpc: str) -> contextlib.AbstractContextManager[Target]:
        log = self._folder / f"{name}.log"
        if name in PEERS:
            return serve(PEERS[name], self._cases, triton_grpc, log)
        if name == "limit":
            return limit(self._cases, triton_grpc, log)
        if name == "bare":
            return bare(self._cases, triton_grpc, log)
        return ours(name, self._cases, triton_grpc, log, self._folder / "models")

    def _asked(self, target: Target) -> list[str]:
        return [case for case in self._cases if case in target.cases()]

    def _prepare(self, target: Target) -> None:
        for case in self._asked(target):
            prepare(target, CASES[case], self._effort)

    def _round(self, standing: Sequence[Target], triton_grpc: str) -> None:
        for case in self._cases:
            for target in standing:
                if case in target.cases():
                    self._take(target, case)
        for name in self._targets:
            if name in PEERS and PEERS[name].restless and name not in self.missing:
                self._alone(name, triton_grpc)

    def _alone(self, name: str, triton_grpc: str) -> None:
        """A restless peer's part of a round."""
        try:
            with self._target(name, triton_grpc) as target:
                self._prepare(target)
                for case in self._asked(target):
                    self._take(target, case)
        except Unavailable as error:
            self.missing[name] = str(error)

    def _take(self, target: Target, case: str) -> None:
        row = _rounded(take(target, CASES[case], self._effort))
        self.measured.setdefault(target.name, {}).setdefault(case, []).append(row)


def _rounded(row: dict[str, float]) -> dict[str, float]:
    return {key: rounded(value) for key, value in row.items()}


def figures(run: Run) -> dict[str, Any]:
    """Return the figures that are kept of a run."""
    run.measured = {name: run.measured[name] for name in ALL if name in run.measured}
    found = medians(run.measured)
    others = [name for name in run.measured if name in PEERS]
    pairs = [("bare", "limit"), *((of, to) for of in VARIANTS for to in (*ESSENTIAL, *others) if of != to)]
    families = catalogue.load().families
    return {
        "environment": run.environment,
        "peers": {
            name: {"what": PEERS[name].what, "versions": versions(PEERS[name])}
            for name in others
        },
        "filters": {name: squares.filter_of(family) for name, family in families.items() if family.prepare},
        "resized_by": squares.LIBRARY.lower(),
        "missing": run.missing,
        "medians": found,
        "ratios": {
            f"{of} / {to}": {
                figure: ratios(run.measured, of, to, figure)
                for figure in (HIGHER_IS_BETTER if to in ESSENTIAL else ("rate",))
            }
            for of, to in pairs
            if {of, to} <= run.measured.keys()
        },
        "added_ms": {
            f"ours / {to}": differences(run.measured, "ours", to, "p50_alone_ms") for to in ("limit", "bare")
        },
        "memory_after": run.memory,
        "json_client": _json_client(run, found),
        "rounds": run.measured,
    }  # fmt: skip


def _json_client(run: Run, found: dict[str, dict[str, dict[str, float]]]) -> dict[str, float] | None:
    """The old client's one call against the gateway's whole request (JPEG in, boxes out)."""
    row = found.get("ours", {}).get("detect_640x480")
    if run.json_ms is None or row is None:
        return None
    whole = row["p50_alone_ms"]
    return {"call_ms": rounded(run.json_ms), "ours_ms": whole, "ratio": rounded(run.json_ms / whole)}


def measure(
    targets: Sequence[str], cases: Sequence[str], rounds: int, effort: Effort, json_calls: int = 0
) -> dict[str, Any]:
    """The figures of a new run."""
    with tempfile.TemporaryDirectory() as name:
        run = Run(targets, cases, effort, Path(name))
        run.go(rounds, json_calls=json_calls)
    return figures(run)
