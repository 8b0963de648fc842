"""Retries, their budget, and the breaker, without a server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace

import grpc
import pytest
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.engine.triton.breaker import Breaker
from app.engine.triton import retries as retries_module
from app.engine.triton.retries import Retries, RetryBudget
from app.engine.triton.client import connection_broke, retry_reason, translated_errors
from app.errors import DeadlineExceeded, GatewayError, ModelNotReady, Overloaded, TritonUnavailable

AWAY = TritonUnavailable("gone fishing")


class Failed(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    """The exception that gRPC raises."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._said = code, details

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]


def translated(code: grpc.StatusCode, words: str) -> GatewayError:
    """Return the client's error for such a failure."""
    with pytest.raises(GatewayError) as caught, translated_errors("m"):
        raise Failed(code, words)
    return caught.value


# What Triton 2.51 and gRPC say, and why it is sent again.
REASONS = {
    (grpc.StatusCode.UNAVAILABLE, "Socket closed"): "unavailable",
    (grpc.StatusCode.CANCELLED, "CANCELLED"): "shutdown",
    (grpc.StatusCode.UNAVAILABLE, "'m' version 1 is not at ready state"): "not_ready",
    (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' has no available versions"): "not_ready",
    (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found"): None,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"): None,
    (grpc.StatusCode.UNAVAILABLE, "Request timeout expired"): None,
    (grpc.StatusCode.UNAVAILABLE, "in ensemble 'm', Request timeout expired"): None,
    (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"): None,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many"): None,
    (grpc.StatusCode.INTERNAL, "Failed to allocate memory for requested buffer of size 1"): None,
    (grpc.StatusCode.UNAVAILABLE, "CUDA failure 2: out of memory ; GPU=0"): None,
    (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input"): None,
    (grpc.StatusCode.INTERNAL, "whatever"): None,
}


@pytest.mark.parametrize(("said", "reason"), REASONS.items(), ids=lambda value: str(value)[:60])
def test_what_is_worth_another_attempt(said: tuple[grpc.StatusCode, str], reason: str | None) -> None:
    """A broken connection, a shutdown, a reload; never want of time, of room or of memory, nor a wrong request."""
    assert retry_reason(translated(*said)) == reason


BROKEN = {
    (grpc.StatusCode.UNAVAILABLE, "Socket closed"): True,
    (grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"): True,
    (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused"): False,
    (grpc.StatusCode.UNAVAILABLE, "repository index: Server not ready"): False,
    (grpc.StatusCode.CANCELLED, "CANCELLED"): False,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"): False,
    (grpc.StatusCode.UNAVAILABLE, "'m' version 1 is not at ready state"): False,
}


@pytest.mark.parametrize(("said", "broke"), BROKEN.items(), ids=lambda value: str(value)[:60])
def test_a_connection_that_breaks_is_no_refusal(said: tuple[grpc.StatusCode, str], broke: bool) -> None:
    """One that can't be made is."""
    assert connection_broke(translated(*said)) is broke


def test_a_status_that_the_table_forgets_is_not_repeated() -> None:
    """Only two of gRPC's codes are retried, whatever codes are added."""
    worth = {code.name for code in grpc.StatusCode if retry_reason_of(code) is not None}
    assert worth == {"UNAVAILABLE", "CANCELLED"}


def retry_reason_of(code: grpc.StatusCode) -> str | None:
    return retry_reason(translated(code, "words"))


def test_a_queue_that_is_full_in_triton_is_overload() -> None:
    """Its UNAVAILABLE says nothing of the connection; a time that ran out there ran out in stage infer."""
    assert type(translated(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")) is Overloaded
    late = translated(grpc.StatusCode.UNAVAILABLE, "in ensemble 'm', Request timeout expired")
    assert isinstance(late, DeadlineExceeded)
    assert late.stage == "infer"


def test_a_channel_of_ours_that_is_closed_is_no_reason() -> None:
    """Nobody is left to send to."""
    with pytest.raises(TritonUnavailable) as caught, translated_errors("m"):
        raise ValueError("Cannot invoke RPC on closed channel!")
    assert retry_reason(caught.value) is None


def failing(times: int, error: GatewayError = AWAY) -> tuple[Callable[[], None], list[float]]:
    """An attempt that fails so often, and when each was made."""
    made: list[float] = []

    def attempt() -> None:
        made.append(time.monotonic())
        if len(made) <= times:
            raise error

    return attempt, made


def retries(budget: RetryBudget | None = None) -> Retries:
    """Behind a closed breaker; everything but a model that isn't ready is worth it."""
    breaker = Breaker()
    breaker.answered()
    return Retries(breaker, lambda error: None if isinstance(error, ModelNotReady) else "unavailable", budget)


@pytest.mark.parametrize(("failures", "attempts"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_an_attempt_is_repeated_twice_at_most(failures: int, attempts: int) -> None:
    """With a pause before each; the last failure is the caller's."""
    attempt, made = failing(failures)
    tried = retries()
    if failures >= attempts:
        with pytest.raises(TritonUnavailable):
            tried.run(attempt, Deadline.after(PATIENCE_S))
    else:
        tried.run(attempt, Deadline.after(PATIENCE_S))
    assert len(made) == attempts
    assert all(0.014 < after - before < PATIENCE_S for before, after in itertools.pairwise(made))
    done, refused = tried.counts()
    assert (done["unavailable"], sum(done.values()), sum(refused.values())) == (attempts - 1, attempts - 1, 0)


def test_what_is_not_worth_it_is_tried_once() -> None:
    """Nor is an error of another kind, which nobody even asks about."""
    for error in (ModelNotReady("unloaded"), DeadlineExceeded("infer"), Overloaded("full")):
        attempt, made = failing(1, error)
        with pytest.raises(type(error)):
            retries().run(attempt, Deadline.after(PATIENCE_S))
        assert len(made) == 1


def test_nothing_is_repeated_once_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it that a pause doesn't fit in, or that the caller left while it was tried."""
    attempt, made = failing(9)
    tried = retries()
    monkeypatch.setattr(retries_module, "_PAUSES_S", (10 * PATIENCE_S, 10 * PATIENCE_S))
    with pytest.raises(TritonUnavailable):
        tried.run(attempt, Deadline.after(PATIENCE_S))
    assert len(made) == 1
    deadline = Deadline.after(PATIENCE_S)

    def leave() -> None:
        deadline.cancel()
        attempt()

    with pytest.raises(TritonUnavailable):
        tried.run(leave, deadline)
    assert len(made) == 2
    with pytest.raises(DeadlineExceeded) as late:
        tried.run(attempt, Deadline.after(0))
    assert late.value.stage == "infer"
    assert len(made) == 2


def test_nothing_is_repeated_while_the_breaker_is_open() -> None:
    """Nor sent for the first time."""
    attempt, made = failing(9)
    tried = retries()

    def dies() -> None:
        tried.breaker.failed("connection refused", silent=False)
        attempt()

    with pytest.raises(TritonUnavailable, match="fishing"):
        tried.run(dies, Deadline.after(PATIENCE_S))
    with pytest.raises(TritonUnavailable, match="connection refused") as refusal:
        tried.run(attempt, Deadline.after(PATIENCE_S))
    assert len(made) == 1
    assert refusal.value.retry_after == 1


def test_the_budget_bounds_retries_to_a_share_of_the_requests() -> None:
    """400 requests that all fail: each is tried once, one in ten once more, and the others are counted."""
    tried = retries(RetryBudget(share=0.1, per_second=0.0, most=2.0))
    attempts = 0

    def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise AWAY

    for _ in range(400):
        with pytest.raises(TritonUnavailable):
            tried.run(attempt, Deadline.after(PATIENCE_S))
    done, refused = tried.counts()
    assert 38 <= done["unavailable"] <= 42
    assert attempts == 400 + done["unavailable"]
    assert 400 <= done["unavailable"] + refused["unavailable"] <= 442


def test_time_fills_the_budget_of_a_quiet_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its one request an hour would never be repeated; no further than up to the brim."""
    now = 100.0
    monkeypatch.setattr(retries_module, "time", SimpleNamespace(monotonic=lambda: now))
    budget = RetryBudget(share=0.0, per_second=20.0, most=2.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now += 0.3
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_the_breaker_opens_at_a_refusal_and_at_the_second_silence() -> None:
    """And closes at an answer, from which it counts again."""
    breaker = Breaker()
    assert breaker.open
    breaker.answered()
    assert not breaker.failed("no answer", silent=True)
    breaker.answered()
    assert not breaker.failed("no answer", silent=True)
    assert breaker.failed("no answer", silent=True)
    assert breaker.failed("still none", silent=True)
    assert (breaker.open, breaker.reason, breaker.openings()) == (
        True, "still none", {"silent": 1, "refused": 0},
    )  # fmt: skip
    breaker.answered()
    assert breaker.failed("refused", silent=False)
    assert breaker.openings() == {"silent": 1, "refused": 1}
