"""Leases over a Triton: tensors in a region that the server maps, or in this process and sent as bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from app.engine import shared_memory
from app.engine.base import Deadline, ModelState, allocate
from app.engine.triton_client import (
    RegionLost,
    TritonClient,
    by_reference_request,
    by_value_request,
    read_response,
    with_contents,
)
from app.errors import DeadlineExceeded, TritonUnavailable
from routing.catalogue import Branch

_log = logging.getLogger(__name__)


class BytesLease:
    """Arrays of this process; every run copies them into and out of a message."""

    transport = "bytes"

    def __init__(self, client: TritonClient, branch: Branch, model: ModelState) -> None:
        self.inputs = allocate(branch.inputs)
        self.outputs = allocate(branch.outputs)
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._client = client
        self._request = by_value_request(branch)

    def run(self, deadline: Deadline) -> None:
        deadline.check("infer")
        request = with_contents(self._request, self.inputs)
        read_response(self._client.infer(self.model.name, request, deadline.remaining()), self.outputs)

    def close(self) -> None:
        """Nothing to release."""


class SharedMemoryLease:
    """Arrays in a region that Triton maps too; a run sends names and offsets."""

    transport = "shared_memory"

    def __init__(
        self,
        client: TritonClient,
        instance: shared_memory.Instance,
        branch: Branch,
        model: ModelState,
        on_lost: Callable[[], None],
    ) -> None:
        self._client = client
        self._on_lost = on_lost
        self._branch = branch
        self._region = shared_memory.Region(instance, branch.name, (*branch.inputs, *branch.outputs))
        try:
            client.register(self._region)
        except BaseException:
            self._region.unlink()
            raise
        arrays = self._region.arrays()
        self.inputs: dict[str, NDArray[Any]] = {spec.name: arrays[spec.name] for spec in branch.inputs}
        self.outputs: dict[str, NDArray[Any]] = {spec.name: arrays[spec.name] for spec in branch.outputs}
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._request = by_reference_request(branch, self._region)

    def run(self, deadline: Deadline) -> None:
        deadline.check("infer")
        try:
            self._run(deadline)
        except (DeadlineExceeded, TritonUnavailable):
            # Triton may still be at it, and would write into tensors that the next caller reads.
            self.broken = True
            raise

    def _run(self, deadline: Deadline) -> None:
        try:
            self._client.infer(self._branch.name, self._request, deadline.remaining())
        except RegionLost:
            _log.info("%s: Triton has forgotten the region, registering it again", self._branch.name)
            self._on_lost()
            self._again(deadline)

    def _again(self, deadline: Deadline) -> None:
        try:
            self._client.register(self._region)
            self._client.infer(self._branch.name, self._request, deadline.remaining())
        except RegionLost as error:
            self.broken = True
            raise TritonUnavailable(str(error), retry_after=1) from error

    def close(self) -> None:
        self._region.unlink()
        if self.broken:
            self._client.forget_later(self._region.name)
        else:
            self._client.forget(self._region.name)


TritonLease = BytesLease | SharedMemoryLease
