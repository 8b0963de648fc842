"""Reloading a branch on a server whose models are controlled from outside, and running it once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from app.deadline import Deadline
from app.engine.quarantine import Recovery
from app.errors import InsufficientGpuMemory, ModelNotReady
from routing.catalogue import Branch

_log = logging.getLogger(__name__)
_LOOK_S = 0.05
_ON_THE_WAY = {"LOADING", "UNLOADING"}


class NoModelControl(Exception):
    """The server lets nobody load and unload models. Never leaves `app.engine`."""


class Control(Protocol):
    """Calls that model control needs of a server; they raise the project's errors."""

    def model_states(self) -> dict[str, str]:
        """The server's own word for each model: READY, LOADING, UNLOADING, UNAVAILABLE."""

    def load(self, model: str, timeout_s: float) -> None:
        """Return once it is loaded."""

    def unload(self, model: str) -> None:
        """Begin to unload; what runs is finished.

        Raises:
            NoModelControl: see there.
        """


class Reloader:
    """One attempt at a branch that keeps failing: unload all that it consists of, load it, run it.

    Args:
        control: of the server.
        run: one inference of a branch.
        closing: ends waiting.
        run_s: time for the run, in seconds.
        load_s: time for loading, and for what still runs on the branch before that.
    """

    def __init__(
        self,
        control: Control,
        run: Callable[[Branch, Deadline], None],
        closing: threading.Event,
        run_s: float,
        load_s: float = 120.0,
    ) -> None:
        self._control = control
        self._run = run
        self._closing = closing
        self._run_s, self._load_s = run_s, load_s
        self._warned = False
        self._unloaded: set[str] = set()  # by us, and not loaded again yet

    def __call__(self, branch: Branch, reloaded: bool) -> Recovery:
        """See the class; a branch that was `reloaded` elsewhere is run first, and left alone if that goes well.

        Raises:
            GatewayError: it isn't loaded, or doesn't run.
        """
        names = [model.name for model in branch.models]
        loaded, ours = self._settle(names).get(branch.name) == "READY", branch.name in self._unloaded
        if not (loaded or ours):
            return "gone"
        if loaded and (reloaded or ours):
            with contextlib.suppress(InsufficientGpuMemory):
                return self._ran(branch)
        done: Recovery = "reloaded" if self._reload(branch, names) else "ran"
        self._ran(branch)
        return done

    def _ran(self, branch: Branch) -> Recovery:
        self._run(branch, Deadline.after(self._run_s))
        return "ran"

    def _reload(self, branch: Branch, names: Sequence[str]) -> bool:
        """Load the model again; return False if the server does not allow it."""
        try:
            for name in names:  # unloading an ensemble leaves its parts
                self._control.unload(name)
        except NoModelControl as error:
            _log.log(
                logging.INFO if self._warned else logging.WARNING,
                "a branch that ran out of memory can't be reloaded: %s; it is only run again after a pause. To let the "
                "gateway reload it, start Triton with --model-control-mode=explicit",
                error,
            )
            self._warned = True
            return False
        self._unloaded.add(branch.name)
        self._settle(names)
        self._control.load(branch.name, self._load_s)  # with its parts
        self._unloaded.discard(branch.name)
        _log.info("%s has been unloaded and reloaded", branch.name)
        return True

    def _settle(self, names: Sequence[str]) -> Mapping[str, str]:
        """States, once none of the models is on its way in or out: memory is free when the last run on them is over.

        Raises:
            ModelNotReady: it takes too long.
        """
        limit = time.monotonic() + self._load_s
        while True:
            states = self._control.model_states()
            if not any(states.get(name) in _ON_THE_WAY for name in names):
                return states
            if time.monotonic() > limit or self._closing.wait(_LOOK_S):
                raise ModelNotReady(f"{', '.join(names)}: still being loaded or unloaded")
