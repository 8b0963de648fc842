"""A real Prometheus for tests, with the project's own configuration and rules; it never outlives the test process."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

from deploy.local.triton_server import free_ports
from support.paths import ROOT
from support.servers.programs import program

CONFIG = ROOT / "deploy" / "prometheus"
START_SECONDS = 120
# The shell ends the server when its input ends: with stop(), and with a test process that is killed.
_GUARD = '"$@" >&2 & echo $!; cat >/dev/null; kill $! 2>/dev/null; wait'


def promtool(*words: str | Path) -> str:
    """Return the output of promtool, which must succeed."""
    done = subprocess.run(
        [program("promtool"), *map(str, words)], cwd=CONFIG, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class PrometheusServer:
    """Start with `with PrometheusServer(folder, gateway, triton):`, targets as host:port; scrapes each second.

    `more` are other gateways; all are asked with the API key `key`.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str,
        triton: str,
        environment: str = "production",
        *,
        more: Sequence[str] = (),
        key: str | None = None,
    ) -> None:
        self._folder = folder
        self.port = free_ports(1)[0]
        gateways = "', '".join((gateway, *more))
        self._config = _stack().prometheus_config(gateways, triton, "1s", environment)
        if key is not None:
            job = "  - job_name: gateway\n"
            assert job in self._config
            self._config = self._config.replace(job, f"{job}    authorization: {{credentials: {key}}}\n")
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> PrometheusServer:
        self._folder.mkdir(parents=True, exist_ok=True)
        config, log = self._folder / "prometheus.yml", self._folder / "prometheus.log"
        config.write_text(self._config)
        command = [
            program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
        ]  # fmt: skip
        with log.open("wb") as out:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=out,
            )
        limit = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > limit:
                self.stop()
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(START_SECONDS)
        self._guard = None

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series of an instant query.

        Raises:
            ValueError: Prometheus refuses the expression; the message is its own.
        """
        moment = {} if at is None else {"time": str(at)}
        data = self._get("/api/v1/query", {"query": expr, **moment})
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        series: list[dict[str, Any]] = data["result"]
        return series

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as it was evaluated last."""
        return [rule for group in self._get("/api/v1/rules", {})["groups"] for rule in group["rules"]]

    def targets(self) -> dict[str, str]:
        """Job -> health."""
        active = self._get("/api/v1/targets", {})["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in active}

    def _answers(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/-/ready", timeout=1).status_code == 200
        return False

    def _get(self, path: str, parameters: dict[str, str]) -> Any:
        answer = (
            httpx2.post(f"{self.url}{path}", data=parameters, timeout=120)
            if parameters
            else httpx2.get(f"{self.url}{path}", timeout=120)
        )
        document = answer.json()
        if document["status"] != "success":
            raise ValueError(document["error"])
        return document["data"]


def _stack() -> Any:
    """deploy/local/stack.py, which knows how the configuration is turned to other targets."""
    spec = importlib.util.spec_from_file_location("stack", ROOT / "deploy" / "local" / "stack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
