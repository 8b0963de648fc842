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
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE
from support.paths import ROOT
from support.waiting import PATIENCE_S
from deploy.local.triton_server import TritonServer

from app.deadline import Deadline
from app.engine.triton.shared_memory import Instance, Region, sweep
from routing.catalogue import TensorSpec

BRANCH = CATALOGUE.branches["midas_256"]
SPECS = (*BRANCH.inputs, *BRANCH.outputs)

_HOLDER = """
import sys, time
from pathlib import Path
from app.engine.triton.shared_memory import Instance, Region
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
    process.wait(PATIENCE_S)
    assert process.stdout is not None
    process.stdout.close()


def test_tensors_lie_page_aligned_side_by_side(tmp_path: Path) -> None:
    """Views have the contract's shapes, fill whole pages, don't overlap, and are backed by the file."""
    instance = Instance(tmp_path)
    region = Region(instance, "test", SPECS)
    arrays = region.arrays()
    assert {name: array.shape for name, array in arrays.items()} == {spec.name: spec.shape for spec in SPECS}
    page = os.sysconf("SC_PAGE_SIZE")
    pages = {spec.name: -(-spec.nbytes // page) for spec in SPECS}
    assert region.slots["INPUT__0"].offset == 0
    assert region.slots["OUTPUT__0"].offset == pages["INPUT__0"] * page
    assert region.nbytes == sum(pages.values()) * page
    arrays["INPUT__0"].fill(7)
    arrays["OUTPUT__0"].fill(2.5)
    assert arrays["INPUT__0"].min() == arrays["INPUT__0"].max() == 7
    on_file = np.fromfile(tmp_path / region.name, np.uint8)
    assert on_file.size == region.nbytes
    assert np.all(on_file[: arrays["INPUT__0"].size] == 7)
    instance.close()
    assert list(tmp_path.iterdir()) == []


def test_a_small_tensor_gets_a_page_of_its_own(tmp_path: Path) -> None:
    """Sizes that are no multiple of a page are rounded up, one tensor at a time."""
    instance = Instance(tmp_path)
    page = os.sysconf("SC_PAGE_SIZE")
    sizes = (1, page, page + 1, 5)
    region = Region(instance, "test", [TensorSpec(f"t{size}", "UINT8", (size,)) for size in sizes])
    assert [slot.offset // page for slot in region.slots.values()] == [0, 1, 2, 4]
    assert region.nbytes == (tmp_path / region.name).stat().st_size == 5 * page
    instance.close()


def test_nobody_else_may_read_a_region(tmp_path: Path) -> None:
    """Frames lie in it: the file is its owner's alone, and so is the claim."""
    instance = Instance(tmp_path)
    Region(instance, "test", SPECS)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    instance.close()


def test_close_removes_all_of_its_own_and_nothing_else(tmp_path: Path) -> None:
    """Two instances in one folder: the end of one leaves the other's regions as they are."""
    one, other = Instance(tmp_path), Instance(tmp_path)
    gone = [Region(one, label, SPECS) for label in ("a", "b", "c")]
    kept = Region(other, "a", SPECS)
    one.close()
    assert not any((tmp_path / region.name).exists() for region in gone)
    assert (tmp_path / kept.name).exists()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_room_holds_no_part_of_a_region(tmp_path: Path) -> None:
    """On a real, tiny tmpfs: the error comes when the region is made, and the room that is left stays."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("mounting needs root; the next test does without")
    try:
        instance = Instance(tmp_path)
        with pytest.raises(OSError, match="No space"):
            Region(instance, "test", SPECS)
        assert [path.name for path in tmp_path.iterdir()] == [f"{instance.name}.lock"]
        Region(instance, "small", [TensorSpec("x", "UINT8", (8192,))])
        instance.close()
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


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
from app.engine.triton.engine import TritonEngine
from app.engine.weights import WeightsBook
from routing import catalogue
c = catalogue.load()
engine = TritonEngine(c, sys.argv[1], WeightsBook(None, None))
while not engine.usage().connected:
    time.sleep(0.05)
with engine.lease(c.branches["midas_256"], Deadline.after(120)) as lease:
    lease.run(Deadline.after(120))
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
        engine = triton_engine(triton.grpc_url)
        try:
            assert list(Path("/dev/shm").glob(f"{instance}*")) == []
            registered = client.get_system_shared_memory_status().regions
            assert not any(name.startswith(instance) for name in registered)
        finally:
            engine.close()


@pytest.mark.triton
def test_two_engines_on_one_host_keep_to_their_own(triton: TritonServer) -> None:
    """A second engine's start, runs and end change nothing in the tensors of the first."""
    first = triton_engine(triton.grpc_url, leases=1)
    try:
        with first.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
            lease.inputs["INPUT__0"].fill(51)
            second = triton_engine(triton.grpc_url, leases=1)
            try:
                with second.lease(BRANCH, Deadline.after(PATIENCE_S)) as other:
                    other.inputs["INPUT__0"].fill(255)
                    other.run(Deadline.after(PATIENCE_S))
                    assert other.outputs["OUTPUT__0"].min() == 1
            finally:
                second.close()
            lease.run(Deadline.after(PATIENCE_S))
            assert np.ptp(lease.outputs["OUTPUT__0"]) == 0
            assert lease.outputs["OUTPUT__0"][0, 0, 0] == pytest.approx(-0.6, abs=1e-5)
    finally:
        first.close()


@pytest.mark.triton
def test_regions_that_another_server_s_gateway_swept_are_forgotten_too(triton: TritonServer) -> None:
    """A gateway died, one of another Triton has removed its files: the next one of this Triton has it unmap them."""
    dead, living = Instance(), Instance()
    client = grpcclient.InferenceServerClient(triton.grpc_url)
    try:
        regions = [Region(owner, "test", SPECS) for owner in (dead, living)]
        for region in regions:
            client.register_system_shared_memory(region.name, region.key, region.nbytes)
        dead.close()
        engine = triton_engine(triton.grpc_url, transport="shared_memory")
        try:
            known = client.get_system_shared_memory_status().regions
            assert regions[0].name not in known
            assert regions[1].name in known
        finally:
            engine.close()
        client.unregister_system_shared_memory(regions[1].name)
    finally:
        living.close()
        client.close()
