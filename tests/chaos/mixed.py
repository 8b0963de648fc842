"""Mixed load while the real Triton is killed, suspended, restarted, its models unloaded, and the connection cut.

    make chaos CHAOS=mixed CHAOS_ARGS='--minutes 10'

Prints what was sent and what came back. Wrong answers, hangs beyond the deadline and answers later than a second after
READY make it fail.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from support.models import repository as test_repository
from support.paths import ROOT

from deploy.local.triton_server import TritonServer, free_ports
from tests.chaos.common import Cable, Load, client

TIMEOUT_S = 5.0
CLIENTS = 6
MODELS = ("yolo11n_320", "midas_256", "clip_text")


class Stack:
    """Triton, a cable, and a gateway at its end."""

    def __init__(self, folder: Path) -> None:
        names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
        self.repository = test_repository.build(folder / "models", names)
        self.triton = TritonServer(self.repository, folder / "triton.log", load=list(names))
        self.port, self.cable_port = free_ports(2)
        self.folder = folder

    async def __aenter__(self) -> Stack:
        self._undo = contextlib.AsyncExitStack()
        async with self._undo as undo:
            await asyncio.to_thread(self.triton.start)
            undo.push_async_callback(asyncio.to_thread, self.triton.stop)
            self.cable = Cable(self.cable_port, int(self.triton.grpc_url.rpartition(":")[2]))
            await self.cable.plug()
            undo.push_async_callback(self.cable.cut)
            self._serve(undo)
            async with client(f"http://127.0.0.1:{self.port}") as http:
                await until_ready(http, "/readyz", 60)
            self._undo = undo.pop_all()
        return self

    def _serve(self, undo: contextlib.AsyncExitStack) -> None:
        environment = {
            **os.environ, "GATEWAY_ENGINE": "triton", "GATEWAY_TRITON_URL": f"127.0.0.1:{self.cable_port}",
            "GATEWAY_REPOSITORY": str(self.repository), "GATEWAY_VARIANT": "n", "GATEWAY_VIDEOS_FOLDER": "",
            "GATEWAY_TEXT_CACHE_BYTES": "0",
        }  # fmt: skip
        log = undo.enter_context((self.folder / "gateway.log").open("wb"))
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)]
        self.gateway = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        undo.push_async_callback(asyncio.to_thread, self.gateway.wait, 60)
        undo.callback(self.gateway.terminate)

    def regions(self) -> list[str]:
        """Return the regions of the host's shared memory that the gateway maps."""
        maps = Path(f"/proc/{self.gateway.pid}/maps").read_text(encoding="utf-8").splitlines()
        return sorted({line.split()[-1] for line in maps if "/dev/shm/" in line})

    async def __aexit__(self, *_: object) -> None:
        await self._undo.aclose()


async def until_ready(http: httpx2.AsyncClient, path: str, seconds: float) -> float:
    """Return the time at which the path answered 200."""
    limit = time.monotonic() + seconds
    while True:
        try:
            if (await http.get(path)).status_code == 200:
                return time.monotonic()
        except httpx2.TransportError:
            pass
        if time.monotonic() > limit:
            said = (await http.get(path)).text
            raise RuntimeError(f"{path} is not ready after {seconds} s: {said}")
        await asyncio.sleep(0.02)


class Monkey:
    """Hurts the stack in turn; remembers when Triton was READY again."""

    def __init__(self, stack: Stack, triton: httpx2.AsyncClient) -> None:
        self._stack, self._triton = stack, triton
        self.ready_at: list[tuple[str, float]] = []
        self.died = 0  # by itself: Triton 2.51 at times does after SIGCONT
        self.done: list[str] = []

    async def turn(self, number: int) -> None:
        deeds = (self.kill, self.unload, self.suspend, self.cut, self.restart)
        deed = deeds[number % len(deeds)]
        await deed()
        self.done.append(deed.__name__)

    async def kill(self) -> None:
        await asyncio.to_thread(self._stack.triton.kill)
        await asyncio.sleep(1)
        await asyncio.to_thread(self._stack.triton.start)
        await self._ready("kill -9")

    async def restart(self) -> None:
        await asyncio.to_thread(self._stack.triton.restart)
        await self._ready("restart")

    async def suspend(self) -> None:
        self._stack.triton.suspend()
        await asyncio.sleep(20)
        self._stack.triton.resume()
        await self._ready("SIGSTOP 20 s")

    async def unload(self) -> None:
        for action in ("unload", "load"):
            for model in MODELS:
                await self._triton.post(f"/v2/repository/models/{model}/{action}")
            await asyncio.sleep(2)
        await self._ready("unload and load")

    async def cut(self) -> None:
        await self._stack.cable.cut()
        await asyncio.sleep(3)
        await self._stack.cable.plug()
        await self._ready("connection cut")

    async def _ready(self, what: str) -> None:
        before = self._stack.triton.processes()[:1]
        await asyncio.to_thread(self._stack.triton.revived)
        self.died += self._stack.triton.processes()[:1] != before
        await until_ready(self._triton, "/v2/health/ready", 60)
        for model in MODELS:
            await until_ready(self._triton, f"/v2/models/{model}/ready", 60)
        self.ready_at.append((what, time.monotonic()))


async def run(minutes: float) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Stack(Path(folder)) as stack,
            client(f"http://127.0.0.1:{stack.port}") as http,
            client(stack.triton.http_url) as triton,
        ):
            load, monkey, stop = Load(http, TIMEOUT_S), Monkey(stack, triton), asyncio.Event()
            await load.learn()
            senders = [asyncio.create_task(load.forever(stop, number)) for number in range(CLIENTS)]
            limit, number = time.monotonic() + minutes * 60, 0
            while time.monotonic() < limit:
                await asyncio.sleep(8)
                await monkey.turn(number)
                number += 1
            await asyncio.sleep(5)
            stop.set()
            await asyncio.gather(*senders)
            regions = stack.regions()
        left = [name for name in regions if Path(name).exists()]
    return report(load, monkey, left, minutes)


def report(load: Load, monkey: Monkey, left: list[str], minutes: float) -> int:
    first: dict[str, list[float | None]] = {}
    for what, ready in monkey.ready_at:
        later = [at for at in load.tally.good_at if at >= ready]
        first.setdefault(what, []).append(round(later[0] - ready, 3) if later else None)
    rows = load.tally.rows() | {
        "minutes": minutes,
        "clients": CLIENTS,
        "deeds": len(monkey.done),
        "Triton died by itself": monkey.died,
        "seconds from READY to the first right answer": first,
        "regions left in /dev/shm": left,
    }
    print(json.dumps(rows, indent=1))
    for line in (*load.tally.wrong[:5], *load.tally.hangs[:5]):
        print("!", line)
    late = [s for seconds in first.values() for s in seconds if s is None or s > 1]
    return 1 if load.tally.wrong or load.tally.hangs or late or left else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    return asyncio.run(run(parser.parse_args().minutes))


if __name__ == "__main__":
    sys.exit(main())
