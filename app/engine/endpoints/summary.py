"""Several servers as one: the state of each model, and the counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from app.engine.base import EngineUsage, ModelState, PoolUsage
from routing.policy import Readiness

K = TypeVar("K")
# Which state tells most of a model that no server has READY.
_RANK = (
    Readiness.READY,
    Readiness.LOADING,
    Readiness.OUT_OF_MEMORY,
    Readiness.SEVERAL_SERVERS,
    Readiness.CONTRACT_MISMATCH,
)
_LAST = (Readiness.MISSING, Readiness.UNREACHABLE)


def best(states: Sequence[ModelState]) -> ModelState:
    """Return the state to show for a model: that of the first server which has it READY, else the most telling.

    Args:
        states: one per server, at least one.
    """
    return min(states, key=lambda state: _rank(state.readiness))  # of equal ones the first


def merged(views: Sequence[Mapping[str, ModelState]]) -> dict[str, ModelState]:
    """`best` for each model; a reason names its server.

    Args:
        views: states by model, one mapping per server, at least one.
    """
    found = {}
    for name in views[0]:
        state = best([view[name] for view in views])
        if not state.ready and len(views) > 1:
            state = replace(state, reason=f"{state.endpoint}: {state.reason or state.readiness.value}")
        found[name] = state
    return found


def _rank(readiness: Readiness) -> int:
    if readiness in _RANK:
        return _RANK.index(readiness)
    return len(_RANK) + 1 + (_LAST.index(readiness) + 1 if readiness in _LAST else 0)


def added(usages: Sequence[EngineUsage]) -> EngineUsage:
    """Return the sums; connected if one is, and the circuit breaker is open if all are."""
    return EngineUsage(
        _pools(usage.pools for usage in usages),
        any(usage.connected for usage in usages),
        sum(usage.reconnects for usage in usages),
        _sum(usage.out_of_memory for usage in usages),
        frozenset().union(*(usage.quarantined for usage in usages)),
        _sum(usage.recovered for usage in usages),
        _sum(usage.retries for usage in usages),
        _sum(usage.retries_refused for usage in usages),
        all(usage.breaker_open for usage in usages),
        _sum(usage.breaker_openings for usage in usages),
    )


def counters_of(usage: EngineUsage) -> EngineUsage:
    """Return what of a closed server's counters stays: they never fall."""
    return replace(usage, pools={}, connected=False, quarantined=frozenset(), breaker_open=True)


def _sum(counts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _pools(every: Iterable[Mapping[str, PoolUsage]]) -> dict[str, PoolUsage]:
    total: dict[str, PoolUsage] = {}
    for pools in every:
        for name, pool in pools.items():
            known = total.get(name, PoolUsage(0, 0, 0))
            total[name] = PoolUsage(
                known.size + pool.size, known.in_use + pool.in_use, known.waiting + pool.waiting
            )
    return total
