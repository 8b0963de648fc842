"""`gateway serve` from its first moment on: the port, what is answered while models load, and SIGTERM at any time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2
import psutil
import pytest
from support.models import repository as test_repository
from support.models.endless import endless
from support.paths import ROOT
from support.servers.gateway import png, scene
from support.waiting import PATIENCE_S, eventually

from deploy.local.triton_server import free_ports

STEADY, ENDLESS = "yolo11n_320", "yolo11n_640"
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")  # the command inside is process 1
# A run that never ends may have so many seconds of CPU: then the kernel ends its process, whatever else is stuck.
LIMITED = ("sh", "-c", 'ulimit -t 300; exec "$@"', "sh")
SHM = Path("/dev/shm")


class Process:
    """A `gateway serve` of a test, from its first moment; `inner` is its process where that isn't `process`."""

    def __init__(self, log: Path, prefix: Sequence[str] = (), **settings: object) -> None:
        self.port = free_ports(1)[0]
        self.log = log
        given = {"port": self.port, "variant": "n", "videos_folder": "", "manifest": "", **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in given.items()}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*LIMITED, *prefix, sys.executable, "-m", "app.cli", "serve"],
                cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._inside = bool(prefix)

    def inner(self) -> psutil.Process:
        own = psutil.Process(self.process.pid)
        if self._inside:
            eventually(lambda: bool(own.children()))
            return own.children()[0]
        return own

    def said(self, words: str) -> bool:
        assert self.process.poll() is None or words in self.log.read_text(), self.log.read_text()
        return words in self.log.read_text()

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Make = Callable[..., Process]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes gateways over a detector that is ready and one whose first run never ends; ends what is left of them."""
    models = test_repository.build(tmp_path / "models", [STEADY, ENDLESS])
    endless(models, ENDLESS)
    made: list[Process] = []

    def started(prefix: Sequence[str] = (), **settings: object) -> Process:
        log = tmp_path / f"gateway-{len(made)}.log"
        made.append(Process(log, prefix, **{"repository": models, "warmup_timeout_s": 3600, **settings}))
        return made[-1]

    yield started
    for process in made:
        process.end()


def catches_sigterm(process: Process) -> bool:
    """True if a handler stands between SIGTERM and process 1, which otherwise ignores it."""
    status = Path(f"/proc/{process.inner().pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


MOMENTS = {
    "first line of Python": catches_sigterm,
    "port taken": lambda process: process.said("listening on"),
    "workers begin": lambda process: process.said("Started parent process"),
    "application begins": lambda process: process.said("Waiting for application startup"),
    "models load": lambda process: process.said("loading 1 of"),
    "first run under way": lambda process: process.said(f"loaded {STEADY}"),
}


@pytest.mark.parametrize("prefix", [(), NAMESPACE], ids=["a process", "process 1"])
@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "workers begin"])
def test_sigterm_ends_it_at_every_moment_of_its_start(make: Make, moment: str, prefix: Sequence[str]) -> None:
    """With code 0 and without a traceback, also in the middle of a first run that would never end."""
    if prefix and os.geteuid() != 0:
        pytest.skip("only root makes a process 1")
    gateway = make(prefix)
    eventually(lambda: MOMENTS[moment](gateway))
    gateway.inner().terminate()
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize(
    "moment", ["port taken", "workers begin", "application begins", "first run under way"]
)
def test_sigterm_ends_workers_at_every_moment_of_their_start(make: Make, moment: str) -> None:
    """With code 0, and no worker, no folder of metrics and no listener is left."""
    gateway = make(workers=2)
    eventually(lambda: MOMENTS[moment](gateway))
    family = [gateway.inner(), *gateway.inner().children(recursive=True)]
    gateway.process.terminate()
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log.read_text()
    assert psutil.wait_procs(family, timeout=PATIENCE_S)[1] == []
    assert not folders_of(family)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port), 5)


def folders_of(family: Sequence[psutil.Process]) -> list[Path]:
    """Folders of metrics that processes of this family have written into."""
    files = {f"_{process.pid}.db" for process in family}
    return [
        f for f in SHM.glob("gateway-metrics-*") if any(p.name.endswith(tuple(files)) for p in f.iterdir())
    ]


def test_while_models_load_everything_is_answered(make: Make) -> None:
    """Alive, not ready and why, and frames get 503 model_not_ready with a time to come back."""
    gateway = make(models=ENDLESS)
    eventually(lambda: gateway.said("listening on"))
    assert gateway.get("/livez").status_code == 200
    readyz = gateway.get("/readyz")
    assert readyz.status_code == 503
    assert [(row["name"], row["readiness"]) for row in readyz.json()["failing"]] == [(ENDLESS, "loading")]
    url = f"http://127.0.0.1:{gateway.port}/v1/detect"
    refused = httpx2.post(url, content=png(scene(640, 640)), timeout=PATIENCE_S)
    assert (refused.status_code, refused.json()["code"]) == (503, "model_not_ready")
    assert refused.headers["retry-after"] == "2"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("which", ["port", "operate_port"])
def test_a_busy_port_is_one_line(make: Make, which: str, workers: int) -> None:
    """Before any model is loaded: the setting, the address and why, and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        gateway = make(**{which: busy.getsockname()[1], "workers": workers})
        assert gateway.process.wait(PATIENCE_S) == 2
        (line,) = gateway.log.read_text().splitlines()
        assert line.startswith(f"gateway: GATEWAY_{which.upper()}: ")
        assert str(busy.getsockname()[1]) in line
        assert "in use" in line


@pytest.mark.parametrize(
    ("host", "variable"), [("192.0.2.1", "GATEWAY_HOST"), ("no-such-host.invalid", "GATEWAY_HOST")]
)
def test_an_address_that_is_not_this_host_s_is_one_line(make: Make, host: str, variable: str) -> None:
    """The setting and the address, and exit code 2."""
    gateway = make(host=host)
    assert gateway.process.wait(PATIENCE_S) == 2
    (line,) = gateway.log.read_text().splitlines()
    assert line.startswith(f"gateway: {variable}: {host}")


def test_workers_without_a_folder_for_their_metrics_are_one_line(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting that names another folder, and exit code 2."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/proc")
    gateway = make(workers=2)
    assert gateway.process.wait(PATIENCE_S) == 2
    assert gateway.log.read_text().splitlines()[-1].startswith("gateway: GATEWAY_WORKERS: ")
    assert "PROMETHEUS_MULTIPROC_DIR" in gateway.log.read_text()


def test_workers_keep_their_metrics_in_memory(make: Make) -> None:
    """Their folder is in /dev/shm, so no disk is needed; the next start removes what a killed gateway left there."""
    gateway = make(workers=2, models=STEADY)
    eventually(lambda: gateway.said("listening on"))
    eventually(lambda: gateway.get("/readyz").status_code == 200)
    family = [gateway.inner(), *gateway.inner().children(recursive=True)]
    (folder,) = folders_of(family)
    with (folder / ".lock").open("rb") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    gateway.end()
    psutil.wait_procs(family, timeout=PATIENCE_S)
    assert folder.is_dir()
    following = make(workers=2, models=STEADY)
    eventually(lambda: following.said("Started parent process"))
    assert not folder.exists()
