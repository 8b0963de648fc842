"""The matrix as it is run: real targets, real interruptions, files on disk."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.models import repository as test_repository
from support.models.repository import CATALOGUE
from support.paths import ROOT
from support.servers.gateway import server
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.errors import InsufficientGpuMemory
from app.settings import Settings
from benchmarks.common.environment import device_name, environment, gpus
from benchmarks.matrix.__main__ import main
from benchmarks.matrix.cells import Bench, Effort, Reached, reach
from benchmarks.matrix.plan import TARGETS, policies
from benchmarks.matrix.results import Results, load
from benchmarks.matrix.targets import EngineTarget, JsonCaller, State, inputs_of
from deploy.local.triton_server import TritonServer, free_ports

BRANCHES = ("midas_256", "clip_text")


@dataclass(frozen=True, slots=True)
class Stack:
    """Triton and a gateway in front of it, and the options that lead to them."""

    models: Path
    triton: TritonServer
    options: list[str]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    models = test_repository.build(folder / "models", BRANCHES)
    with (
        TritonServer(models, folder / "triton.log") as triton,
        server(models, folder / "gateway.log", engine="triton", triton_url=triton.grpc_url) as (http, _),
    ):
        where = {
            "gateway-url": http.base_url,
            "triton-url": triton.grpc_url,
            "triton-http-url": triton.http_url,
        }
        options = [part for name, value in where.items() for part in (f"--{name}", str(value).rstrip("/"))]
        yield Stack(models, triton, [*options, "--repository", str(models)])


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.matrix", *map(str, arguments)]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Run the command in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:  # argparse's
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}


def cells(summary: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["branch"], row["policy"], row["target"]): row for row in summary["rows"]}


@pytest.mark.triton
def test_every_target_and_policy(stack: Stack, tmp_path: Path) -> None:
    """All that is READY, on all five targets, under every policy that fits: measured, with its weights' digest."""
    code, out, err = run(*stack.options, "--out", tmp_path, "--run-id", "a", "--repeats", 2, "--warm-up", 1)
    summary = load(tmp_path / "a" / "summary.json")
    rows = cells(summary)
    assert (code, err) == (0, "")
    assert {row["status"] for row in rows.values()} == {"ok"}, out
    for target in TARGETS:
        assert {key[:2] for key in rows if key[2] == target} == {
            *((branch, policy) for branch in BRANCHES for policy in ("seq", "c4", "open@0.8x")),
            ("clip_text", "prompts8"),
            ("clip_text", "prompts29"),
        }
    digest = json.loads((stack.models / "midas_256_onnx" / "1" / "weights.json").read_text())["digest"]
    assert {row["digest"] for key, row in rows.items() if key[0] == "midas_256"} == {digest}
    assert {row["weights"] for row in rows.values()} == {"random"}
    seq = rows["clip_text", "seq", "triton_shm"]
    assert seq["n"] == 2
    assert sum(map(len, seq["samples_ms"])) == 2
    assert seq["p50_ms"] <= seq["p95_ms"] <= seq["p99_ms"] <= seq["max_ms"]
    assert rows["clip_text", "prompts29", "gateway"]["p50_ms"] > rows["clip_text", "seq", "gateway"]["p50_ms"]
    assert {"rate_asked", "rate_achieved", "rate_kept"} <= set(rows["clip_text", "open@0.8x", "triton_shm"])
    assert summary["environment"]["triton"] == "2.51.0"
    assert summary["environment"]["gateway_engine"] == "triton"
    lines = (tmp_path / "a" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == summary["rows"]


@pytest.mark.triton
def test_the_old_client_gets_the_same_numbers(stack: Stack) -> None:
    """JSON over HTTP answers what the engine answers on the same input: its time is that of the same work."""
    settings = Settings(engine="triton", triton_url=stack.triton.grpc_url, repository=stack.models)
    target = EngineTarget("triton_shm", settings, CATALOGUE, 30)
    try:
        for name in BRANCHES:
            branch = CATALOGUE.branches[name]
            inputs = inputs_of(branch, 1)
            caller = JsonCaller(stack.triton.http_url, branch, inputs, 30)
            caller()
            caller.close()
            target.caller(branch, 1)()
            with target.engine.lease(branch, _soon()) as lease:
                for tensor, array in inputs[0].items():
                    lease.inputs[tensor][...] = array
                lease.run(_soon())
                for tensor, array in lease.outputs.items():
                    np.testing.assert_array_equal(caller.outputs[tensor], array)
    finally:
        target.close()


@pytest.mark.triton
def test_what_fails_is_a_row(stack: Stack, tmp_path: Path) -> None:
    """A target that isn't there and a branch that isn't READY are rows with a code, and the rest is measured."""
    port = free_ports(1)[0]
    code, _, err = run(
        *stack.options, "--gateway-url", f"http://127.0.0.1:{port}", "--out", tmp_path, "--run-id", "a",
        "--repeats", 2, "--policies", "seq", "--branches", "clip_text,raft_256,midas_5*", "--targets",
        "gateway,triton_grpc,embedded",
    )  # fmt: skip
    rows = cells(load(tmp_path / "a" / "summary.json"))
    assert code == 0
    assert "gateway: not reached" in err
    assert rows["*", "*", "gateway"]["code"] == "triton_unavailable"
    assert rows["raft_256", "seq", "triton_grpc"]["code"] == "model_not_ready"
    assert rows["raft_256", "seq", "embedded"]["code"] == "weights_missing"
    assert rows["clip_text", "seq", "embedded"]["status"] == "ok"
    assert not [key for key in rows if key[0] == "midas_512"]


class _Target:
    """A target of one branch, whose calls fail as told."""

    name = "embedded"

    def __init__(self, failure: Exception | None, state: State) -> None:
        self._failure, self._state = failure, state
        self.calls = 0

    def states(self) -> dict[str, State]:
        return {"midas_256": self._state}

    def caller(self, *_: Any) -> _Target:
        return self

    def __call__(self) -> None:
        self.calls += 1
        if self._failure:
            raise self._failure

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "target",
    [
        _Target(InsufficientGpuMemory("no room"), State(ready=True)),
        _Target(None, State(ready=False, code="insufficient_gpu_memory", reason="no room")),
    ],
    ids=["at the call", "at loading"],
)
def test_out_of_memory_is_a_row(tmp_path: Path, target: _Target) -> None:
    """The run continues if the GPU's memory ends, at loading or at a call."""
    results = Results(tmp_path / "run", {})
    Bench(CATALOGUE, [Reached(target, target.states())], Effort(5, 1), results).run(
        ["*"], policies("seq,open@0.5x")
    )
    first, second = load(results.summary_path)["rows"]
    assert (first["status"], first["code"], first["n"]) == ("error", "insufficient_gpu_memory", 0)
    assert second["code"] in ("no_base_rate", "insufficient_gpu_memory")
    assert target.calls <= 1


