"""Gateways over Tritons whose model takes a fixed time: what several of them can answer is known beforehand."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import null_models
from benchmarks.common.services import gateway
from deploy.local.triton_server import TritonServer

BRANCH = "yolo11n_320"
SERVICE_S = 0.25  # of one run
LEASES = 2  # runs in flight of one gateway on one Triton
_MODEL = Path(__file__).with_name("sleeping_model.py")


@dataclass(frozen=True, slots=True)
class Capacity:
    """The rate that gateways over Tritons can reach at most, in requests per second.

    One gateway keeps `LEASES` runs in flight on each Triton, and each of them takes `SERVICE_S`.
    """

    gateways: int
    tritons: int

    @property
    def in_flight(self) -> int:
        """Runs in flight of all gateways on all Tritons."""
        return self.gateways * self.tritons * LEASES

    @property
    def per_s(self) -> float:
        """Requests per second if nothing but the model took time."""
        return self.in_flight / SERVICE_S


def sleeping(root: Path, instances: int) -> Path:
    """Write a repository of one model that runs `instances` requests side by side; return it."""
    null_models.build(root, [BRANCH])
    folder = root / BRANCH
    (folder / "1" / "model.onnx").unlink()
    shutil.copy(_MODEL, folder / "1" / "model.py")
    (folder / "seconds").write_text(str(SERVICE_S), encoding="utf-8")
    config = folder / "config.pbtxt"
    text = re.sub('backend: "onnxruntime"', 'backend: "python"', config.read_text(encoding="utf-8"))
    text = re.sub("default_model_filename:.*\n", "", text)
    text, changed = re.subn(
        r"instance_group \{[^}]*\}", f"instance_group {{ kind: KIND_CPU count: {instances} }}", text
    )
    if changed != 1:
        raise RuntimeError("the configuration has no instance group of its own")
    config.write_text(text, encoding="utf-8")
    return root


@contextmanager
def tritons(folder: Path, count: int, instances: int) -> Iterator[list[TritonServer]]:
    """So many Tritons over the model that sleeps."""
    repository = sleeping(folder / "models", instances)
    with ExitStack() as stack:
        yield [
            stack.enter_context(TritonServer(repository, folder / f"triton-{number}.log", [BRANCH]))
            for number in range(count)
        ]


@contextmanager
def gateways(folder: Path, urls: list[str], count: int) -> Iterator[list[int]]:
    """So many gateways over all of these Tritons, ready: their ports."""
    environment = {"GATEWAY_LEASES": str(LEASES), "GATEWAY_REQUIRE_READY": BRANCH, "GATEWAY_MANIFEST": ""}
    with ExitStack() as stack:
        made = []
        for number in range(count):
            log = folder / f"gateway-{number}.log"
            port, _ = stack.enter_context(
                gateway(",".join(urls), folder / "models", log, environment=environment)
            )
            made.append(port)
        yield made
