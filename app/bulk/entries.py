"""One video of a corpus, as it is handed from the list to a worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One video: its name below `videos/` of the output, and the path or URI that it is read from.

    `fault` says why it can't be read, where that is known before a worker sees it, and `code` names the kind of fault.
    `id` is the caller's own name for it.
    """

    name: str
    uri: str
    fault: str | None = None
    id: str | None = None
    code: str = "invalid_entry"
