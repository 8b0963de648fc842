"""The models at hand, by their digests: those of a model repository, or those that a Triton serves."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Protocol

from app.engine.base import Engine, ModelState
from app.engine.weights import files_digest
from app.main import create_engine
from app.settings import Settings
from app.videos.verification.models import Digests
from routing.catalogue import Branch, Catalogue
from routing.policy import Readiness
from routing.versions import served_folder

_PATIENCE_S = 60.0
_PAUSE_S = 0.05
_UNSETTLED = (Readiness.UNREACHABLE, Readiness.LOADING)


class Unreachable(RuntimeError):
    """The Triton does not answer; the message says which."""


class AtHand(Protocol):
    """Digests of branches. Safe to use from several threads."""

    @property
    def place(self) -> str:
        """The place of the models, for people."""

    def of(self, branch: str) -> Digests | None:
        """Return the digests of a branch; None if it is not there.

        Raises:
            Unreachable: the server does not answer.
        """

    def close(self) -> None:
        """Release the connection if there is one."""


class InFolder:
    """The models of a repository; each file is read once."""

    def __init__(self, repository: Path, catalogue: Catalogue) -> None:
        self.place = str(repository)
        self._repository = repository
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._found: dict[str, Digests | None] = {}
        self._known: dict[tuple[int, ...], str] = {}

    def of(self, branch: str) -> Digests | None:
        with self._lock:
            if branch not in self._found:
                known = self._catalogue.branches.get(branch)
                self._found[branch] = None if known is None else self._read(known)
            return self._found[branch]

    def _read(self, branch: Branch) -> Digests | None:
        try:
            weights = self._digest(branch.weights_model)
            before = branch.preprocess_model
            return Digests(weights, None if before is None else self._digest(before))
        except OSError:
            return None

    def _digest(self, model: str) -> str:
        return files_digest(served_folder(self._repository / model), known=self._known)

    def close(self) -> None:
        """Nothing to release."""


class OnTriton:
    """The models that a Triton serves, with the digests of its repository's files or of the manifest of models."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.place = f"Triton at {settings.triton.grpc}"
        self._settings = settings
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def of(self, branch: str) -> Digests | None:
        with self._lock:
            state = self._state(branch)
        if state is None or not state.ready:
            return None
        return Digests(state.weights.digest, state.preprocess_digest)

    def _state(self, branch: str) -> ModelState | None:
        if self._engine is None:
            self._engine = create_engine(self._settings, self._catalogue)
        limit = time.monotonic() + _PATIENCE_S
        while True:
            state = self._engine.ready().get(branch)
            unsettled = state is not None and (state.settling or state.readiness in _UNSETTLED)
            if not unsettled:
                return state
            if time.monotonic() > limit:
                raise Unreachable(f"{self.place} does not answer; give its address with --triton-url")
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
