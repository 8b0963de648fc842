"""Dockerfile and compose.yaml: linted, consistent with what they name, built by hand and run as the image would be."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import png, scene, wait_ready
from support.waiting import PATIENCE_S

from app.settings import Settings
from deploy.local.triton_server import free_ports

BY_HAND = ROOT / "deploy" / "docker" / "by_hand.py"
USER = 10001
# What Debian's slim image with Python has: nothing else may be asked of it.
SYSTEM_LIBRARIES = re.compile(
    r"(ld-linux-x86-64|lib(c|m|mvec|dl|rt|pthread|util|gcc_s|stdc\+\+|z|resolv|crypt|nsl))\.so[.\d]*"
)


def compose() -> dict[str, Any]:
    """compose.yaml as it stands."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return document


def tool(name: str) -> str:
    """A linter beside this Python, or on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"no {name}; run: make lint-containers")
    return found


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    """No rule is switched off."""
    done = subprocess.run(
        [tool("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_yaml_is_what_the_specification_allows() -> None:
    """Against the JSON schema of the Compose specification, which check-jsonschema carries."""
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_everything_that_compose_names_is_there() -> None:
    """Folders that are mounted exist, and every setting of the gateway's environment is one."""
    services = compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (ROOT / source).exists(), source
        for name in service.get("environment", {}):
            assert not name.startswith("GATEWAY_") or name[8:].lower() in Settings.model_fields, name
    aliases = services["gateway-cpu"]["networks"]["default"]["aliases"]
    scraped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    targets = re.findall(r"targets: \[([\w-]+):", scraped)
    assert {*targets} <= {*services, *aliases}


def test_what_env_example_says_is_what_compose_reads() -> None:
    """The same variables with the same defaults, in both."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    read = {match[1]: match[2] for match in re.finditer(r"\$\{(\w+):-([^}]*)\}", text)}
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given.pop("COMPOSE_PROFILES") == "gpu"
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {"REDIS_PASSWORD", "GRAFANA_PASSWORD"}
    assert {given.pop(name) for name in required} == {""}
    assert given == read
    assert not re.search(r"\$\{\w+\}", text), "a variable without a default"


def test_shared_memory_is_shared() -> None:
    """Triton and the gateway: one /dev/shm, large enough to say so, and one user, who can open the other's regions."""
    services = compose()["services"]
    assert services["gateway"]["ipc"] == "service:triton"
    assert services["triton"]["ipc"] == "shareable"
    assert services["triton"]["shm_size"]
    assert services["gateway"]["user"] == services["triton"]["user"] == f"{USER}:{USER}"


@pytest.mark.parametrize("name", ["gateway", "gateway-cpu", "redis", "prometheus", "grafana"])
def test_services_write_where_it_is_said_and_nowhere_else(name: str) -> None:
    """Read-only root, no capability, no new privileges; images pinned to a version, ports for this host alone."""
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if not name.startswith("gateway"):
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[\w/.-]+:v?\d+\.\d+[\w.-]*\}", service["image"])
    assert service["mem_limit"]
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in service.get("ports", []))


def test_profiles_choose_one_gateway() -> None:
    """gpu: the gateway with Triton; cpu: the gateway alone; what has no profile runs with both."""
    services = compose()["services"]
    assert {name: service.get("profiles") for name, service in services.items()} == {
        "gateway": ["gpu"], "triton": ["gpu"], "gateway-cpu": ["cpu"],
        "redis": None, "prometheus": None, "grafana": None,
    }  # fmt: skip


def _by_hand() -> Any:
    spec = importlib.util.spec_from_file_location("by_hand", BY_HAND)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["by_hand"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("app/main.py", False), ("app/media/data/clip_merges.txt.gz", False), ("routing/branches.toml", False),
        ("deploy/docker/requirements.py", False), ("README.md", False), ("profiles/prompts/baseline.txt", False),
        (".env", True), (".git", True), (".venv", True), ("triton/models/x/1/model.onnx", True), ("tests", True),
        ("models", True), ("export", True), ("deploy/local/triton.py", True), ("app/__pycache__", True),
        ("app/__pycache__/main.cpython-311.pyc", True), ("app/x.pyc", True), ("out", True),
    ],
)  # fmt: skip
def test_only_what_is_copied_reaches_the_builder(path: str, ignored: bool) -> None:
    """No weights, no history, no environments and no secrets are sent to Docker."""
    assert _by_hand().Builder(Path(), {})._is_ignored(path) is ignored


def test_an_instruction_that_is_not_known_is_no_success() -> None:
    """The stand-in for Docker passes over nothing."""
    with pytest.raises(KeyError):
        _by_hand().Builder(Path(), {}).do("ONBUILD", "RUN true")


