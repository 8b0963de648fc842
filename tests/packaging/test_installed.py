"""The wheel in an environment of its own, beside somebody else's packages of the same names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from support.distributions import build
from support.paths import ROOT
from support.waiting import eventually

from app import __version__
from deploy.local.triton_server import free_ports

pytestmark = pytest.mark.wheel

THEIRS = "WHOSE = 'theirs'\n"


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty folder to work in."""

    bin: Path
    folder: Path

    def run(self, *command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of its commands."""
        return subprocess.run(
            [self.bin / command[0], *command[1:]], cwd=folder or self.folder, env=self.variables(),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables of a login shell, with no reachable host."""
        home = str(self.folder.parent)
        return {"PATH": "/usr/bin:/bin", "HOME": home, "https_proxy": "http://127.0.0.1:9", **more}

    @contextlib.contextmanager
    def serving(self, *arguments: str, **variables: str) -> Iterator[tuple[str, list[str]]]:
        """`gateway up`, ready: its address, and what it has printed (whole after the end)."""
        (port,) = free_ports(1)
        log = self.folder.parent / f"{port}.log"
        printed: list[str] = []
        with log.open("w") as file:
            process = subprocess.Popen(
                [self.bin / "gateway", "up", "--port", str(port), *arguments], cwd=self.folder,
                env=self.variables(**variables), stdout=file, stderr=file,
            )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: process.poll() is not None or _ready(url), 300)
            yield url, printed
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            printed.append(log.read_text())
        assert process.returncode == 0, printed[0]


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/readyz", timeout=60).status_code == 200
    return False


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, somebody's `app`, `routing` and `export`, and this environment's packages instead of downloads."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True)
    python = home / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home / "env")}))
    for name in ("app", "routing", "export"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text(THEIRS)
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in dependencies))
    (home / "empty").mkdir()
    return Environment(python.parent, home / "empty")


def test_the_archive_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    """To the byte, in another folder; and the archive itself is the same twice."""
    archive = build(source, tmp_path / "sdist", "sdist")
    subprocess.run(["tar", "xf", archive, "-C", tmp_path], check=True)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert build(unpacked, tmp_path / "wheel", "wheel").read_bytes() == wheel.read_bytes()
    assert build(source, tmp_path / "again", "sdist").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("name", ["app", "routing", "export"])
def test_packages_of_the_same_name_stay_somebody_elses(installed: Environment, name: str) -> None:
    """`import app` finds theirs; the gateway finds its own, in every way that it is started."""
    assert installed.run("python", "-c", f"import {name}; print({name}.WHOSE)").stdout == "theirs\n"
    own = f"import triton_vision_gateway as t; t.add_to_path(); import {name}; print({name}.__file__)"
    assert "/triton_vision_gateway/_code/" in installed.run("python", "-c", own).stdout


def test_the_command_and_the_module_are_the_same(installed: Environment, tmp_path: Path) -> None:
    """Also in a folder that holds an app.py."""
    (tmp_path / "app.py").write_text("raise SystemExit('theirs')\n")
    for command in (["gateway"], ["python", "-m", "triton_vision_gateway"]):
        done = installed.run(*command, "--version", folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"gateway {__version__}\n"), done.stderr
    assert installed.run("gateway", "routes", "640").stdout.split()[1] == "yolo11x_640"


def test_without_models_the_way_to_them_is_told(installed: Environment) -> None:
    """One line each, exit code 2."""
    serve = installed.run("gateway", "serve")
    assert (serve.returncode, serve.stdout) == (2, "")
    assert serve.stderr.strip().endswith("; `gateway up` builds the starter models and serves them")
    assert serve.stderr.count("\n") == 1
    bench = installed.run("gateway", "bench", "--help")
    assert (bench.returncode, bench.stdout) == (2, "")
    assert bench.stderr.startswith("gateway: bench needs a checkout of the repository: benchmarks/")
    assert bench.stderr.count("\n") == 1


def test_up_builds_serves_and_is_quick_the_second_time(installed: Environment) -> None:
    """In an empty folder: boxes of a picture and a video, profiles, the API page; then two workers on what is there."""
    picture, video = ((ROOT / "docs" / name).read_bytes() for name in ("astronaut.jpg", "astronaut.mp4"))
    with installed.serving() as (url, printed):
        answer = httpx2.post(f"{url}/v1/detect", content=picture, timeout=60).json()
        assert answer["branch"]["name"] == "yolo11n_640"
        assert answer["models_used"][0]["weights"] == "random"
        lines = httpx2.post(f"{url}/v1/detect?fps=1", content=video, timeout=60).text.splitlines()
        assert json.loads(lines[0])["detections"] is not None
        refusal = httpx2.post(f"{url}/v1/videos", files={"file": video}, data={"profile": "nope"}, timeout=60)
        assert "detect_embedded" in refusal.text
        assert "swagger-ui" in httpx2.get(f"{url}/docs", timeout=60).text
        assert "page/start.js" in httpx2.get(f"{url}/", timeout=60).text
        assert httpx2.get(f"{url}/page/start.js", timeout=60).status_code == 200
        assert httpx2.get(f"{url}/page/example.jpg", timeout=60).content == picture
    assert "RANDOM WEIGHTS" in printed[0]
    assert printed[0].count(" exported ") == 3
    line = next(line for line in printed[0].splitlines() if "try it: curl" in line)
    assert Path(line.partition("@")[2].partition(" ")[0]).read_bytes() == picture
    assert sorted(path.name for path in installed.folder.iterdir()) == []

    with installed.serving("--workers", "2") as (url, printed):
        answers = [httpx2.post(f"{url}/v1/detect", content=picture, timeout=60) for _ in range(4)]
        assert {found.status_code for found in answers} == {200}
    assert "already built" in printed[0]
    assert " exported " not in printed[0]


def test_types_are_checked_against_the_installed_package(installed: Environment) -> None:
    """`py.typed` lies where type checkers look for it."""
    code = "import importlib.resources as r; print(r.files('triton_vision_gateway').joinpath('py.typed').is_file())"
    assert installed.run("python", "-c", code).stdout == "True\n"
    assert os.access(installed.bin / "gateway", os.X_OK)