def test_a_target_that_can_not_be_made_is_a_row(tmp_path: Path) -> None:
    """An engine whose package isn't installed doesn't end the run."""

    def broken() -> Any:
        raise RuntimeError("the embedded engine needs ONNX Runtime")

    results = Results(tmp_path / "run", {})
    assert reach([("embedded", broken)], results) == []
    assert results.rows[0]["code"] == "not_installed"


# The benchmark, which stops once it has kept two rows.
STOPS = """
import os, signal, sys
from benchmarks.matrix.__main__ import main
from benchmarks.matrix.results import Results
add = Results.add
def add_and_stop(self, rows):
    before = len(self.rows)
    add(self, rows)
    if before < 2 <= len(self.rows):
        os.kill(os.getpid(), signal.SIGSTOP)
Results.add = add_and_stop
sys.exit(main())
"""


@pytest.mark.triton
def test_an_interrupted_run_goes_on(stack: Stack, tmp_path: Path) -> None:
    """Measured cells stay on disk; --resume measures the rest, and nothing twice."""
    matrix = ["--repeats", "2", "--targets", "triton_shm,embedded", "--policies", "seq,c4"]
    what = [*stack.options, "--out", tmp_path, *matrix]
    lines = tmp_path / "a" / "results.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS, *command(*what, "--run-id", "a", "--warm-up", "1")[3:]],
        cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=180)
    before = lines.read_text()
    assert process.returncode == 130, err
    assert "--resume a" in err
    kept = load(tmp_path / "a" / "summary.json")
    assert 2 <= len(kept["rows"]) < 8
    lines.write_text(before + '{"branch": "cut off in the midd')
    assert run(*what, "--resume")[0] == 0
    after = lines.read_text()
    rows = [json.loads(line) for line in after.splitlines() if not line.endswith("midd")]
    assert after.startswith(before)
    assert len(rows) == len({(row["branch"], row["policy"], row["target"]) for row in rows}) == 8
    summary = load(tmp_path / "a" / "summary.json")
    assert summary["started_at"] == kept["started_at"]
    assert len(summary["commands"]) == 2


