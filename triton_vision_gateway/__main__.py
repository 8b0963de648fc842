"""The command `gateway`."""

from __future__ import annotations

import sys

from triton_vision_gateway import add_to_path


def main() -> int:
    """Run the command line; answers the exit code."""
    add_to_path()
    from app.start import main as run  # noqa: PLC0415  # not on the search path before

    return run()


if __name__ == "__main__":
    sys.exit(main())
