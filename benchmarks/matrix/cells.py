"""Cells of the matrix: which there are, and how one is measured."""

from __future__ import annotations

import fnmatch
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import GatewayError
from benchmarks.matrix.load import (
    KEPT,
    MakeCaller,
    Outcome,
    Refused,
    achieved_rate,
    closed_loop,
    open_loop,
    warm_up,
)
from benchmarks.matrix.plan import Policy
from benchmarks.matrix.results import Results, now
from benchmarks.matrix.statistics import percentiles, thinned
from benchmarks.matrix.targets import State, Target
from routing.catalogue import Branch, Catalogue

# Nobody has built or loaded it: no failure, unless the branch was named.
_ABSENT = ("model_not_found", "weights_missing", "model_not_ready")


@dataclass(frozen=True, slots=True)
class Effort:
    """`repeats` requests a cell in `rounds` rounds, after `warm_up`; at most `duration_s` for all of its rounds."""

    repeats: int = 30
    rounds: int = 3
    warm_up: int = 3
    duration_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Reached:
    """A target, and its branches as they were at the start."""

    target: Target
    states: Mapping[str, State]


class Bench:
    """Measures group by group: one branch and policy on every target, their rounds interleaved.

    What slows the machine for a while then slows every target's round, and their ratios stay.
    """

    def __init__(
        self, catalogue: Catalogue, reached: Sequence[Reached], effort: Effort, results: Results
    ) -> None:
        self._catalogue = catalogue
        self._reached = reached
        self._effort = effort
        self._results = results

    def run(self, patterns: Sequence[str], policies: Sequence[Policy]) -> None:
        """Every cell that isn't done yet."""
        for branch in self._chosen(patterns):
            for policy in policies:
                if policy.fits(branch):
                    self._group(branch, policy, named=branch.name in patterns)

    def _chosen(self, patterns: Sequence[str]) -> Iterator[Branch]:
        for name, branch in self._catalogue.branches.items():
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                yield branch

    def _group(self, branch: Branch, policy: Policy, *, named: bool) -> None:
        cells = []
        for reached in self._reached:
            state = reached.states.get(branch.name, State(ready=False, code="model_not_found"))
            key = (branch.name, policy.name, reached.target.name)
            if self._results.done(key, state.digest):
                continue
            if state.ready:
                cells.append(
                    _Cell(branch, policy, reached.target, state, self._rate(branch, policy, reached.target))
                )
            elif named or state.code not in _ABSENT:
                self._keep([error_row(branch, policy, reached.target.name, state, state.code, state.reason)])
        for number in range(self._effort.rounds):
            for cell in cells:
                cell.round(number, self._effort)
        self._keep([cell.row(self._effort) for cell in cells])

    def _rate(self, branch: Branch, policy: Policy, target: Target) -> float | None:
        if not policy.relative or policy.rate is None:
            return policy.rate
        base = self._results.row((branch.name, "seq", target.name))
        return policy.rate * base["throughput_per_s"] if base and base["status"] == "ok" else None

    def _keep(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._results.add(rows)
        for row in rows:
            print(line_of(row), flush=True)


class _Cell:
    """One branch, policy and target, round by round."""

    def __init__(
        self, branch: Branch, policy: Policy, target: Target, state: State, rate: float | None
    ) -> None:
        self._branch, self._policy, self._target, self._state = branch, policy, target, state
        self._rate = rate
        self._rounds: list[Outcome] = []
        self._warm: Outcome | None = None

    def round(self, number: int, effort: Effort) -> None:
        """Warm up before the first one; after a warm-up that failed, nothing more is tried."""
        if self._policy.relative and self._rate is None:
            return
        make = lambda: self._target.caller(self._branch, self._policy.prompts)  # noqa: E731  # used twice, here
        limit = effort.duration_s / effort.rounds
        if number == 0:
            self._warm = self._guarded(lambda: warm_up(make, self._policy.in_flight, effort.warm_up, limit))
        if self._warm is not None and not self._warm.errors:
            calls = effort.repeats // effort.rounds + (number < effort.repeats % effort.rounds)
            self._rounds.append(self._guarded(lambda: self._load(make, calls, limit)))

    def _load(self, make: MakeCaller, calls: int, limit_s: float) -> Outcome:
        if self._rate is not None:
            return open_loop(make, self._rate, calls, limit_s)
        return closed_loop(make, self._policy.in_flight, calls, limit_s)

    def _guarded(self, load: Callable[[], Outcome]) -> Outcome:
        try:
            return load()
        except (GatewayError, Refused, MemoryError) as error:  # a client couldn't even be made
            return Outcome(errors=Counter([getattr(error, "code", "client_error")]), detail=str(error))

    def row(self, effort: Effort) -> dict[str, Any]:
        """Return the fields that the table keeps."""
        if self._policy.relative and self._rate is None:
            detail = "there is no ok row of seq to take the rate from"
            return error_row(
                self._branch, self._policy, self._target.name, self._state, "no_base_rate", detail
            )
        rounds = self._rounds or ([self._warm] if self._warm else [])
        errors = sum((outcome.errors for outcome in rounds), Counter[str]())
        samples = [value for outcome in self._rounds for value in outcome.samples_ms]
        wall = sum(outcome.wall_s for outcome in self._rounds)
        per_second = len(samples) / wall if wall else 0.0
        code = errors.most_common(1)[0][0] if errors else None
        return {
            **_head(self._branch, self._policy, self._target.name, self._state),
            "status": "error" if errors or not samples else "ok",
            "code": code,
            "detail": next((outcome.detail for outcome in rounds if outcome.detail), "")[:300],
            "n": len(samples),
            "errors": dict(errors),
            **percentiles(samples),
            "throughput_per_s": round(per_second, 4),
            "prompts_per_s": round(per_second * self._policy.prompts, 4)
            if self._policy.prompts > 1
            else None,
            **self._open(),
            "warm_up": effort.warm_up,
            "at": now(),
            "samples_ms": thinned([outcome.samples_ms for outcome in self._rounds]),
        }

    def _open(self) -> dict[str, Any]:
        """Return the facts of an open loop: the rate, whether it was kept, and how late this client was itself."""
        if self._rate is None:
            return {}
        achieved = achieved_rate(self._rounds)
        return {
            "rate_asked": round(self._rate, 4),
            "rate_achieved": round(achieved, 4),
            "rate_kept": achieved >= KEPT * self._rate,
            "client_late_ms": round(max((outcome.late_ms for outcome in self._rounds), default=0.0), 3),
        }


def error_row(
    branch: Branch, policy: Policy, target: str, state: State, code: str, detail: str
) -> dict[str, Any]:
    """A cell that couldn't be measured."""
    head = _head(branch, policy, target, state)
    return {
        **head,
        "status": "error",
        "code": code,
        "detail": detail[:300],
        "n": 0,
        "errors": {},
        "at": now(),
    }


def _head(branch: Branch, policy: Policy, target: str, state: State) -> dict[str, Any]:
    return {
        "branch": branch.name,
        "family": branch.family,
        "policy": policy.name,
        "target": target,
        "in_flight": policy.in_flight,
        "prompts": policy.prompts if branch.size is None else None,
        "weights": state.weights,
        "digest": state.digest,
        "device": state.device,
    }


def line_of(row: Mapping[str, Any]) -> str:
    """One row for people, as it is measured."""
    cell = f"{row['branch']:24} {row['policy']:10} {row['target']:12}"
    if row["status"] != "ok":
        return f"{cell} {row['status']:6} {row['code']} {row['detail'][:60]}"
    times = " ".join(f"{name} {row[f'{name}_ms']:9.2f}" for name in ("p50", "p95", "p99"))
    rate = (
        ""
        if row.get("rate_kept", True)
        else f"  CAN'T KEEP {row['rate_asked']:.3g}/s: {row['rate_achieved']:.3g}/s"
    )
    return f"{cell} {row['status']:6} {times} ms {row['throughput_per_s']:9.2f}/s n={row['n']}{rate}"


def reach(targets: Sequence[tuple[str, Callable[[], Target]]], results: Results) -> list[Reached]:
    """Return the targets that answer; each of the others becomes a row that says why."""
    reached = []
    for name, make in targets:
        try:
            target = make()
            states = target.states()
        except (GatewayError, Refused, RuntimeError) as error:
            code = getattr(error, "code", "not_installed")
            print(f"{name}: not reached: {code}: {error}", file=sys.stderr)
            results.add([_unreached(name, code, str(error))])
            continue
        if states and all(state.code == "triton_unavailable" for state in states.values()):
            reason = next(iter(states.values())).reason
            print(f"{name}: not reached: triton_unavailable: {reason}", file=sys.stderr)
            results.add([_unreached(name, "triton_unavailable", reason)])
            target.close()
            continue
        reached.append(Reached(target, states))
    return reached


def _unreached(target: str, code: str, detail: str) -> dict[str, Any]:
    return {
        "branch": "*", "family": "*", "policy": "*", "target": target, "status": "error", "code": code,
        "detail": detail[:300], "n": 0, "errors": {}, "digest": "unknown", "at": now(),
    }  # fmt: skip
