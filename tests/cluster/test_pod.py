"""The chart's pod runs: its containers with their commands, variables, user, mounts and probes, in their order."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.cluster.hosts import Host, Network, network
from support.cluster.pod import Pod
from support.paths import ROOT
from support.waiting import PATIENCE_S, eventually

from deploy.helm import lint

pytestmark = pytest.mark.triton


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the output of the tests short."""


@contextlib.contextmanager
def served(folder: Path, address: str) -> Iterator[str]:
    """A web server of a folder, for the host."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer((address, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _listed(repository: Path, folder: Path) -> Path:
    """Copy a repository and list its files, as docs/models.md says."""
    shutil.copytree(repository, folder)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def _specs(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod of the Deployment, and that of `helm test`, which asks this host in place of the Services."""
    with lint.packaged() as archive:
        found = {document["kind"]: document.get("spec") for document in lint.rendered(archive, values)}
    smoke = json.loads(
        json.dumps(found["Pod"])
        .replace("http://vision-triton-vision-gateway:80", "http://127.0.0.1:8080")
        .replace("http://vision-triton-vision-gateway-metrics:9090", "http://127.0.0.1:9090")
    )
    return found["Deployment"]["template"]["spec"], smoke


def _get(url: str) -> int:
    try:
        return httpx2.get(url, timeout=PATIENCE_S).status_code
    except httpx2.TransportError:
        return 0


def _isolated(made: Network) -> Network:
    if not made.isolated:
        pytest.skip("no namespaces: this needs root")
    return made


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `gateway models fetch`."""
    return _listed(repository, tmp_path_factory.mktemp("source") / "models")


def _fetched(source: Path, url: str) -> dict[str, Any]:
    digest = hashlib.sha256((source / "SHA256SUMS").read_bytes()).hexdigest()
    return {"existingClaim": "", "fetch": {"source": url, "digest": f"sha256:{digest}"}}


def _serves(pod: Pod, name: str, process: subprocess.Popen[bytes], operate: str) -> None:
    """Wait for the probes of a gateway."""
    for path in ("/livez", "/readyz"):
        eventually(lambda path=path: _get(operate + path) == 200 or process.poll() is not None)  # type: ignore[misc]  # now
    assert process.poll() is None, pod.log(name).read_text()[-4000:]


def _send(url: str, path: str, content_type: str) -> httpx2.Response:
    body = (ROOT / path).read_bytes()
    return httpx2.post(url, content=body, headers={"content-type": content_type}, timeout=PATIENCE_S)


def test_a_pod_with_triton_serves_by_reference_and_ends_in_order(source: Path, tmp_path: Path) -> None:
    """From the init container to SIGTERM, with roots that can't be written and a user without rights."""
    with network(["pod"]) as made, served(source, _isolated(made).address) as url:
        values = {
            "models": _fetched(source, url),
            "triton": {"gpus": 0, "models": ["yolo11n_640", "midas_256"]},
            "settings": {"VARIANT": "n", "REQUIRE_READY": "yolo11n_640,midas_256"},
            "shutdown": {"drainSeconds": 1},
        }
        host = made.hosts["pod"]
        (spec, smoke), (public, operate) = _specs(values), _urls(host)
        pod = Pod(spec, host, tmp_path)
        pod.run("fetch-models")
        with contextlib.ExitStack() as stack:
            triton = stack.enter_context(pod.running("triton"))
            eventually(lambda: pod.probe("triton", "startupProbe") or triton.poll() is not None)
            gateway = stack.enter_context(pod.running("gateway"))
            _serves(pod, "gateway", gateway, operate)
            _check_rights(triton, gateway)
            answer = _send(f"{public}/v1/detect", "docs/astronaut.jpg", "image/jpeg")
            assert answer.json()["models_used"][0]["weights_digest"].startswith("sha256:"), answer.text
            assert _send(f"{public}/v1/detect?every=10", "docs/astronaut.mp4", "video/mp4").status_code == 200
            metrics = httpx2.get(f"{operate}/metrics", timeout=PATIENCE_S).text
            assert 'gateway_inferences_total{branch="yolo11n_640",transport="shared_memory"}' in metrics
            assert 'transport="bytes"' not in metrics
            assert _get(f"{public}/livez") == 404  # it is on the other port
            assert _get(f"http://{host.address}:8002/metrics") == 200
            assert _get(f"http://{host.address}:8000/v2/health/live") == 0  # for the pod alone
            assert pod.probe("triton", "livenessProbe")
            Pod(smoke, host, tmp_path / "smoke").run("smoke")
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(PATIENCE_S) == 0  # 1 would say that it didn't end within its limits
            triton.send_signal(signal.SIGTERM)
            assert triton.wait(PATIENCE_S) == 0
            left = subprocess.run([*host.enter, "ls", "/dev/shm"], capture_output=True, text=True, check=True)
            assert [name for name in left.stdout.split() if "gateway" in name] == []


def test_a_pod_without_triton_serves_and_keeps_jobs(source: Path, tmp_path: Path) -> None:
    """ONNX Runtime's cache, jobs and uploads find volumes that they may write to."""
    with network(["pod"]) as made, served(source, _isolated(made).address) as url:
        values = {
            "engine": "embedded",
            "models": _fetched(source, url),
            "settings": {"VARIANT": "n", "REQUIRE_READY": "yolo11n_640"},
            "shutdown": {"drainSeconds": 0},
        }
        host = made.hosts["pod"]
        (spec, _), (public, operate) = _specs(values), _urls(host)
        pod = Pod(spec, host, tmp_path)
        pod.run("fetch-models")
        with pod.running("gateway") as gateway:
            _serves(pod, "gateway", gateway, operate)
            assert _send(f"{public}/v1/detect", "docs/astronaut.jpg", "image/jpeg").status_code == 200
            assert list((tmp_path / "volumes" / "state" / "graphs").iterdir()) != []
            job = _send(f"{public}/v1/videos?profile=detect_embedded", "docs/astronaut.mp4", "video/mp4")
            assert job.status_code == 202, job.text
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(PATIENCE_S) == 0


def _urls(host: Host) -> tuple[str, str]:
    return f"http://{host.address}:8080", f"http://{host.address}:9090"


def _check_rights(*processes: subprocess.Popen[bytes]) -> None:
    """Each runs as the chart's user, without capabilities, and can't get any."""
    for process in processes:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert "ro" in _root_options(process.pid)


def _root_options(pid: int) -> list[str]:
    """The options of what a process has mounted as its root."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == "/":
            return fields[5].split(",")
    return []
