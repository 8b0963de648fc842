"""The whole stack on one machine: it comes up, its parts see each other, and nothing of it is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from support.paths import ROOT
from support.servers.gateway import png, scene
from support.servers.programs import program
from support.waiting import PATIENCE_S

pytestmark = pytest.mark.triton
STACK = ROOT / "deploy" / "local" / "stack.py"
Running = tuple[subprocess.Popen[str], dict[str, str]]


@pytest.fixture
def stack(repository: Path, tmp_path: Path) -> Iterator[Running]:
    """The program once it says that all is ready, and the addresses that it names."""
    program("prometheus")
    program("redis-server")
    command = [
        sys.executable,
        str(STACK),
        "--repository",
        str(repository),
        "--folder",
        str(tmp_path / "stack"),
    ]
    process = subprocess.Popen([*command, "--scrape-interval", "1s"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        ready = next(line for line in lines if line.startswith("stack: ready "))
        yield process, json.loads(ready.removeprefix("stack: ready "))
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()


def _get(url: str) -> httpx2.Response:
    return httpx2.get(url, timeout=PATIENCE_S)


def _until_up(prometheus: str) -> dict[str, str]:
    limit = time.monotonic() + PATIENCE_S
    while True:
        targets = _get(f"{prometheus}/api/v1/targets").json()["data"]["activeTargets"]
        health = {target["labels"]["job"]: target["health"] for target in targets}
        if set(health.values()) == {"up"} or time.monotonic() > limit:
            return health
        time.sleep(0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_everything_comes_up_and_goes_away(stack: Running, number: signal.Signals) -> None:
    """Sessions work over two workers, Prometheus reaches both targets; whatever ends the program ends all of it."""
    process, addresses = stack
    family = psutil.Process(process.pid).children(recursive=True)
    for at in (1, 2, 3, 4):
        body = png(scene(320, 320, (0, 64, 64, 64)))
        answer = httpx2.post(
            f"{addresses['gateway']}/v1/detect?session=s&timestamp={at}", content=body, timeout=PATIENCE_S
        )
        assert (answer.status_code, answer.json()["session"]["frame"]) == (200, at)
    assert _until_up(addresses["prometheus"]) == {"gateway": "up", "triton": "up"}
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == (0 if number == signal.SIGINT else -number)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert alive == []


def test_a_part_that_is_lost_ends_the_rest(stack: Running) -> None:
    """The program doesn't stay with half a stack: it says so by its exit code, and ends the others."""
    process, _ = stack
    family = psutil.Process(process.pid).children(recursive=True)
    next(one for one in family if one.name() == "prometheus").kill()
    assert process.wait(PATIENCE_S) == 1
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert alive == []


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--workers", "65", "GATEWAY_WORKERS"), ("--repository", "nowhere", "nowhere is no model repository")],
    ids=["a setting that the gateway refuses", "no repository"],
)
def test_what_cannot_start_is_named(
    repository: Path, tmp_path: Path, option: str, value: str, words: str
) -> None:
    """The last words say which part failed and why, and nothing is left."""
    program("redis-server")
    command = [
        sys.executable,
        STACK,
        "--repository",
        repository,
        "--folder",
        tmp_path / "stack",
        option,
        value,
    ]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        seen: set[psutil.Process] = set()
        while process.poll() is None:
            seen |= set(psutil.Process(process.pid).children(recursive=True))
            time.sleep(0.1)
        assert process.stderr is not None
        assert (process.returncode, words in process.stderr.read()) == (1, True)
    assert psutil.wait_procs(seen, timeout=PATIENCE_S)[1] == []
