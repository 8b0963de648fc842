"""Write deploy/docker/locks: every package of the image at one version, with the hashes of its files.

    make lock        # that is: .venv-supply/bin/python deploy/supply/lock.py

One file for what is always installed (`base.lock`), one for what each extra adds to that, and one for what builds the
wheel (`build.lock`). Versions come from constraints.txt; what isn't pinned there (CUDA's packages) is the newest.
The files hold for Linux on x86-64 and ARM64 with CPython 3.11 to 3.14, and name no index: pip asks its own.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy" / "docker" / "locks"
EXTRAS = ("embedded", "gpu", "cuda", "redis", "postgres", "bulk", "tracing")
PYTHONS, MACHINES = ("3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64")
HEAD = "# Written by `make lock`; the versions are those of constraints.txt.\n"
# Name and marker -> the line and its hashes.
Blocks = dict[str, str]


def main() -> int:
    """Write all of them."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    base = compiled(project["dependencies"])
    write("base", base)
    for extra in EXTRAS:
        more = compiled([*project["dependencies"], *project["optional-dependencies"][extra]])
        write(extra, {name: block for name, block in more.items() if name not in base})
    write("build", compiled(document["build-system"]["requires"]))
    return 0


def compiled(requirements: list[str]) -> Blocks:
    """All that these requirements come to, without what no supported platform needs."""
    command = [
        str(Path(sys.executable).with_name("uv")), "pip", "compile", "-", "-q", "--no-config", "--system-certs",
        "--universal", "--python-version", PYTHONS[0], "--only-binary", ":all:", "--generate-hashes",
        "--no-annotate", "--no-header", "--no-emit-index-url", "-c", str(ROOT / "constraints.txt"),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as empty:  # where no pyproject.toml changes what is resolved
        done = subprocess.run(
            command, cwd=empty, input="\n".join(requirements), stdout=subprocess.PIPE, text=True, check=True
        )
    return {name: block for name, block in blocks(done.stdout).items() if needed(block)}


def blocks(text: str) -> Blocks:
    """The requirements of a locked file, each with its hashes."""
    found = re.split(r"\n(?=\S)", text.strip())
    return {block.split("==")[0]: block for block in found if not block.startswith("#")}


def needed(block: str) -> bool:
    """True if any supported platform installs this."""
    marker = Requirement(block.partition("\\")[0].strip()).marker
    return marker is None or any(
        marker.evaluate(
            {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "platform_machine": machine,
                "sys_platform": "linux",
                "platform_system": "Linux",
                "os_name": "posix",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }
        )
        for python, machine in itertools.product(PYTHONS, MACHINES)
    )


def write(name: str, found: Blocks) -> None:
    (LOCKS / f"{name}.lock").write_text(HEAD + "".join(f"{b}\n" for b in found.values()), encoding="utf-8")
    print(f"{name}.lock: {len(found)} packages")


if __name__ == "__main__":
    sys.exit(main())
