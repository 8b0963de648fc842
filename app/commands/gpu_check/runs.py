"""Runs of branches in a process of their own, which may end by a crash: its parent goes on."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.commands.smoke.inputs import tensors
from app.deadline import Deadline
from app.engine.base import Engine, not_served
from app.errors import GatewayError
from app.main import create_engine, embedded_providers
from app.process import gpus
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Branch
from routing.policy import Readiness

_END_S = 10.0
CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Job:
    """Work for one process: the branches one after another, each kept loaded while the next ones run."""

    settings: Settings
    names: tuple[str, ...]
    repeats: int
    timeout_s: float
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One branch. `status` is `ok` or a problem code; `memory` is what is taken after it, all branches together.

    `answer` is the first output, if it was asked for.
    """

    name: str
    status: str
    detail: str = ""
    device: str = ""
    engine: str = ""
    precision: str = ""
    load_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    memory: int | None = None
    answer: NDArray[Any] | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "answer"}


def memory_taken() -> int | None:
    """Memory that all programs take on the first GPU; without a GPU, that of this process; None if neither is known."""
    found = gpus.found()
    return found[0].used if found else _resident()


def _resident() -> int | None:
    try:
        fields = Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()
    except (OSError, IndexError):  # not Linux
        return None
    return int(fields[0]) << 10


def in_process(job: Job) -> Iterator[Run | int | None]:
    """The memory before the first branch, then a run per branch as each is over. A crash is a run, too."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(writer, job), daemon=True)
    process.start()
    writer.close()
    done = 0
    try:
        while True:
            sent = reader.recv()
            done += isinstance(sent, Run)
            yield sent
    except EOFError:
        process.join(_END_S)
        if done < len(job.names):
            yield Run(job.names[done], CRASHED, f"its process ended with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join(_END_S)
        reader.close()


def _work(connection: Connection, job: Job) -> None:
    """The child: what it sends is what `in_process` yields. Its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if job.settings.engine == "embedded":
        embedded_providers()  # ONNX Runtime's own code belongs to no branch
    connection.send(memory_taken())
    catalogue = load_catalogue(job.settings)
    engines: list[Engine] = []
    try:
        for name in job.names:
            branch = catalogue.branches[name]
            began = time.monotonic()
            try:
                if not engines or job.settings.engine == "embedded":
                    engines.append(create_engine(_only(job, name), catalogue))
                connection.send(_measured(engines[-1], branch, job, began))
            except GatewayError as error:
                connection.send(Run(name, error.code, error.detail, memory=memory_taken()))
            except RuntimeError as error:
                connection.send(Run(name, "unusable", str(error)))
    finally:
        for engine in engines:
            engine.close()
        connection.close()


def _only(job: Job, name: str) -> Settings:
    changes = {
        "models": name,
        "leases": 1,
        "rescan_s": 0.0,
        "graph_cache": "",
        "warmup_timeout_s": job.timeout_s,
    }
    return job.settings.model_copy(update=changes)


def _measured(engine: Engine, branch: Branch, job: Job, began: float) -> Run:
    """Load, run and time one branch.

    Raises:
        GatewayError: it can't be loaded or run.
    """
    deadline = Deadline.after(job.timeout_s)
    while engine.ready()[branch.name].readiness in (Readiness.LOADING, Readiness.UNREACHABLE):
        deadline.check("load")
        time.sleep(0.02)
    state = engine.ready()[branch.name]
    if not state.ready:
        raise not_served(state)
    load_s = time.monotonic() - began
    times = []
    with engine.lease(branch, deadline) as lease:
        for name, array in tensors(branch, 0).items():
            lease.inputs[name][...] = array
        lease.run(deadline)
        for _ in range(job.repeats):
            started = time.perf_counter()
            lease.run(deadline)
            times.append(1000 * (time.perf_counter() - started))
        answer = next(iter(lease.outputs.values())).copy() if job.answers else None
    used = state.used
    return Run(
        branch.name, "ok", "", used.device, used.engine, used.precision, load_s,
        float(np.percentile(times, 50)), float(np.percentile(times, 95)), memory_taken(), answer,
    )  # fmt: skip


def alone(
    settings: Settings, name: str, repeats: int, timeout_s: float, *, answers: bool = False
) -> tuple[Run, int | None]:
    """Run one branch without others; the memory that it took, if that is known."""
    before: int | None = None
    for sent in in_process(Job(settings, (name,), repeats, timeout_s, answers)):
        if isinstance(sent, Run):
            taken = None if before is None or sent.memory is None else sent.memory - before
            return sent, taken
        before = sent
    return Run(name, CRASHED), None


def together(settings: Settings, names: Sequence[str], timeout_s: float) -> Iterator[Run | int | None]:
    """Load and run one branch after another in one process, none of them closed."""
    return in_process(Job(settings, tuple(names), 1, timeout_s))
