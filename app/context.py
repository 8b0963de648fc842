"""The request at hand, as every thread that works for it sees it: its id, its trace, and what has served it.

A context variable carries it, so that nothing between the HTTP edge and gRPC has to pass it on by hand; whoever hands
work to another thread lets it run in a copy of the context (`here`).
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import re
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_TRACESTATE = re.compile(r"[ -~]{1,512}")  # what may travel as gRPC metadata
# W3C Trace Context, level 1: version, trace id, parent id, flags; ids of zeros are none, version ff is forbidden.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,256})?"
)


class EndSpan(Protocol):
    """Callback that ends a span, with its error if there was one."""

    def __call__(self, error: BaseException | None = None, /) -> None: ...


class Spans(Protocol):
    """Operations of a tracer on one request; see `app.process.tracing`."""

    def begin(self, stage: str) -> EndSpan:
        """A span that is current until it is ended."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers that tell another service the current span."""


class Pins:
    """The weights that one answer is made with, by branch: all its runs have those of the first. Thread-safe.

    Until a run has answered, a pin may still be replaced by the weights that answer first. `subject`: what has these
    weights, in words. `steady`: where nothing is pinned, the first server with the branch is taken, not the idlest.
    """

    __slots__ = ("_lock", "_pins", "steady", "subject")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.subject = "this answer"
        self.steady = False
        self._pins: dict[str, tuple[Hashable, bool]] = {}

    def get(self, branch: str) -> tuple[Hashable, bool] | None:
        """Return the pinned weights, and if a run has answered with them; None: there are none yet."""
        return self._pins.get(branch)

    def items(self) -> list[tuple[str, Hashable]]:
        """Return the branches and their weights."""
        with self._lock:
            return [(branch, weights) for branch, (weights, _) in self._pins.items()]

    def expect(self, branch: str, weights: Hashable) -> None:
        """Pin the weights of a run that begins, unless one has answered."""
        with self._lock:
            known = self._pins.get(branch)
            if known is None or not known[1]:
                self._pins[branch] = (weights, False)

    def confirm(self, branch: str, weights: Hashable) -> bool:
        """Pin the weights that have answered; return False if others have done so before."""
        with self._lock:
            known = self._pins.get(branch)
            if known is None or not known[1]:
                self._pins[branch] = (weights, True)
                return True
            return known[0] == weights


class CurrentRequest:
    """Facts collected about one request while it is served; the threads of one request share the object."""

    __slots__ = (
        "codes",
        "encode_ms",
        "frames",
        "id",
        "key_name",
        "pins",
        "rollout_header",
        "route",
        "served",
        "session_id",
        "spans",
        "status",
        "trace_headers",
        "trace_id",
    )

    def __init__(self, request_id: str, traceparent: str = "", tracestate: str = "") -> None:
        self.id = request_id
        known = _TRACEPARENT.fullmatch(traceparent)
        self.trace_id = known[1] if known else None
        self.trace_headers = {"traceparent": traceparent} if known else {}
        if known and _TRACESTATE.fullmatch(tracestate):
            self.trace_headers["tracestate"] = tracestate
        self.route = "none"  # the template
        self.status = "aborted"  # until the answer has begun
        self.rollout_header = b""  # see `rollout_key`, also for the next two
        self.session_id = self.key_name = ""
        self.spans: Spans | None = None
        self.served: set[tuple[str, str]] = set()  # family, branch
        self.frames: list[tuple[str, str, str, Mapping[str, float]]] = []  # see Metrics.observe_frame
        self.codes: list[str] = []  # of the problems that were answered
        self.encode_ms = 0.0
        self.pins = Pins()

    def labels(self) -> tuple[str, str]:
        """Family and branch that served: empty where none did, `several` where it wasn't one."""
        families = {family for family, _ in self.served}
        return _one(families), _one({branch for _, branch in self.served})


def new_request_id() -> str:
    """An id for a request that brought none."""
    return f"{random.getrandbits(128):032x}"  # a name, no secret; uuid4 asks the kernel for it


def _one(names: set[str]) -> str:
    if len(names) > 1:
        return "several"
    return next(iter(names), "")


_current: contextvars.ContextVar[CurrentRequest | None] = contextvars.ContextVar("request", default=None)


def current() -> CurrentRequest | None:
    """The request that this thread or task works for; None: none, as in a job."""
    return _current.get()


def enter(request: CurrentRequest) -> contextvars.Token[CurrentRequest | None]:
    """Make this request the current one until `leave`."""
    return _current.set(request)


def leave(token: contextvars.Token[CurrentRequest | None]) -> None:
    """Restore the previous current request."""
    _current.reset(token)


def rollout_key() -> str | None:
    """Return the key that decides which share of a rollout the current request is in; None without a request.

    It is the caller's header X-Rollout-Key, else the session's id, else the name of the API key, else the request's id.
    """
    request = _current.get()
    if request is None:
        return None
    return request.rollout_header.decode("latin-1") or request.session_id or request.key_name or request.id


def note_session(session_id: str) -> None:
    """Record the session of the current request."""
    request = _current.get()
    if request is not None:
        request.session_id = session_id


def note_key(name: str) -> None:
    """Record the name of the API key of the current request."""
    request = _current.get()
    if request is not None:
        request.key_name = name


_pins: contextvars.ContextVar[Pins | None] = contextvars.ContextVar("pins", default=None)


def pins() -> Pins | None:
    """The weights of the answer that this thread or task works for; None: it works for no answer."""
    own = _pins.get()
    if own is not None:
        return own
    request = _current.get()
    return None if request is None else request.pins


@contextlib.contextmanager
def one_answer(shared: Pins | None = None) -> Iterator[Pins]:
    """Make all that runs inside one answer, with the pins of another thread where it has some."""
    made = shared or Pins()
    token = _pins.set(made)
    try:
        yield made
    finally:
        _pins.reset(token)


def here(function: Callable[..., T]) -> Callable[..., T]:
    """Wrap `function` so that other threads, one at a time, call it on behalf of the current request."""
    context = contextvars.copy_context()

    def run(*args: Any) -> T:
        return context.run(function, *args)

    return run


def spans() -> Spans | None:
    """Return the tracer of the current request; None where nothing is traced."""
    request = _current.get()
    return None if request is None else request.spans


def begin(stage: str) -> EndSpan | None:
    """A span of the current request; None where nothing is traced."""
    request = _current.get()
    return None if request is None or request.spans is None else request.spans.begin(stage)


def stop_spans() -> None:
    """Stop tracing the current request, because a video has too many frames."""
    request = _current.get()
    if request is not None:
        request.spans = None


def trace_headers() -> Mapping[str, str] | None:
    """Return the header that tells a backend the trace of its work, or None if there is no trace.

    Without a tracer of our own, what the caller sent goes on as it came.
    """
    request = _current.get()
    if request is None:
        return None
    return (request.spans.headers() if request.spans is not None else request.trace_headers) or None


def note_problem(code: str) -> None:
    """Record the problem that answers the current request or one of its frames."""
    request = _current.get()
    if request is not None:
        request.codes.append(code)


def note_encoded(ms: float) -> None:
    """Record how long the encoding of the current request's answer took."""
    request = _current.get()
    if request is not None:
        request.encode_ms += ms


def note_served(family: str, branch: str) -> None:
    """Record the branch that answers the current request."""
    request = _current.get()
    if request is not None:
        request.served.add((family, branch))
