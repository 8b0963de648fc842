"""Contents of the image: locked by hash, listed, audited, and pinned where a registry was asked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

LOCKS = ROOT / "deploy" / "docker" / "locks"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("embedded", "gpu", "cuda", "redis", "postgres", "bulk", "tracing")
DIGEST = "sha256:" + "0123456789abcdef" * 4


def module(path: str) -> Any:
    """A script of deploy/ as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "deploy" / path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def pinned(*names: str) -> dict[str, str]:
    """Package -> version of some locks together."""
    blocks = module("docker/requirements.py").locked(list(names)).values()
    pins = (block.split(" ")[0].split("==") for block in blocks)
    return {canonicalize_name(name): version for name, version in pins}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.lock")), ids=lambda path: path.stem)
def test_every_package_has_hashes_and_names_no_index(path: Path) -> None:
    """One version and SHA-256 hashes per package; pip asks the index that it is set to."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index|--find-links|file:", text)
    blocks = re.split(r"\n(?=\S)", text.strip())[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9-]+==[\w.!+]+ ", block), block[:80]
        assert re.findall(r"--hash=(\S+)", block), block[:80]
        assert all(
            re.fullmatch(r"sha256:[0-9a-f]{64}", found) for found in re.findall(r"--hash=(\S+)", block)
        )


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_the_locks_hold_what_the_project_asks_for(extra: str | None) -> None:
    """Every requirement is locked at a version that it allows: run `make lock` after a change."""
    asked = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else [])]
    pins = pinned("base", *([extra] if extra else []))
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in pins, name
        assert requirement.specifier.contains(pins[name], prereleases=True), name


def test_the_locks_have_the_versions_that_the_tests_ran_with() -> None:
    """The image gets the versions that constraints.txt pins."""
    known = constraints()
    for name, version in pinned("base", *EXTRAS, "build").items():
        assert known.get(name, version) == version, name


def test_the_image_installs_nothing_without_a_hash() -> None:
    """Each pip that asks an index wants hashes; the wheel of this project is built without asking one."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"pip (?:--python \S+ )?(?:install|wheel)[^&\n]*", text)
    assert len(commands) == 4
    for command in commands:
        assert "--require-hashes" in command or "--no-deps" in command, command
    assert "--no-build-isolation" in text


def test_an_extra_that_is_not_locked_is_refused() -> None:
    """With those that there are."""
    command = [sys.executable, str(ROOT / "deploy" / "docker" / "requirements.py"), "redis,nope"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "no such extra: nope; there are bulk, cuda, embedded, gpu, postgres, redis, tracing\n"
    )


# --- images -----------------------------------------------------------------------------------------------------


def test_every_image_has_a_place_for_its_digest() -> None:
    """The images of the Dockerfile and of compose.yaml, and no others, have a place; an empty one is null, never a
    guess.
    """
    images = module("supply/images.py")
    known = json.loads(images.FILE.read_text(encoding="utf-8"))
    assert images.check(set(images.variables().values()), known, pinned=False) == []
    assert set(images.variables()) == {
        "PYTHON_IMAGE",
        "TRITON_IMAGE",
        "REDIS_IMAGE",
        "PROMETHEUS_IMAGE",
        "GRAFANA_IMAGE",
    }


@pytest.mark.parametrize(
    ("known", "pinned_", "faults"),
    [
        ({"a:1": None}, False, []),
        ({"a:1": None}, True, ["a:1: no digest; fill them where a registry can be reached"]),
        ({"a:1": DIGEST}, True, []),
        ({"a:1": "sha256:123"}, False, ["a:1: 'sha256:123' is no digest"]),
        ({"a:1": "latest"}, True, ["a:1: 'latest' is no digest"]),
        ({}, False, ["a:1: isn't in images.json"]),
        ({"a:1": None, "b:2": None}, False, ["b:2: nothing uses it"]),
    ],
)
def test_what_is_wrong_with_the_digests_is_told(
    known: dict[str, str | None], pinned_: bool, faults: list[str]
) -> None:
    """Missing, left over, malformed; and with --pinned, not there yet."""
    assert module("supply/images.py").check({"a:1"}, known, pinned=pinned_) == faults


def test_the_lines_for_env_hold_the_digests() -> None:
    """A tag stays readable before its digest."""
    lines = module("supply/images.py").env({"A_IMAGE": "a:1", "B_IMAGE": "b:2"}, {"a:1": DIGEST, "b:2": None})
    assert lines == [f"A_IMAGE=a:1@{DIGEST}", "B_IMAGE=b:2"]


# --- audit ------------------------------------------------------------------------------------------------------


def audited(*rows: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(rows), "fixes": []})


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("output", "code", "line"),
    [
        (audited(GOOD, GOOD), 0, "2 of 2 packages audited, 0 advisories"),
        (audited(GOOD, BAD), 1, "b 2: CVE-1 (3)"),
        (audited(BAD, SKIPPED), 1, "c: not audited: not found"),
        (audited(GOOD, SKIPPED), 2, "1 of 2 packages audited, 0 advisories"),
        (audited(SKIPPED, SKIPPED), 2, "0 of 2 packages audited, 0 advisories"),
        (audited(), 2, "0 of 2 packages audited, 0 advisories"),
        ("", 2, "pip-audit answered nothing: no package was audited"),
        ("{}", 2, "pip-audit answered nothing: no package was audited"),
    ],
)
def test_an_audit_of_nothing_is_no_success(output: str, code: int, line: str) -> None:
    """Found: 1; not looked up, in part or at all: 2; only when all were looked up: 0."""
    found, lines = module("supply/audit.py").verdict(output, 2)
    assert found == code
    assert line in lines


def test_the_audit_covers_every_lock() -> None:
    """All extras, and what builds the wheel."""
    pins = module("supply/audit.py").pins()
    assert {"setuptools==82.0.1", f"fastapi=={constraints()['fastapi']}"} <= set(pins)
    assert len(pins) == len(pinned("base", "build", *EXTRAS))


def test_the_note_on_licences_names_what_the_wheel_ships() -> None:
    """SECURITY.md says which GPL libraries come with `av`, as long as they do."""
    shipped = {file.name.split("-")[0] for file in importlib.metadata.files("av") or () if ".so" in file.name}
    note = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for library in ("libx264", "libx265"):
        assert library in shipped, f"{library} is gone: change the note"
        assert f"**{library}**" in note
