"""Triton over gRPC: tensors by reference in shared memory where server and gateway share a host, bytes elsewhere.

The transport is detected by probing: Triton is asked to map a region with a random name. A lease's infer request
never changes, so with shared memory it is serialised once and the same bytes are sent every time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from app.engine.triton import shared_memory
from app.deadline import Deadline
from app.engine.base import EndpointUsage, EngineUsage, LeasePool, ModelState, PoolUsage, not_served
from app.engine.triton.breaker import RETRY_AFTER_S, Breaker
from app.engine.triton.model_control import Reloader
from app.engine.quarantine import Recovery, Quarantine
from app.engine.triton.retries import Retries
from app.engine.triton.server_view import ServerView, refused, unattributed
from app.engine.triton.client import (
    RegionLost,
    Tls,
    TritonClient,
    connection_broke,
    retry_reason,
)
from app.engine.triton.leases import BytesLease, SharedMemoryLease, TritonLease
from app.engine.warmup import Warmer
from app.engine.weights import WeightsBook
from app.engine.weights_files import WeightsFiles
from app.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    InsufficientGpuMemory,
    ModelNotReady,
    TritonUnavailable,
)
from routing.catalogue import Branch, Catalogue, ModelSpec, TensorSpec
from routing.policy import Readiness

_log = logging.getLogger(__name__)
_ABANDON_S = 1.0

Transport = Literal["shared_memory", "bytes"]
# Interval of polls while the server is away, so that callers are served within a second of its return.
_AWAY_INTERVAL_S = 0.1
_LEAST_PAUSE_S = 0.05
_SAY_AGAIN_S = 10.0
# Longest wait for digests at the start.
_FIRST_FILES_S = 1.0
# Time of the run that ends a quarantine, where no time of a first run is set.
_RUN_S = 60.0


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Leases per branch, how many requests may queue for one, the transport (`auto` probes), and times in seconds.

    `warmup_s`: time for the first run of a branch, before it is served; 0: it is served without one. `reload_pause_s` and
    `reload_longest_s`: the first and the longest pause before a branch that ran out of memory is loaded again. `order`:
    branches whose first runs come first. `file_timeout_s`: time for one file of the repository. `silence_s`: a poll
    without an answer for so long, and another one, mean that the server hangs. `control_timeout_s`: time for other calls
    that aren't runs, never less than `silence_s`. `endpoint`: what states call the server, where there are several;
    `authority`: the name that it was found by, which its certificate has.
    """

    leases: int = 4
    max_waiting: int = 64
    transport: Literal["auto", "shared_memory", "bytes"] = "auto"
    poll_interval_s: float = 0.5
    control_timeout_s: float = 2.0
    silence_s: float = 1.0
    warmup_s: float = 0.0
    tls: Tls | None = None
    reload_pause_s: float = 1.0
    reload_longest_s: float = 60.0
    order: tuple[str, ...] = ()
    file_timeout_s: float = 5.0
    endpoint: str | None = None
    authority: str | None = None


