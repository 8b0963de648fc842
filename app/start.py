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
    _open_closed_streams()
    try:
        from app.cli import main as run  # noqa: PLC0415  # takes a second

        return run()
    except KeyboardInterrupt:  # of a command that does nothing about it, or of the imports
        return 128 + signal.SIGINT


def _open_closed_streams() -> None:
    """Give standard streams that are closed (`>&-`) to the null device, before another file gets their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(null, True)
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115, PTH123


def end_when_told() -> None:
    """SIGTERM ends the process at once, with code 0 where it serves: nothing has begun yet.

    Commands that have begun something put a handler of their own in its place.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(0 if sys.argv[1:2] == ["serve"] else 128 + number)
