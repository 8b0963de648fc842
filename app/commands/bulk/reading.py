"""Shared parts of the commands that read an output."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from app.videos.names import shown

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Ended(Exception):
    """The command is over; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def take_any_name() -> None:
    """Let standard output show the escapes of names that the terminal can't show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def plainly(command: str, place: str) -> Iterator[None]:
    """Tell what goes wrong with an output in one line.

    Raises:
        Ended: something went wrong, and was told.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = str(error.filename2 or error.filename or place)  # the second one is the target of a rename
        words = error.strerror or "can't be read or written"
        print(f"gateway bulk {command}: {shown(where)}: {words}", file=sys.stderr)
        raise Ended(USAGE) from error
    except KeyboardInterrupt:
        print(f"gateway bulk {command}: interrupted", file=sys.stderr)
        raise Ended(INTERRUPTED) from None