# --- built and run: needs root for mount namespaces, and about a minute -------------------------------------------


def namespaces_are_allowed() -> bool:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = "d=$(mktemp -d) && mkdir $d/u $d/w $d/m && mount -t overlay o -o lowerdir=/,upperdir=$d/u,workdir=$d/w $d/m"
    return (
        subprocess.run(["unshare", "-m", "sh", "-c", probe], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Dockerfile's lines, carried out in a clean folder."""
    if not namespaces_are_allowed():
        pytest.skip("only root can mount an overlay: sudo make test")
    out = tmp_path_factory.mktemp("image")
    for folder in (out, *out.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(BY_HAND), "build", str(out)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that the image's user can read."""
    root = test_repository.build(tmp_path_factory.mktemp("models"))
    subprocess.run(["chmod", "-R", "a+rX", root.parent.parent], check=True)
    return root


class Container:
    """One `docker run --read-only --tmpfs /tmp`, as by_hand.py does it; it ends with the block."""

    def __init__(
        self, image: Path, *arguments: str, volumes: tuple[str, ...] = (), **environment: str
    ) -> None:
        self.command = [sys.executable, str(BY_HAND), "run", str(image)]
        self.command += [f"--env=GATEWAY_{name}={value}" for name, value in environment.items()]
        self.command += [f"--volume={volume}" for volume in volumes]
        self.command += arguments
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def __enter__(self) -> Container:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.kill()  # --kill-child: what is inside ends with it
        self.process.communicate()

    @property
    def inside(self) -> psutil.Process:
        """Process 1 of the container."""
        assert self.process is not None
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def stop(self) -> tuple[int, float]:
        """Stop it as `docker stop` does; return the exit code and the seconds that it took."""
        assert self.process is not None
        started = time.monotonic()
        self.inside.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S), time.monotonic() - started


@contextlib.contextmanager
def serving(image: Path, models: Path, **environment: str) -> Iterator[tuple[Container, httpx2.Client]]:
    """The image's own command, ready, over the test repository."""
    port = free_ports(1)[0]
    mounted = (f"{models}:/srv/gateway/triton/models:ro",)
    settings = {"PORT": str(port), "HOST": "127.0.0.1", "VARIANT": "n", "EMBEDDED_THREADS": "1"} | environment
    with (
        Container(image, volumes=mounted, **settings) as container,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http,
    ):
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            with contextlib.suppress(httpx2.TransportError):
                http.get("/livez")
                break
            assert container.process is not None
            if container.process.poll() is not None:
                raise AssertionError(container.process.communicate()[0])
            time.sleep(0.05)
        wait_ready(http.get)
        yield container, http


@pytest.mark.containers
def test_the_image_is_small_and_holds_nothing_that_only_builds(image: Path) -> None:
    """No torch, no exporter, no pip, no test, no weights, no bytecode of another place."""
    environment = image / "gateway" / "opt" / "gateway"
    packages = {path.name.lower() for path in environment.glob("lib/python3*/site-packages/*")}
    assert {"triton_vision_gateway", "onnxruntime", "fastapi", "redis"} <= packages
    own = next(environment.glob("lib/python3*/site-packages/triton_vision_gateway/_code"))
    packages |= {path.name for path in own.iterdir()}
    assert {"app", "routing"} <= packages
    assert packages.isdisjoint(
        {"torch", "transformers", "ultralytics", "export", "pip", "setuptools", "pytest", "tests"}
    )
    size = sum(path.lstat().st_size for path in (image / "gateway").rglob("*"))
    assert size < 800 << 20
    graphs = [path for path in (image / "gateway").rglob("*.onnx") if "datasets" not in path.parts]
    assert graphs == []  # but ONNX Runtime's own examples


@pytest.mark.containers
def test_the_base_image_has_every_library(image: Path) -> None:
    """Libraries that the packages don't bring are in any Debian with Python; headless OpenCV needs no X."""
    inside = image / "gateway" / "opt" / "gateway"
    libraries = [str(path) for path in inside.rglob("*.so*") if path.is_file()]
    brought = {Path(path).name for path in libraries}
    listing = subprocess.run(
        ["readelf", "-d", *libraries], capture_output=True, text=True, check=False
    ).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", listing))
    assert len(needed) > 20
    assert {name for name in needed - brought if not SYSTEM_LIBRARIES.fullmatch(name)} == set()


@pytest.mark.containers
def test_it_serves_as_nobody_from_a_read_only_root(image: Path, models: Path) -> None:
    """The exact entry point and user: ready, a frame answered, healthy; SIGTERM ends process 1 at once with 0."""
    with serving(image, models) as (container, http):
        answer = http.post("/v1/detect", content=png(scene(320, 320, (0, 64, 64, 32))))
        assert (answer.status_code, len(answer.json()["detections"])) == (200, 1)
        inside = container.inside
        assert {*inside.uids()} == {*inside.gids()} == {USER}
        status = Path(f"/proc/{inside.pid}/status").read_text()
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        check = json.loads((image / "image.json").read_text())["healthcheck"]
        port = http.base_url.port
        healthy = subprocess.run(
            ["chroot", f"--userspec={USER}:{USER}", f"/proc/{inside.pid}/root", "env", "-i", f"GATEWAY_PORT={port}",
             "PATH=/opt/gateway/bin:/usr/bin:/bin", *check],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (healthy.returncode, healthy.stdout) == (0, '{"status":"ok"}\n'), healthy.stderr
        code, seconds = container.stop()
        assert code == 0
        assert seconds < 6
        gone = subprocess.run(
            [sys.executable, "-m", "triton_vision_gateway.health", f"127.0.0.1:{port}", "/livez"],
            cwd=ROOT,
            check=False,
        )
        assert gone.returncode == 1


@pytest.mark.containers
def test_a_video_is_taken_and_kept_in_the_volume(image: Path, models: Path) -> None:
    """The one folder that is written: the job's files lie in it, owned by the user that serves."""
    with serving(image, models) as (_, http):
        video = (ROOT / "docs" / "astronaut.mp4").read_bytes()
        answer = http.post("/v1/videos?profile=detect_embedded", content=video)
        assert answer.status_code == 202, answer.text
    kept = image / "volumes" / "var-lib-gateway" / "videos"
    assert {path.stat().st_uid for path in kept.rglob("*")} == {USER}


@pytest.mark.containers
def test_sigterm_waits_for_nobody_for_ever(image: Path, models: Path) -> None:
    """A client that never finishes its request gets the time that the settings give, and no more."""
    with serving(image, models, SHUTDOWN_TIMEOUT_S="1") as (container, http):
        with socket.create_connection(("127.0.0.1", http.base_url.port or 0)) as stalled:
            stalled.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
            time.sleep(0.3)
            _, seconds = container.stop()
        assert seconds < 6


WRITES = """
import os, sys, tempfile
for path in ("/", "/opt/gateway", "/srv/gateway", "/srv/gateway/profiles", "/etc", "/usr/local", "/root"):
    try:
        open(os.path.join(path, "x"), "w")
        print("wrote", path)
    except OSError:
        pass
for path in ("/tmp", "/var/lib/gateway", "/var/lib/gateway/videos", "/var/lib/gateway/spool", "/var/lib/gateway/text"):
    with tempfile.TemporaryFile(dir=path):
        pass
"""


@pytest.mark.containers
def test_only_the_volume_and_tmp_can_be_written(image: Path, tmp_path: Path) -> None:
    """Everything else is read-only, for the user that serves."""
    code = tmp_path / "writes.py"
    code.write_text(WRITES)
    mounted = (f"{tmp_path}:/srv/gateway/triton/models:ro",)
    meta = json.loads((image / "image.json").read_text())
    altered = tmp_path / "image.json"
    altered.write_text(json.dumps(meta | {"entrypoint": ["python", "/srv/gateway/triton/models/writes.py"]}))
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    original = (image / "image.json").read_text()
    try:
        (image / "image.json").write_text(altered.read_text())
        done = Container(image, volumes=mounted).run()
    finally:
        (image / "image.json").write_text(original)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.containers
def test_a_volume_that_cannot_be_written_is_named(image: Path, tmp_path: Path) -> None:
    """A bind mount of root's: refused at start by the setting's name, with the user that would need it."""
    for name in ("videos", "spool", "text"):
        (tmp_path / name).mkdir()
    done = Container(image, volumes=(f"{tmp_path}:/var/lib/gateway",)).run()
    assert done.returncode == 2
    assert "GATEWAY_VIDEOS_FOLDER: /var/lib/gateway/videos can't be written by user 10001" in done.stderr


@pytest.mark.containers
def test_the_image_has_the_other_commands_too(image: Path) -> None:
    """`docker run IMAGE config` prints the image's settings."""
    done = Container(image, "--", "config", "--json").run()
    rows = {row["name"]: row for row in json.loads(done.stdout)["settings"]}
    assert rows["host"]["value"] == "0.0.0.0"  # noqa: S104  # inside a container all addresses are its own
    assert rows["videos_folder"]["source"] == "environment"
