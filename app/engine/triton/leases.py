"""Leases over a Triton: tensors in a region that the server maps, or in this process and sent as bytes.

A run continues when its caller disconnects. Triton can't stop a running model, and an abandoned call would cost the
region, because the model may still write into it. The run ends by the request's deadline at the latest, and then the
lease can be used again. Later steps of the request aren't started.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from app.engine.triton import shared_memory
from app.deadline import Deadline
from app.engine.base import ModelState, allocate
from app.engine.triton.retries import Retries
from app.engine.triton.client import RegionLost, TritonClient
from app.engine.triton.messages import (
    by_reference_request,
    by_value_request,
    check_reference,
    read_response,
    timeout_parameter,
    with_contents,
)
from app.errors import DeadlineExceeded, TritonUnavailable
from routing.catalogue import Branch

_log = logging.getLogger(__name__)
# Model as it was known before a run, version that answered -> model that the answer is attributed to.
Attribute = Callable[[ModelState, str], ModelState]


class BytesLease:
    """Arrays of this process; every attempt copies them into and out of a message, so any may be repeated."""

    transport = "bytes"

    def __init__(
        self, client: TritonClient, retries: Retries, attribute: Attribute, branch: Branch, model: ModelState
    ) -> None:
        self.inputs = allocate(branch.inputs)
        self.outputs = allocate(branch.outputs)
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._client = client
        self._retries = retries
        self._attribute = attribute
        self._specs = branch.outputs
        self._request = by_value_request(branch)

    def run(self, deadline: Deadline) -> None:
        self._retries.run(functools.partial(self._attempt, deadline), deadline)

    def run_once(self, deadline: Deadline) -> None:
        """`run` without retries."""
        self._retries.once(functools.partial(self._attempt, deadline), deadline)

    def _attempt(self, deadline: Deadline) -> None:
        left = deadline.remaining()
        request = with_contents(self._request, self.inputs, left)
        reply = self._client.infer(self.model.name, request, left)
        self.model = self._attribute(self.model, read_response(reply, self.outputs, self._specs))

    def close(self) -> None:
        """Nothing to release."""


class SharedMemoryLease:
    """Arrays in a region that Triton maps too; a run sends names and offsets.

    After an attempt without an answer (time-out, UNAVAILABLE, CANCELLED) a model may still be at it: that the
    connection broke doesn't say that the process is gone. So the region is never used again: not by another caller
    (`broken`), and not by a repeated attempt, which takes the inputs along into a fresh one. Triton keeps what it has
    mapped until its run is over, even unlinked and unregistered. Two refusals are answers, after which the same region
    is right: that the model isn't ready, and that the region isn't known, which is registered again then.
    """

    transport = "shared_memory"

    def __init__(
        self,
        client: TritonClient,
        retries: Retries,
        attribute: Attribute,
        instance: shared_memory.Instance,
        branch: Branch,
        model: ModelState,
    ) -> None:
        self._client = client
        self._retries = retries
        self._attribute = attribute
        self._instance = instance
        self._branch = branch
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, NDArray[Any]] = {}
        self._checked = b"", ""  # the last answer that was right, and the version in it
        self._take(self._fresh())
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._unsure = False  # whether Triton may still write into the region

    def run(self, deadline: Deadline) -> None:
        self._retries.run(functools.partial(self._attempt, deadline), deadline)

    def run_once(self, deadline: Deadline) -> None:
        """`run` without retries."""
        self._retries.once(functools.partial(self._attempt, deadline), deadline)

    def close(self) -> None:
        self._region.unlink()
        if self.broken or self._retries.breaker.open:
            self._client.forget_later(self._region.name)
        else:
            self._client.forget(self._region.name)

    def _attempt(self, deadline: Deadline) -> None:
        if self._unsure:
            self._move(deadline)
        try:
            self._infer(deadline)
        except (DeadlineExceeded, TritonUnavailable):
            self.broken = self._unsure = True
            raise

    def _infer(self, deadline: Deadline) -> None:
        try:
            self._send(deadline)
        except RegionLost:
            _log.debug("%s: Triton has forgotten the region, registering it again", self._branch.name)
            self._retries.count("region_lost")
            self._again(deadline)

    def _again(self, deadline: Deadline) -> None:
        try:
            self._client.register(self._region, deadline.remaining())
            self._send(deadline)
        except RegionLost as error:
            raise TritonUnavailable(str(error), retry_after=1) from error

    def _send(self, deadline: Deadline) -> None:
        left = deadline.remaining()
        reply = self._client.infer(self._branch.name, self._request + timeout_parameter(left), left)
        if reply != self._checked[0]:  # the same run after run: without contents it is parsed once
            self._checked = reply, check_reference(reply, self._branch.outputs)
        self.model = self._attribute(self.model, self._checked[1])

    def _fresh(self, timeout_s: float | None = None) -> shared_memory.Region:
        """A region that Triton knows, made within the time if there is a limit.

        Raises:
            OSError: there is no room for one.
        """
        branch = self._branch
        region = shared_memory.Region(self._instance, branch.name, (*branch.inputs, *branch.outputs))
        try:
            self._client.register(region, timeout_s)
        except BaseException:
            region.unlink()
            raise
        return region

    def _take(self, region: shared_memory.Region) -> None:
        arrays = region.arrays()
        self._region = region
        self.inputs.update({spec.name: arrays[spec.name] for spec in self._branch.inputs})
        self.outputs.update({spec.name: arrays[spec.name] for spec in self._branch.outputs})
        self._request = by_reference_request(self._branch, region)
        self._checked = b"", ""

    def _move(self, deadline: Deadline) -> None:
        """Continue in a new region with the same inputs; drop what belongs to the old one's tensors."""
        old, inputs = self._region, dict(self.inputs)
        try:
            self._take(self._fresh(deadline.remaining()))
        except (OSError, RegionLost) as error:
            raise TritonUnavailable(f"no fresh region: {error}", retry_after=1) from error
        for name, array in inputs.items():
            self.inputs[name][...] = array
        self.workspace.clear()
        self._unsure = False
        old.unlink()
        self._client.forget_later(old.name)


TritonLease = BytesLease | SharedMemoryLease
