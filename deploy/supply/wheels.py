"""Check that every package of the starter has a wheel where people work: nobody needs a compiler.

    make wheels      # and in `make lint`, where .venv-supply has been made

uv resolves the packages for each Python and platform and installs none of them. The answer is kept under .build by the
digest of pyproject.toml and constraints.txt, so that it is asked for once per change. Without a network the check says
so and passes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DONE = ROOT / ".build" / "wheels"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {"macOS 14 on Apple silicon": "aarch64-apple-darwin", "Linux on ARM64": "aarch64-manylinux_2_28"}
UV = ROOT / ".venv-supply" / "bin" / "uv"
AWAY = ("dns error", "error sending request", "Connection refused", "Network is unreachable", "timed out")


def main() -> int:
    """Ask for what isn't known yet, and print what has no wheel."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    digest.update(Path(__file__).read_bytes())
    mark = DONE / digest.hexdigest()
    if mark.is_file():
        return 0
    if not UV.is_file():
        print("wheels: not checked; `make wheels` does, and installs what it needs")
        return 0
    wanted = list(requirements())
    with ThreadPoolExecutor(4) as threads:
        faults = [fault for fault in threads.map(lambda case: ask(wanted, *case), cases()) if fault]
    if any(word in fault for fault in faults for word in AWAY):
        print("wheels: not checked, there is no network")
        return 0
    print(*faults, sep="\n", end="\n" if faults else "")
    if not faults:
        DONE.mkdir(parents=True, exist_ok=True)
        mark.touch()
        print(
            f"wheels: all of the starter's packages, for {' and '.join(PLATFORMS)}, CPython {', '.join(PYTHONS)}"
        )
    return 1 if faults else 0


def requirements() -> Iterator[str]:
    """Requirements that `pip install '.[starter]'` brings, without the project itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield from project["dependencies"]
    for extra in ("embedded", "repository", "starter"):
        lines = project["optional-dependencies"][extra]
        yield from (line for line in lines if not line.startswith(project["name"]))


def cases() -> Iterator[tuple[str, str]]:
    """Every Python on every platform."""
    return ((python, name) for python in PYTHONS for name in PLATFORMS)


def ask(wanted: list[str], python: str, name: str) -> str | None:
    """The words of uv where it finds no wheels; None where it does."""
    command = [
        str(UV), "pip", "compile", "-", "-q", "--no-config", "--system-certs", "--no-header", "--only-binary", ":all:",
        "--python-version", python, "--python-platform", PLATFORMS[name], "-c", str(ROOT / "constraints.txt"),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as empty:  # where no pyproject.toml changes what is resolved
        done = subprocess.run(
            command,
            cwd=empty,
            env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},  # PyAV's wheels begin there
            input="\n".join(wanted),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 0:
        return None
    return f"{name}, CPython {python}: {' '.join(done.stderr.split())[-600:]}"


if __name__ == "__main__":
    sys.exit(main())
