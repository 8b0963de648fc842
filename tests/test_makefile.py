"""`make help` and the hooks of pre-commit say and run what the Makefile does."""

from __future__ import annotations

import re
import subprocess

import yaml
from support.paths import ROOT

# Not for users: their names open with a dot, or are files.
_TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)(.*)$", re.MULTILINE)


def _make(*arguments: str) -> str:
    done = subprocess.run(["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_help_lists_every_target_with_its_own_comment() -> None:
    """Each target that a user can name has a description in its own line, and `make help` shows it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name: rest.partition(" ## ")[2] for name, rest in _TARGET.findall(makefile)}
    assert {"run", "test", "test-fast", "lint"} <= set(targets)
    assert [name for name, description in targets.items() if not description] == []
    shown = dict(re.findall(r"^  make (\S+) +(.+)$", _make("help"), re.MULTILINE))
    assert shown == targets


def test_the_hooks_run_what_lint_runs() -> None:
    """No command of `make lint` is missing in .pre-commit-config.yaml, and none is there that lint lacks."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    dry = _make("--dry-run", "--no-print-directory", "lint").splitlines()
    tools = [line for line in dry if line.startswith(".venv/bin/") and "pip install" not in line]
    assert sorted(hooks) == sorted(tools)


def test_ci_runs_every_target_of_tests() -> None:
    """No target `test…` is forgotten in `.ci/run`; `test-fast` is a part of `test`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(test[a-z-]*):", makefile, re.MULTILINE)) - {"test-fast"}
    ran = set(
        re.findall(r"^make (test[a-z-]*)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert ran == targets
