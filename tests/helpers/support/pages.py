"""Pages of the documentation: their blocks of code, and a reader who runs them.

A comment right before a block says what a test does with it; a reader of the rendered page doesn't see it:

    <!-- test: background -->             start it, wait until the gateway is ready, and end it with the page
    <!-- test: exit 22: why -->           it ends with this exit code (curl: 22 is an answer of 400 or more)
    <!-- test: skip: why -->              it can't run here
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx2

from support.paths import ROOT
from support.waiting import PATIENCE_S

LANGUAGES = ("sh", "console", "python")
_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<mark>[^\n]*?) -->\n)?^(?P<fence>```+) *(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)`*$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"background|exit \d+: .+|skip: .+")
_ADDRESS = "127.0.0.1:8080"
_LONG_S = 5 * PATIENCE_S  # a build, on a busy machine
# A refusal fails the block, as it would surprise a reader; variables that are exported live on in the next block.
_SHELL = """set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error "$@"; }
[ ! -f "$READER_STATE" ] || . "$READER_STATE"
trap 'export -p > "$READER_STATE"' EXIT
"""
_PYTHON = """
import sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    path = line.rstrip("\\n")
    try:
        with open(path) as file:
            exec(compile(file.read(), path, "exec"), names)
        print("\\0ok", flush=True)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        print("\\0failed", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block in a language that can run; `mark` is what stands before it."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def skipped(self) -> bool:
        """True for a block that can't run in a test."""
        return self.mark.startswith("skip:")

    @property
    def exit_code(self) -> int:
        """The exit code that the page promises."""
        return int(self.mark.split()[1].rstrip(":")) if self.mark.startswith("exit ") else 0


def blocks(page: str) -> list[Block]:
    """The blocks of a page, given by its path in the repository, that can run."""
    document = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(document):
        mark = match["mark"] or ""
        assert not mark or _MARK.fullmatch(mark), f"{page}: {mark}"
        if match["language"] in LANGUAGES:
            line = document.count("\n", 0, match.start("fence")) + 1
            found.append(Block(page, line, match["language"], _commands(match), mark))
    return found


def _commands(match: re.Match[str]) -> str:
    """A block's text; of a console, what follows the prompt."""
    if match["language"] != "console":
        return match["text"]
    return "".join(f"{line[2:]}\n" for line in match["text"].splitlines() if line.startswith("$ "))


class Reader:
    """Runs the blocks of one page in a folder; end it with `with`."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._python: subprocess.Popen[str] | None = None
        self._background: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
            "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / ".cache"),
            "XDG_DATA_HOME": str(folder / ".local"),
            "GATEWAY_PORT": str(port),
            "READER_STATE": str(folder / ".exported"),
        }

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._background:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE_S)
        if self._python is not None:
            self._python.communicate(timeout=PATIENCE_S)

    def run(self, block: Block) -> None:
        """Run a block; an AssertionError shows its output if it ends otherwise than promised."""
        text = block.text.replace(_ADDRESS, f"127.0.0.1:{self._port}")
        where = f"{block.page}:{block.line}"
        if block.mark == "background":
            self._start(text, where)
        elif block.language == "python":
            assert self._exec(text, where) == "", where
        else:
            done = self._shell(text, subprocess.PIPE)
            out, _ = done.communicate(timeout=_LONG_S)
            assert done.returncode == block.exit_code, f"{where}: exit code {done.returncode}\n{out.decode()}"

    def _shell(self, text: str, out: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", _SHELL + text],
            cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _start(self, text: str, where: str) -> None:
        log = self._folder / ".background"
        with log.open("wb") as out:
            process = self._shell(text, out.fileno())
        self._background.append(process)
        limit = time.monotonic() + _LONG_S
        while not _ready(self._port):
            assert process.poll() is None, f"{where}: {log.read_text()}"
            assert time.monotonic() < limit, f"{where}: {log.read_text()}"
            time.sleep(0.1)

    def _exec(self, text: str, where: str) -> str:
        """Return what went wrong in a block of Python; all blocks of a page share their names."""
        path = self._folder / f".{where.replace('/', '_')}.py"
        path.write_text(text, encoding="utf-8")
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", _PYTHON],
                cwd=self._folder, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(f"{path}\n")
        self._python.stdin.flush()
        said = ""
        for line in self._python.stdout:
            if line.startswith("\0"):
                return "" if line == "\0ok\n" else said
            said += line
        return f"Python ended: {said}"


def _ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S).status_code == 200
    except httpx2.TransportError:
        return False
