"""The entry point of `gateway`. Imports next to nothing: SIGTERM ends the process from its first moment on.

As process 1 of a container it has no default handler for signals: without ours it would ignore SIGTERM until the
imports are over.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line."""
    end_when_told()
    try:
        from app.cli import main as run  # noqa: PLC0415  # takes a second

        return run()
    except KeyboardInterrupt:  # of a command that does nothing about it, or of the imports
        return 128 + signal.SIGINT


def end_when_told() -> None:
    """SIGTERM ends the process at once, with code 0 where it serves: nothing has begun yet.

    Commands that have begun something put a handler of their own in its place.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(0 if sys.argv[1:2] == ["serve"] else 128 + number)