class TritonEngine:
    """See the module. One thread watches the server: what is ready, and whether it has come back."""

    name = "triton"

    def __init__(
        self, catalogue: Catalogue, url: str, book: WeightsBook, options: TritonOptions | None = None
    ) -> None:
        self.url = url
        self._catalogue = catalogue
        self._options = options or TritonOptions()
        self._closing = threading.Event()
        self._poll_now = threading.Event()
        poll = self._poll_now.set
        control_s = max(self._options.control_timeout_s, self._options.silence_s)
        self._client = TritonClient(url, control_s, self._options.tls, poll, self._options.authority)
        self._files = WeightsFiles(book, poll, limit_s=self._options.file_timeout_s)
        self._runs: Counter[str] = Counter()  # successful ones, by model
        self._runs_lock = threading.Lock()
        self._view = ServerView(
            self._client, catalogue, self._files, self._options.silence_s, self._own_runs
        )
        self._breaker = Breaker()
        self._retries = Retries(self._breaker, retry_reason)
        self._instance = _claim(self._options.transport)
        self.transport: Transport | None = None  # None: not tried since the server was last away
        self._states: Mapping[str, ModelState] = self._all(Readiness.UNREACHABLE, "not asked yet")
        self._pools: dict[str, LeasePool[TritonLease]] = {}
        self._pools_lock = threading.Lock()
        self._connected = self._was_connected = False
        self._reconnects = 0
        self._several = False
        self._said: dict[str, float] = {}
        limit_s = self._options.warmup_s
        order = self._options.order
        self._warmer = Warmer(self._first_run, limit_s, self._poll_now.set, order) if limit_s else None
        self._reload = Reloader(self._client, self._run_once, self._closing, limit_s or _RUN_S)
        pauses = self._options.reload_pause_s, self._options.reload_longest_s
        self._quarantine = Quarantine(self._recover, self._refresh_state, *pauses)
        self.refresh()
        self._files.wait(_FIRST_FILES_S)
        self._watch_states()
        self._watcher = threading.Thread(target=self._watch, name="triton-watcher", daemon=True)
        self._watcher.start()

    def ready(self) -> Mapping[str, ModelState]:
        return self._states

    def serving(self, name: str) -> ModelState:
        return self.ready()[name]

    def endpoints(self) -> Mapping[str, Mapping[str, ModelState]]:
        return {}

    def usage(self) -> EngineUsage:
        with self._pools_lock:
            pools = {name: pool.usage() for name, pool in self._pools.items()}
        return EngineUsage(
            pools,
            self._connected,
            self._reconnects,
            *self._quarantine.counts(),
            *self._retries.counts(),
            self._breaker.open,
            self._breaker.openings(),
            {self.url: self._endpoint_usage(pools.values())},
        )

    def _endpoint_usage(self, pools: Iterable[PoolUsage]) -> EndpointUsage:
        in_flight = sum(pool.in_use + pool.waiting for pool in pools)
        return EndpointUsage(self._connected, self.transport, in_flight, 0)

    @contextmanager
    def lease(self, branch: Branch, deadline: Deadline) -> Iterator[TritonLease]:
        state = self._states[branch.name]
        if not state.ready:
            raise not_served(state)
        pool = self._pools.get(branch.name) or self._pool(branch)
        try:
            lease, began = pool.acquire(deadline), time.monotonic()
            try:
                lease.model = self._states[branch.name]
                if self._quarantine.cases:
                    self._quarantine.refuse(branch.name)
                try:
                    yield lease
                except (InsufficientGpuMemory, ModelNotReady) as error:
                    self._quarantine.note_failure(branch, error)
                    raise
            finally:
                pool.release(lease, time.monotonic() - began)
        except TritonUnavailable:
            self._poll_now.set()
            raise

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._poll_now.set()
        self._watcher.join()
        self._files.close()
        self._quarantine.close()
        if self._warmer is not None:
            self._warmer.close()
        for pool in self._pools.values():
            pool.close()
        if self._instance is not None:
            self._instance.close()
        if not self._breaker.open:
            self._client.settle()
        self._breaker.shut("the engine is closed")
        self._client.close()
        self._quarantine.join()
        if self._warmer is not None:  # closing the channel has ended a run that was under way
            self._warmer.join()

    def abandon(self) -> None:
        if self._instance is None:
            return
        limit = time.monotonic() + _ABANDON_S
        try:
            for name in self._instance.regions():
                if time.monotonic() > limit:
                    break
                # A run may use it: then the memory goes with the server's mapping.
                with suppress(InferenceFailed, RegionLost):
                    self._client.unregister(name, 0.3)
        except GatewayError as error:
            _log.warning("Triton at %s keeps regions until it ends: %s", self.url, error)
        finally:
            self._instance.close()

    def refresh(self) -> None:
        """Ask the server now what is ready."""
        try:
            self._note_reloads(self._view.look())
            self._client.settle()
            if self.transport is None:
                self.transport = self._try_transport()
        except DeadlineExceeded:
            self._poll_failed("it is silent: polls get no answer in time", silent=True)
            return
        except (GatewayError, RegionLost) as error:
            self._poll_failed(str(error), silent=connection_broke(error))
            return
        self._breaker.answered()
        self._watch_states()
        if not self._connected:
            self._quarantine.try_now()
        self._reconnects += self._was_connected and not self._connected
        self._connected = self._was_connected = True

    def _watch_states(self) -> None:
        """Work out the states from the last look; a state that stays equal stays the same object."""
        if self._breaker.open:
            return
        several = self._view.several()
        if several is not None and not self._several:
            _log.warning("several Tritons answer at %s: %s", self.url, several)
        self._several = several is not None
        fresh: Mapping[str, ModelState] = (
            {name: self._state_of(spec) for name, spec in self._catalogue.models.items()}
            if several is None
            else refused(self._catalogue, several, self.url)
        )
        endpoint = self._options.endpoint
        if endpoint is not None:
            fresh = {name: replace(state, endpoint=endpoint) for name, state in fresh.items()}
        old = self._states
        self._states = {
            name: old[name] if old[name] == state else state
            for name, state in self._quarantine.verdicts(fresh).items()
        }

    def _watch(self) -> None:
        while not self._closing.is_set():
            interval = self._options.poll_interval_s
            self._poll_now.wait(interval if self._connected else min(interval, _AWAY_INTERVAL_S))
            self._poll_now.clear()
            if not self._closing.is_set():
                self._files.tend()
                self.refresh()
                self._closing.wait(_LEAST_PAUSE_S)  # whoever asks for a poll, and how often

    def _poll_failed(self, reason: str, *, silent: bool) -> None:
        was_open = self._breaker.open
        if not self._breaker.failed(reason, silent=silent):
            self._poll_now.set()  # asked again at once
            return
        self._lost(reason)
        if silent and not was_open:
            self._client.reconnect()  # or callers would wait for their deadlines, and the dead connection with them

    def _lost(self, reason: str) -> None:
        if self.transport is not None and self._news("away"):
            _log.warning("Triton at %s is away: %s", self.url, reason)
        self.transport = None
        self._connected = False
        self._view.lost(ended="refused" in reason.lower())
        if self._warmer is not None:
            self._warmer.forget_all()
        self._states = self._all(Readiness.UNREACHABLE, reason)
        with self._pools_lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _news(self, what: str) -> bool:
        """Return True if a log line is useful: an unstable server would repeat the same line."""
        now = time.monotonic()
        if now - self._said.get(what, now - _SAY_AGAIN_S) < _SAY_AGAIN_S:
            return False
        self._said[what] = now
        return True

    def _all(self, readiness: Readiness, reason: str) -> dict[str, ModelState]:
        return {
            name: ModelState(
                name, readiness, reason, retry_after=RETRY_AFTER_S, endpoint=self._options.endpoint
            )
            for name in self._catalogue.models
        }

    def _state_of(self, spec: ModelSpec) -> ModelState:
        state, served = self._view.state(spec)
        if not served:
            self._gone(spec.name)
        branch = self._catalogue.branches.get(spec.name)
        if self._warmer is None or branch is None or not state.ready or self._quarantine.holds(spec.name):
            return state
        return self._warmer.verdict(branch, state)

    def _gone(self, name: str) -> None:
        """Forget a model that the server no longer serves, or serves differently."""
        self._quarantine.note_reloads((name,))
        if self._warmer is not None:
            self._warmer.forget(name)

    def _note_reloads(self, reloaded: set[str]) -> None:
        """Run again the models that were loaded again without leaving READY."""
        self._quarantine.note_reloads(reloaded)
        for branch in self._catalogue.branches.values():
            if self._warmer is not None and not reloaded.isdisjoint(model.name for model in branch.models):
                self._warmer.again(branch.name)

    def _run_once(self, branch: Branch, deadline: Deadline) -> None:
        with self._pool(branch).lease(deadline) as lease:
            lease.run(deadline)

    def _first_run(self, branch: Branch, deadline: Deadline) -> None:
        try:
            self._run_once(branch, deadline)
        except InsufficientGpuMemory as error:
            self._quarantine.add(branch, error)
            raise

    def _recover(self, branch: Branch, reloaded: bool) -> Recovery:
        done = self._reload(branch, reloaded)
        if done != "gone" and self._warmer is not None:
            self._warmer.passed(branch, self._states[branch.name].version)
        return done

    def _refresh_state(self, name: str) -> None:
        """Recompute the branch's state now instead of at the next poll, because its quarantine has changed."""
        if self._warmer is not None and self._quarantine.holds(name):
            self._warmer.forget(name)
        self._states = {**self._states, name: self._quarantine.verdict(self._states[name])}
        self._poll_now.set()

    def _pool(self, branch: Branch) -> LeasePool[TritonLease]:
        with self._pools_lock:
            if branch.name not in self._pools:
                options = self._options
                make: Callable[[], TritonLease] = lambda: self._make(branch)  # noqa: E731  # typed, and used once
                self._pools[branch.name] = LeasePool(make, options.leases, options.max_waiting)
            return self._pools[branch.name]

    def _make(self, branch: Branch) -> TritonLease:
        self._breaker.check()
        state = self._states[branch.name]
        if self.transport == "shared_memory" and self._instance is not None:
            try:
                return SharedMemoryLease(
                    self._client, self._retries, self._attribute, self._instance, branch, state
                )
            except (OSError, RegionLost, InferenceFailed) as error:
                if self._options.transport == "shared_memory":
                    raise TritonUnavailable(f"shared memory was asked for and failed: {error}") from error
                if self._news(branch.name):
                    _log.warning("%s goes by bytes: %s", branch.name, error)
            except DeadlineExceeded as error:  # no caller's
                raise TritonUnavailable("it is silent: no answer to a new region", retry_after=1) from error
        return BytesLease(self._client, self._retries, self._attribute, branch, state)

    def _own_runs(self) -> Mapping[str, int]:
        with self._runs_lock:
            return dict(self._runs)

    def _attribute(self, before: ModelState, version: str) -> ModelState:
        """The model that has just answered: as it was known before the run, if nothing has changed since."""
        view, now = self._view, self._states[before.name]
        with self._runs_lock:
            self._runs[before.name] += 1
        if version == before.version and now is before and self._client.doubts == view.doubts:
            return before
        if version != before.version:
            view.answered(before.name, version)
            self._poll_now.set()
            return unattributed(before, version)
        sure = now.used == before.used and self._client.doubts == view.doubts
        return before if sure else unattributed(before)

    def _try_transport(self) -> Transport:
        """Let Triton map a region with a random name: it can only if it shares this host's memory."""
        if self._options.transport == "bytes":
            return "bytes"
        if self._instance is None:
            return self._no_shared_memory(OSError("no region can be made on this host"))
        for name in shared_memory.sweep(self._instance.folder):
            _log.info("removed %s, left behind by a gateway that died", name)
            self._client.forget(name)
        try:
            probe = shared_memory.Region(self._instance, "probe", (TensorSpec("probe", "UINT8", (1,)),))
        except OSError as error:
            return self._no_shared_memory(error)
        try:
            self._client.register(probe)
            self._client.unregister(probe.name)
            for name in shared_memory.ownerless(self._client.regions(), self._instance.folder):
                _log.info("Triton forgets %s: its gateway died, and its memory is gone", name)
                self._client.forget(name)
        except (RegionLost, InferenceFailed) as error:
            return self._no_shared_memory(error)
        finally:
            probe.unlink()
        if self._news("shared_memory"):
            _log.info("Triton at %s shares this host's memory: tensors go by reference", self.url)
        return "shared_memory"

    def _no_shared_memory(self, error: Exception) -> Transport:
        if self._options.transport == "shared_memory":
            raise TritonUnavailable(f"shared memory was asked for and failed: {error}") from error
        if self._news("bytes"):
            _log.info(
                "Triton at %s doesn't share this host's memory, tensors go as bytes: %s", self.url, error
            )
        return "bytes"


def _claim(transport: str) -> shared_memory.Instance | None:
    if transport == "bytes":
        return None
    try:
        return shared_memory.Instance()
    except OSError as error:
        _log.info("no shared memory on this host, tensors go as bytes: %s", error)
        return None
