"""A lease at whichever server takes the run; a run that its server doesn't answer is made once more at another one.

A server that died, or that reloads the model, costs its runs a copy of their inputs and one more call. The lease shows
the tensors of the server that has them now, so a caller asks it for views again after `run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from app import context
from app.deadline import Deadline
from app.engine.base import ModelState, not_served
from app.engine.endpoints.members import Endpoint, Members, OnceLease
from app.errors import GatewayError, InsufficientGpuMemory, ModelNotReady, Overloaded, TritonUnavailable
from routing.catalogue import Branch

# Another server may do better.
_ELSEWHERE = (TritonUnavailable, ModelNotReady, InsufficientGpuMemory)


class EndpointLease:
    """Use it with `with`; see `app.engine.base.Lease` and the module."""

    def __init__(self, members: Members, branch: Branch, deadline: Deadline, missing: ModelState) -> None:
        self._members = members
        self._branch = branch
        self._deadline = deadline
        self._missing = missing  # what to say of the branch where no server has it
        self._pins = context.pins()
        self._tried: list[Endpoint] = []
        self._at: Endpoint
        self._held: AbstractContextManager[OnceLease] | None = None
        self._lease: OnceLease

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        return self._lease.inputs

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        return self._lease.outputs

    @property
    def workspace(self) -> dict[str, Any]:
        return self._lease.workspace

    @property
    def model(self) -> ModelState:
        return self._lease.model

    @property
    def transport(self) -> str:
        return self._lease.transport

    def __enter__(self) -> EndpointLease:
        self._acquire(self._deadline, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._release(error)

    def run(self, deadline: Deadline) -> None:
        """See `Lease.run`; ModelNotReady also where no server has the weights that the answer began with."""
        try:
            self._attempt(deadline)
        except _ELSEWHERE as error:
            if not self._others():
                raise
            self._move(deadline, error)
            self._attempt(deadline)

    def _attempt(self, deadline: Deadline) -> None:
        if self._others():
            self._lease.run_once(deadline)
        else:
            self._lease.run(deadline)
        key = self._lease.model.weights_key
        if self._pins is not None and not self._pins.confirm(self._branch.name, key):
            raise self._other_weights()

    def _others(self) -> bool:
        """Return True if another server may run the branch, and none has been asked before."""
        return not self._tried and bool(self._members.able(self._branch, self._pins, [self._at]))

    def _move(self, deadline: Deadline, error: GatewayError) -> None:
        """Continue at another server with the same inputs; the tensors of the first are given back before."""
        inputs = {name: array.copy() for name, array in self._lease.inputs.items()}
        self._at.moved += 1
        self._tried.append(self._at)
        try:
            self._release(error)
        except GatewayError as named:  # the same, said better
            error = named
        self._acquire(deadline, error)
        for name, array in inputs.items():
            self._lease.inputs[name][...] = array
        self._lease.workspace.clear()  # it knows other inputs

    def _acquire(self, deadline: Deadline, error: GatewayError | None) -> None:
        """Lease tensors at a server that can; those that can't are passed over.

        Raises:
            GatewayError: the first server's reason, or `error` if there is none.
        """
        passed: list[Endpoint] = []
        while (taken := self._members.take(self._branch, self._pins, [*self._tried, *passed])) is not None:
            held = taken.engine.lease(self._branch, deadline)
            try:
                self._lease = held.__enter__()
            except (*_ELSEWHERE, Overloaded) as refusal:
                self._members.give_back(taken, self._branch)
                error = error or refusal
                passed.append(taken)
            except BaseException:
                self._members.give_back(taken, self._branch)
                raise
            else:
                self._at, self._held = taken, held
                return
        raise error or self._nowhere()

    def _release(self, error: BaseException | None) -> bool | None:
        held, self._held = self._held, None
        if held is None:
            return None
        try:
            if error is None:
                return held.__exit__(None, None, None)
            return held.__exit__(type(error), error, error.__traceback__)
        finally:  # not before: until then its tensors aren't free
            self._members.give_back(self._at, self._branch)

    def _nowhere(self) -> GatewayError:
        if self._missing.ready:
            return self._other_weights()
        return not_served(self._missing)

    def _other_weights(self) -> ModelNotReady:
        pin = self._pins and self._pins.get(self._branch.name)
        known = "" if not pin or not isinstance(pin[0], tuple) else f" (version {pin[0][0]}, {pin[0][1]})"
        subject = "this answer" if self._pins is None else self._pins.subject
        return ModelNotReady(
            f"{self._branch.name}: no Triton serves it now with the weights{known} that {subject} began with",
            retry_after=1,
        )
