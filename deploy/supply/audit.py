"""Look every locked package up in the advisories; an audit that looked nothing up is no success.

    make audit       # that is: .venv-supply/bin/python deploy/supply/audit.py

Exit code 0: every package was looked up and none has an advisory; 1: some has; 2: some, or all, couldn't be looked up.
It needs the advisory service, so it is no part of the tests.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Audit what `requirements.py` gives for all extras of the image."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins()))
        file.flush()
        command = [
            sys.executable, "-m", "pip_audit", "-r", file.name, "--no-deps", "--disable-pip", "-f", "json",
            "--progress-spinner", "off",
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    code, lines = verdict(done.stdout, len(pins()))
    print(*lines, sep="\n")
    return code


def pins() -> list[str]:
    """`name==version` of all locked packages; of the two builds of ONNX Runtime, both."""
    spec = importlib.util.spec_from_file_location(
        "requirements", ROOT / "deploy" / "docker" / "requirements.py"
    )
    assert spec is not None  # noqa: S101  # it is a file of ours
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = sorted(path.stem for path in module.LOCKS.glob("*.lock"))
    return [block.split(" ")[0] for block in module.locked(names).values()]


def verdict(output: str, expected: int) -> tuple[int, list[str]]:
    """Exit code and lines for pip-audit's JSON about `expected` packages."""
    try:
        rows: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        return 2, ["pip-audit answered nothing: no package was audited"]
    skipped = [f"{row['name']}: not audited: {row['skip_reason']}" for row in rows if "skip_reason" in row]
    audited = [row for row in rows if "skip_reason" not in row]
    bad = [
        f"{row['name']} {row['version']}: {vuln['id']} ({', '.join(vuln.get('fix_versions', [])) or 'no fix yet'})"
        for row in audited
        for vuln in row.get("vulns", [])
    ]
    said = f"{len(audited)} of {expected} packages audited, {len(bad)} advisories"
    code = 1 if bad else 2 if len(audited) < expected else 0
    return code, [*bad, *skipped, said]


if __name__ == "__main__":
    sys.exit(main())
