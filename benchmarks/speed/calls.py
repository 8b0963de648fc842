"""Python calls, project files and CPU of one request through the whole service, counted by the interpreter.

    python -m benchmarks.speed.calls [--engine triton|embedded] [--path /v1/detect] [--files] [--functions 40]

The service runs in this process, on its own uvicorn, over models that compute next to nothing; a caller on the main
thread sends a JPEG of 640x480 again and again on one connection. `sys.setprofile` counts on every thread but the
caller's: each call of a Python function and each resumption of a generator or coroutine, as the interpreter sees them.
Of several requests the one with the fewest calls counts, since a thread that polls the backend may run during others.
CPU is what all threads but the caller's take per request, without a profile; compare it within one run of a machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import uvicorn

from app.api.server import uvicorn_options
from app.main import create_app
from app.settings import Settings
from benchmarks import ROOT
from benchmarks.common import null_models, services

_WARM_UP, _COUNTED, _TIMED = 20, 9, 300
_ROOMS = tuple(f"{ROOT / room}/" for room in ("app", "routing"))
_START_S = 60


@dataclass
class Count:
    """Calls of one request by function, and the project's files that ran."""

    calls: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    builtins: int = 0

    @property
    def total(self) -> int:
        return sum(self.calls.values())


class Profile:
    """Counts calls on every thread that is started while it is installed, except on the one that installs it."""

    def __init__(self) -> None:
        self._count: Count | None = None

    def __enter__(self) -> Profile:
        threading.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        count = self._count
        if count is None or event not in ("call", "c_call"):
            return
        if event == "c_call":
            count.builtins += 1
            return
        code = frame.f_code
        name = code.co_filename
        if name.startswith(_ROOMS):
            name = name[len(str(ROOT)) + 1 :]
            count.files.add(name)
        count.calls[f"{name}:{code.co_firstlineno} {code.co_qualname}"] += 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[Count]:
        """Count what is called meanwhile."""
        self._count = count = Count()
        try:
            yield count
        finally:
            self._count = None


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[int]:
    """The service on a thread of this process, ready: its port."""
    listening = uvicorn_options.listen(settings)
    config = uvicorn.Config(
        create_app(settings), log_config=None, access_log=False, **uvicorn_options.options(settings)
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # they need the main thread
    thread = threading.Thread(target=server.run, kwargs={"sockets": listening}, name="server")
    thread.start()
    try:
        port = listening[0].getsockname()[1]
        _wait_ready(port)
        yield port
    finally:
        server.should_exit = True
        thread.join()


def _wait_ready(port: int) -> None:
    limit = time.monotonic() + _START_S
    while True:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_START_S)) as probe:
            probe.request("GET", "/readyz")
            answer = probe.getresponse()
            if answer.status == 200:
                return
            if time.monotonic() > limit:
                raise RuntimeError(answer.read().decode())
        time.sleep(0.05)


class Caller:
    """Sends one request again and again on one connection."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_S)
        self._path, self._body = path, body

    def __call__(self) -> bytes:
        self._connection.request("POST", self._path, self._body, {"Content-Type": "image/jpeg"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self._path}: {answer.status} {content.decode()}")
        return content

    def close(self) -> None:
        self._connection.close()


def picture(width: int = 640, height: int = 480) -> bytes:
    """A JPEG of smooth noise: the size of a photograph."""
    small = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    encoded = cv2.imencode(".jpg", cv2.resize(small, (width, height)))[1]
    return bytes(encoded)


def counted(settings: Settings, path: str, body: bytes) -> Count:
    """The request with the fewest calls of several, after some that warm up."""
    with Profile() as profile, served(settings) as port, contextlib.closing(Caller(port, path, body)) as call:
        for _ in range(_WARM_UP):
            call()
        counts = []
        for _ in range(_COUNTED):
            with profile.counting() as count:
                call()
                time.sleep(0.02)  # what the service does after the answer's last byte is a part of it
            counts.append(count)
    return min(counts, key=lambda count: count.total)


def cpu_us(settings: Settings, path: str, body: bytes) -> float:
    """Microseconds of CPU per request of every thread but the caller's; the median of several rounds."""
    with served(settings) as port, contextlib.closing(Caller(port, path, body)) as call:
        for _ in range(_WARM_UP):
            call()
        rounds = []
        for _ in range(_COUNTED):
            before = time.process_time() - time.thread_time()
            for _ in range(_TIMED):
                call()
            rounds.append((time.process_time() - time.thread_time() - before) / _TIMED * 1e6)
    return statistics.median(rounds)


@contextlib.contextmanager
def settings_of(engine: str, folder: Path) -> Iterator[Settings]:
    """Settings of a service over null models, with a real Triton where that is the engine."""
    repository = null_models.build(
        folder / "models",
        ["yolo11n_320", "yolo11n_640", "yolo11n_960", "midas_256", "midas_384", "midas_512"],
    )
    common: dict[str, Any] = {
        "repository": repository,
        "variant": "n",
        "videos_folder": None,
        "port": 0,
        "manifest": None,
        "embedded_threads": 1,
        "require_ready": "yolo11n_640,midas_512",
    }
    if engine == "embedded":
        yield Settings(**common)
        return
    with services.triton(repository, folder / "triton.log") as server:
        yield Settings(engine="triton", triton_url=server.grpc_url, **common)


def main() -> None:
    """Count, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("triton", "embedded"), default="triton")
    parser.add_argument("--path", default="/v1/detect", help="with its query")
    parser.add_argument("--files", action="store_true", help="list the project's files that ran")
    parser.add_argument(
        "--functions", type=int, default=0, metavar="N", help="list the N functions called most often"
    )
    parser.add_argument("--no-cpu", action="store_true", help="count only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, settings_of(options.engine, Path(folder)) as settings:
        body = picture()
        count = counted(settings, options.path, body)
        cpu = None if options.no_cpu else cpu_us(settings, options.path, body)
    ours = sum(n for name, n in count.calls.items() if name.startswith(("app/", "routing/")))
    print(
        json.dumps(
            {
                "engine": options.engine,
                "path": options.path,
                "calls": count.total,
                "of_the_project": ours,
                "of_builtins": count.builtins,
                "files": len(count.files),
                "cpu_us": cpu and round(cpu),
            }
        )
    )
    for name in sorted(count.files) if options.files else ():
        print(f"  {sum(n for called, n in count.calls.items() if called.startswith(name + ':')):4} {name}")
    for name, calls in count.calls.most_common(options.functions):
        print(f"  {calls:4} {name}")


if __name__ == "__main__":
    main()
