"""Regions, and who may remove them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from support.repository import CATALOGUE
from support.triton_server import ROOT, TritonServer

from app.engine.shared_memory import Instance, Region, sweep
from app.engine.triton import TritonEngine
from app.engine.weights import WeightsBook

BRANCH = CATALOGUE.branches["midas_256"]
SPECS = (*BRANCH.inputs, *BRANCH.outputs)

_HOLDER = """
import sys, time
from pathlib import Path
from app.engine.shared_memory import Instance, Region
from routing import catalogue
branch = catalogue.load().branches["midas_256"]
instance = Instance(Path(sys.argv[1]))
region = Region(instance, "test", branch.inputs)
print(region.name, flush=True)
time.sleep(600)
"""


def _hold(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Another process with a region of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


def test_tensors_lie_page_aligned_side_by_side(tmp_path: Path) -> None:
    """Views have the contract's shapes, don't overlap, and are backed by the file."""
    instance = Instance(tmp_path)
    region = Region(instance, "test", SPECS)
    arrays = region.arrays()
    assert {name: array.shape for name, array in arrays.items()} == {spec.name: spec.shape for spec in SPECS}
    assert all(slot.offset % os.sysconf("SC_PAGE_SIZE") == 0 for slot in region.slots.values())
    arrays["INPUT__0"].fill(7)
    arrays["OUTPUT__0"].fill(2.5)
    assert arrays["INPUT__0"].min() == arrays["INPUT__0"].max() == 7
    on_file = np.fromfile(tmp_path / region.name, np.uint8)
    assert on_file.size == region.nbytes
    assert np.all(on_file[: arrays["INPUT__0"].size] == 7)
    instance.close()
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_an_error_now_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full /dev/shm fails when the region is made, not with SIGBUS in the middle of a request."""

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    instance = Instance(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Region(instance, "test", SPECS)
    instance.close()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_from_the_dead_and_not_from_the_living(tmp_path: Path) -> None:
    """Only an owner's lock, not its process id, says whether it lives."""
    living, kept = _hold(tmp_path)
    dead, left = _hold(tmp_path)
    try:
        _end(dead)
        mine = Instance(tmp_path)
        own = Region(mine, "test", SPECS)
        (tmp_path / "triton-gateway-not-one.lock").touch()
        assert sweep(tmp_path) == [left]
        assert (tmp_path / kept).exists()
        assert (tmp_path / own.name).exists()
        assert sweep(tmp_path) == []
        mine.close()
        assert (tmp_path / kept).exists()
    finally:
        _end(living)
    assert sweep(tmp_path) == [kept]


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    """The second close finds nothing to do."""
    instance = Instance(tmp_path)
    instance.close()
    instance.close()


_ENGINE = """
import sys, time
from pathlib import Path
from app.engine.base import Deadline
from app.engine.triton import TritonEngine
from app.engine.weights import WeightsBook
from routing import catalogue
c = catalogue.load()
engine = TritonEngine(c, sys.argv[1], WeightsBook(None, None))
with engine.lease(c.branches["midas_256"], Deadline.after(20)) as lease:
    lease.run(Deadline.after(20))
    print(engine._instance.name, flush=True)
    time.sleep(600)
"""


@pytest.mark.triton
def test_the_next_engine_cleans_up_after_one_that_was_killed(triton: TritonServer) -> None:
    """SIGKILL leaves a region in /dev/shm and in Triton; the next start removes both."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ENGINE, triton.grpc_url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    instance = process.stdout.readline().strip()
    _end(process)
    assert not psutil.pid_exists(process.pid)
    with grpcclient.InferenceServerClient(triton.grpc_url) as client:
        assert any(name.startswith(instance) for name in client.get_system_shared_memory_status().regions)
        engine = TritonEngine(CATALOGUE, triton.grpc_url, WeightsBook(None, None))
        try:
            assert list(Path("/dev/shm").glob(f"{instance}*")) == []
            registered = client.get_system_shared_memory_status().regions
            assert not any(name.startswith(instance) for name in registered)
        finally:
            engine.close()