def test_other_weights_are_measured_again(tmp_path: Path) -> None:
    """A resumed run trusts no row of another digest, and no error."""
    results = Results(tmp_path / "run", {})
    base = {"branch": "b", "policy": "seq", "target": "t", "digest": "sha256:1"}
    results.add([{**base, "status": "ok"}])
    assert results.done(("b", "seq", "t"), "sha256:1")
    assert not results.done(("b", "seq", "t"), "sha256:2")
    results.add([{**base, "status": "error"}])
    assert not results.done(("b", "seq", "t"), "sha256:1")


def test_comparison_and_exit_codes(tmp_path: Path) -> None:
    """The same run: 0. Everything twice as slow: 1. No summary: 2."""
    results = Results(tmp_path / "old", {"environment": {"gpus": [], "cpu": "c", "cpu_count": 2}})
    samples = [[10.0, 10.1, 9.9, 10.2, 9.8]] * 3
    row = {
        "branch": "b",
        "policy": "seq",
        "target": "t",
        "status": "ok",
        "p50_ms": 10.0,
        "samples_ms": samples,
    }
    results.add([row])
    document = results.document()
    slow = {**row, "p50_ms": 20.0, "samples_ms": [[2 * value for value in part] for part in samples]}
    (tmp_path / "new.json").write_text(json.dumps({**document, "rows": [slow]}))
    same = run("--compare", results.summary_path, results.summary_path)
    slower = run("--compare", results.summary_path, tmp_path / "new.json")
    assert (same[0], same[1].splitlines()[-1]) == (0, "no regression")
    assert (slower[0], slower[1].splitlines()[-1]) == (1, "REGRESSION in 1 cells")
    assert "2.000" in slower[1]
    assert run("--compare", tmp_path / "nothing.json")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [["--policies", "sequential"], ["--targets", "x"], ["--repeats", "0"], ["--resume", "nothing"]],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    assert run(*arguments, "--out", tmp_path)[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["-m", "app.cli", "bench"], [str(ROOT / "benchmarks" / "run_bench.py")]])
def test_gateway_bench_is_this_module(command: list[str], tmp_path: Path) -> None:
    """`gateway bench` hands everything on, options and exit code too, in any folder."""
    done = subprocess.run(
        [sys.executable, *command, "--policies", "sequential"],
        check=False, cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("bench: 'sequential' is no policy")


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU where nvidia-smi knows one, by name; else the CPU."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 2060, 550.54, 6144 MiB, 7.5'\n")
    tool.chmod(0o755)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("PATH", "")
    assert gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = environment(nobody, f"http://{nobody}", {})
    assert device_name(found) == "NVIDIA GeForce RTX 2060"
    assert found["gpus"][0]["memory.total"] == "6144 MiB"
    assert found["triton"] is None
    assert device_name({**found, "gpus": []}).endswith(f"{found['cpu_count']} cores")


def test_the_plot(tmp_path: Path) -> None:
    """A PNG with one panel per family; errors don't break it."""
    pytest.importorskip("matplotlib")
    from benchmarks.matrix.plot import plot  # noqa: PLC0415  # an extra: matplotlib

    ok = {"policy": "seq", "status": "ok", "p50_ms": 1.5, "p95_ms": 2}
    rows: list[dict[str, Any]] = [
        {**ok, "branch": branch, "family": branch[:4], "target": target}
        for branch in ("midas_256", "midas_384", "raft_256")
        for target in TARGETS
    ]
    rows.append({**rows[0], "branch": "midas_512", "status": "error", "code": "insufficient_gpu_memory"})
    plot({"rows": rows, "environment": {"gpus": [], "cpu": "c", "cpu_count": 2}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def _soon() -> Deadline:
    return Deadline.after(PATIENCE_S)
