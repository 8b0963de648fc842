"""Every block of the README runs as it stands, against a real gateway."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import distribution
from pathlib import Path

import pytest
from services import ROOT, Service

README = (ROOT / "client" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]
# The project's README has one for newcomers, too.
FRONT = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program(
    number: int, service: Service, small: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends without an exception; only the address is another one."""
    shutil.copy(small, tmp_path / "photo.jpg")
    shutil.copy(video, tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    text = PROGRAMS[number].replace("http://127.0.0.1:8080", service.url)
    exec(compile(text, f"README.md, program {number}", "exec"), {"__name__": "__main__"})


def test_the_example_of_the_project(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most six lines, run in the project's folder."""
    (text,) = [block for block in FRONT if "triton_vision_gateway_client" in block]
    assert len([line for line in text.splitlines() if line]) <= 6
    monkeypatch.chdir(ROOT)
    exec(compile(text.replace("http://127.0.0.1:8080", service.url), "README.md", "exec"), {})


def test_commands() -> None:
    """Every command is the installation of this distribution, with extras that it has."""
    commands = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert commands
    known = set(distribution("triton-vision-gateway-client").metadata.get_all("Provides-Extra") or ())
    for command in commands:
        found = re.fullmatch(r"pip install '?triton-vision-gateway-client(?:\[([a-z,]+)\])?'?", command)
        assert found, command
        assert set((found[1] or "images").split(",")) <= known


def test_every_exception_and_call_is_described() -> None:
    """Everything public is in the README."""
    import triton_vision_gateway_client as package  # noqa: PLC0415

    errors = [name for name in package.__all__ if isinstance(getattr(package, name), type)]
    errors = [name for name in errors if issubclass(getattr(package, name), Exception)]
    calls = [name for name in dir(package.Client) if not name.startswith("_")]
    assert [name for name in (*errors, *calls) if not re.search(rf"\b{name}\b", README)] == []
