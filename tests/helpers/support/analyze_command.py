"""`gateway analyze` in a test: its options, and runs in this process or another."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.cli import main
from support.paths import ROOT
from support.waiting import PATIENCE_S

# What a frame costs least: the tests of whole videos have every component.
BOXES = "components: {core_object_detections: {classes: [person, bicycle, car], track: {}}}\n"
ENVIRONMENT = {"GATEWAY_VARIANT": "n", "GATEWAY_EMBEDDED_THREADS": "1", "GATEWAY_MANIFEST": ""}


def options(repository: Path, folder: Path, profile: str) -> list[str]:
    (folder / "p.yaml").write_text(profile)
    return ["--profile-path", str(folder / "p.yaml"), "--repository", str(repository)]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "app.cli", "analyze", *map(str, arguments)]


def run(*arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command in this process: exit code, the JSON line of each video, and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["analyze", *map(str, arguments), "--json"])
    return code, rows_of(out.getvalue()), err.getvalue()


def rows_of(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


# The command, in which each video waits after its first chunk until it is told to stop.
_WAITS = """
import os, sys, threading
from app.cli import main
from app.commands.video_threads import Stop
from app.videos.checkpoint import Checkpoint

told, request, write = threading.Event(), Stop.request, Checkpoint.write

def request_and_tell(stop):
    request(stop)
    told.set()

def write_and_wait(*arguments):
    write(*arguments)
    os.write(2, b"chunk\\n")  # at once: print() writes the end of the line by itself, and another thread in between
    told.wait()

Stop.request, Checkpoint.write = request_and_tell, write_and_wait
sys.exit(main(sys.argv[1:]))
"""


def run_interrupted(
    under_way: int, number: int, *arguments: str | Path
) -> tuple[int | None, list[dict[str, Any]]]:
    """Run the command in a process that gets signal `number` once so many videos have a chunk: exit code and rows."""
    started = [sys.executable, "-c", _WAITS, *command(*arguments, "--json")[3:]]
    with subprocess.Popen(
        started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            while under_way:
                said.append(process.stderr.readline())
                assert said[-1], f"it ended early: {''.join(said)}"
                under_way -= said[-1] == "chunk\n"
            process.send_signal(number)
            stdout, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return process.returncode, rows_of(stdout)
