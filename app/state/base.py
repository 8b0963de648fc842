"""Stores of sessions between requests: small values, replaced by compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session's value, and the token that says which of its values this is; no token ever comes twice."""

    token: bytes
    value: bytes


class SessionStore(Protocol):
    """Values by session id, safe to use from many threads.

    A session that isn't saved for the store's time to live is gone. Every method but `close` raises
    SessionsUnavailable when the store can't be reached.
    """

    @property
    def name(self) -> str:
        """Location of the store for logs, without any secret."""

    def load(self, session_id: str) -> Snapshot | None:
        """The session's last value; reading it doesn't prolong its life."""

    def save(self, session_id: str, value: bytes, expected: bytes | None) -> bool:
        """Replace the value whose token is `expected` (None: there is no session), and begin its time to live again.

        Returns:
            Whether it was replaced; False: somebody else was faster, load again.
        """

    def delete(self, session_id: str) -> bool:
        """End a session; return True if there was one."""

    def close(self) -> None:
        """Release what the store holds; a second call does nothing."""
