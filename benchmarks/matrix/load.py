"""Load generators: a closed loop with N in flight, and an open loop at a fixed rate."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from app.errors import GatewayError

# An open loop's clients: more requests than this can't be under way at once, the next ones wait (and it counts).
OPEN_LOOP_CLIENTS = 64
# Completions this much rarer than asked for mean that the rate is not kept.
KEPT = 0.9


class Refused(Exception):
    """A server's own error, with its code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Caller(Protocol):
    """One client: its connection and its inputs, used by one thread."""

    def __call__(self) -> None:
        """One request, complete. Raises GatewayError or Refused where a server says no."""

    def close(self) -> None: ...


MakeCaller = Callable[[], Caller]


@dataclass(slots=True)
class Outcome:
    """Result of one round: milliseconds of successful calls, codes of failed ones.

    `ends` are moments of completion in s; `late_ms` is how late the client itself started a request at most.
    """

    samples_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    detail: str = ""
    wall_s: float = 0.0
    ends: list[float] = field(default_factory=list)
    late_ms: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, caller: Caller, since: float | None = None) -> None:
        """Make one request; its latency counts from `since` (default: now)."""
        started = time.perf_counter() if since is None else since
        try:
            caller()
        except (GatewayError, Refused) as error:
            self._failed(error.code, str(error))
        except Exception as error:  # noqa: BLE001  # whatever fails is a row of the table, never the end of the run
            self._failed("client_error", repr(error))
        else:
            ended = time.perf_counter()
            with self._lock:
                self.samples_ms.append((ended - started) * 1000)
                self.ends.append(ended)

    def _failed(self, code: str, detail: str) -> None:
        with self._lock:
            self.errors[code] += 1
            self.detail = detail


def achieved_rate(rounds: Sequence[Outcome]) -> float:
    """Completions a second, from the first to the last one of each round; 0 where there are too few to say."""
    spans = [
        (len(outcome.ends) - 1, max(outcome.ends) - min(outcome.ends)) for outcome in rounds if outcome.ends
    ]
    seconds = sum(span for _, span in spans)
    return sum(count for count, _ in spans) / seconds if seconds else 0.0


def warm_up(make: MakeCaller, in_flight: int, calls: int, limit_s: float) -> Outcome:
    """Requests that don't count, until one fails or the time is over (one at least); then one of every client."""
    outcome = Outcome()
    limit = time.perf_counter() + limit_s
    with closing(make()) as caller:
        for _ in range(calls):
            outcome.add(caller)
            if outcome.errors or time.perf_counter() > limit:
                break
    if in_flight > 1 and not outcome.errors:
        closed_loop(make, in_flight, in_flight, 0)  # tensors of every lease, connections of every client
    return outcome


def closed_loop(make: MakeCaller, in_flight: int, calls: int, limit_s: float) -> Outcome:
    """`calls` requests, `in_flight` at once: each client sends its next one when the last is answered.

    After `limit_s` no further one is sent; each client sends one at least.
    """
    outcome = Outcome()
    left = iter(range(max(calls, in_flight)))
    lock = threading.Lock()
    start = threading.Barrier(in_flight + 1)
    limit = [0.0]

    def client(own: Caller) -> None:
        with closing(own) as caller:
            start.wait()
            first = True
            while first or time.perf_counter() < limit[0]:
                with lock:
                    if next(left, None) is None:
                        return
                outcome.add(caller)
                first = False

    threads = [threading.Thread(target=client, args=(make(),), daemon=True) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    limit[0] = started + limit_s
    start.wait()
    for thread in threads:
        thread.join()
    outcome.wall_s = time.perf_counter() - started
    return outcome


def open_loop(make: MakeCaller, rate: float, calls: int, limit_s: float) -> Outcome:
    """Requests at fixed moments, `rate` a second, whatever the answers do.

    Latency counts from the moment at which a request was due, so that one that had to wait for a slow one before it is
    as slow as its sender would see it (no coordinated omission).
    """
    outcome = Outcome()
    calls = max(2, math.ceil(min(calls, limit_s * rate)))
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def client(own: Caller) -> None:
        with closing(own) as caller:
            while (moment := due.get()) is not None:
                outcome.add(caller, moment)

    clients = min(calls, OPEN_LOOP_CLIENTS)
    threads = [threading.Thread(target=client, args=(make(),), daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    for number in range(calls):
        moment = started + number / rate
        time.sleep(max(0.0, moment - time.perf_counter()))
        outcome.late_ms = max(outcome.late_ms, (time.perf_counter() - moment) * 1000)
        due.put(moment)
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    outcome.wall_s = time.perf_counter() - started
    return outcome
