"""Commands of `gateway`, run in the test's own process."""

from __future__ import annotations

import pytest

from app import cli


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command; return the exit code, stdout and stderr."""
    try:
        code = cli.main(arguments)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    output = capsys.readouterr()
    return code, output.out, output.err
