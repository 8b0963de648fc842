"""Every request of a load with its answer, and one HTTP client that writes them down."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

PROBLEM = "application/problem+json"
NO_ANSWER = 0
NO_PROBLEM = "no problem document"  # the balancer's own page
OF_FRAMES = frozenset({"frame", "session"})
OF_SESSIONS = frozenset({"session"})
OF_JOBS = frozenset({"submit", "poll"})


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Args:
        kind: `frame`, `session`, `submit`, `poll` or `artifact`.
        began, ended: on the monotonic clock, in seconds.
        status: of the answer; `NO_ANSWER` if the connection broke.
        code: of the problem, `NO_PROBLEM`, or the exception's name; empty for 2xx.
        served: the gateway that answered, as the balancer names it; empty if it is unknown.
        endpoint: the Triton that answered the frame; empty if there is none.
    """

    kind: str
    began: float
    ended: float
    status: int
    code: str
    served: str
    endpoint: str = ""

    @property
    def failed(self) -> bool:
        """True unless it is 2xx."""
        return not 200 <= self.status < 300

    def overlaps(self, began: float, ended: float) -> bool:
        """Return whether it was under way at some time of an interval."""
        return self.began <= ended and began <= self.ended


@dataclass(slots=True)
class Caller:
    """Sends requests to the balancer and keeps a record of each; it never sends one twice by itself."""

    http: httpx2.AsyncClient
    records: list[Record] = field(default_factory=list)

    async def send(self, kind: str, method: str, path: str, **how: Any) -> httpx2.Response | None:
        """Return the answer, or None if there was none."""
        began = time.monotonic()
        answer, code = None, ""
        try:
            answer = await self.http.request(method, path, **how)
        except httpx2.TransportError as error:
            code = type(error).__name__
        else:
            code = _code(answer)
        status = NO_ANSWER if answer is None else answer.status_code
        served = "" if answer is None else answer.headers.get("x-served-by", "")
        endpoint = _endpoint(answer) if kind in OF_FRAMES else ""
        self.records.append(Record(kind, began, time.monotonic(), status, code, served, endpoint))
        return answer


def _code(answer: httpx2.Response) -> str:
    if answer.is_success:
        return ""
    if answer.headers.get("content-type", "").startswith(PROBLEM):
        return str(answer.json()["code"])
    return NO_PROBLEM


async def ticks(every_s: float, count: int | None = None) -> AsyncIterator[int]:
    """Count from 0, one every so many seconds; after a delay it goes on from there, without a burst."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number in itertools.count() if count is None else range(count):
        await asyncio.sleep(due - loop.time())
        yield number
        due = max(due + every_s, loop.time())


def _endpoint(answer: httpx2.Response | None) -> str:
    if answer is None or not answer.is_success:
        return ""
    return str(answer.json()["branch"].get("endpoint") or "")
