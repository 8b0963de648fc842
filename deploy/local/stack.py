"""The whole stack on one machine, without Docker: Triton, the gateway, Redis for its sessions, and Prometheus.

    python deploy/local/stack.py                             # over triton/models; Ctrl-C ends all of it
    python deploy/local/stack.py --repository DIR --workers 4 --folder /tmp/stack

Every part listens on a free port of 127.0.0.1; the last line before it waits says which. Standard library only; the
parts come from `make .venv/.dev`, `deploy/local/triton.py --setup`, `deploy/local/redis.sh` and
`deploy/local/prometheus.sh`, the latter two called here. Whatever ends this program ends all that it started.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
PR_SET_PDEATHSIG = 1
START_SECONDS = 120
STOP_SECONDS = 40
# All parts are on this machine: a proxy named in the environment would only keep us from them.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Stopped(Exception):  # no error: somebody asked for the end
    """A signal came."""


def main() -> int:
    """0 after a signal, 1 if a part didn't start or ended by itself."""
    options = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    with contextlib.ExitStack() as stack:
        try:
            folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stack-")))
            folder.mkdir(parents=True, exist_ok=True)
            parts = start(stack, options, folder.resolve())
            print(f"stack: ready {json.dumps(parts.addresses)}", flush=True)
            parts.wait()
        except Stopped:
            return 0
        except RuntimeError as error:
            print(f"stack: {error}", file=sys.stderr, flush=True)
            return 1
        finally:  # a second Ctrl-C mustn't leave anything running
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=ROOT / "triton" / "models")
    parser.add_argument("--workers", type=int, default=2, help="processes of the gateway")
    parser.add_argument("--variant", default="n", help="detection variant when a caller names none")
    parser.add_argument("--scrape-interval", default="5s", help="of Prometheus, and of its rules")
    parser.add_argument(
        "--environment",
        default="development",
        help="label of the targets; in production, random weights alert",
    )
    parser.add_argument(
        "--folder", type=Path, help="logs, videos and Prometheus' data (default: gone afterwards)"
    )
    return parser.parse_args()


def _stop(*_: object) -> None:
    raise Stopped


class Parts:
    """Running parts; each is stopped when the stack that it was entered on unwinds, the last one first."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses: dict[str, str] = {"folder": str(folder)}

    def add(
        self, name: str, command: Sequence[str | Path], ready: Callable[[], object], **environment: str
    ) -> None:
        """Start a part, and return once `ready` neither raises OSError nor answers False."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            process = self._running[name] = subprocess.Popen(
                [str(word) for word in command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,  # Triton's launcher ends with it
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C goes to this program alone, which ends the parts in order
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # no threads here
            )
        self._stack.callback(_end, process)
        limit = time.monotonic() + START_SECONDS
        while not _holds(ready):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(
                    f"{name} didn't start, see {log}:\n{log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.1)
        print(f"stack: {name} runs, log: {log}", flush=True)

    def wait(self) -> NoReturn:
        """Until a part ends by itself."""
        while True:
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise RuntimeError(
                        f"{name} ended with {process.returncode}, see {self._folder / name}.log"
                    )
            time.sleep(0.2)


def start(stack: contextlib.ExitStack, options: argparse.Namespace, folder: Path) -> Parts:
    """Every part in the order in which they need each other.

    Raises:
        RuntimeError: a part doesn't start; the message says which, and what it said last.
    """
    if not options.repository.is_dir():
        raise RuntimeError(f"{options.repository} is no model repository")
    http, grpc, metrics, redis, gateway, prometheus = _free_ports(6)
    parts = Parts(stack, folder)
    parts.add(
        "triton",
        [
            sys.executable, HERE / "triton.py", "--repository", options.repository.resolve(), "--exit-with-stdin",
            "--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics),
        ],
        lambda: b"triton: ready," in (folder / "triton.log").read_bytes(),
    )  # fmt: skip
    sessions = "memory"
    if options.workers > 1:  # they share them
        server = _provided("redis.sh")
        parts.add(
            "redis",
            [
                server,
                "--port",
                str(redis),
                "--bind",
                "127.0.0.1",
                "--dir",
                folder,
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            lambda: _listens(redis),
        )
        sessions = f"redis://127.0.0.1:{redis}/0"
    parts.add(
        "gateway",
        [_python(), "-m", "app.cli", "serve", "--port", str(gateway), "--workers", str(options.workers)],
        lambda: _answers(f"http://127.0.0.1:{gateway}/readyz"),
        GATEWAY_ENGINE="triton",
        GATEWAY_TRITON_URL=f"127.0.0.1:{grpc}",
        GATEWAY_REPOSITORY=str(options.repository.resolve()),
        GATEWAY_VARIANT=options.variant,
        GATEWAY_SESSION_STORE=sessions,
        GATEWAY_VIDEOS_FOLDER=str(folder / "videos"),
    )
    config = folder / "prometheus.yml"
    config.write_text(
        prometheus_config(
            f"127.0.0.1:{gateway}", f"127.0.0.1:{metrics}", options.scrape_interval, options.environment
        )
    )
    parts.add(
        "prometheus",
        [
            _provided("prometheus.sh"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=warn",
        ],
        lambda: _answers(f"http://127.0.0.1:{prometheus}/-/ready"),
    )  # fmt: skip
    parts.addresses |= {
        "gateway": f"http://127.0.0.1:{gateway}",
        "triton": f"http://127.0.0.1:{http}",
        "prometheus": f"http://127.0.0.1:{prometheus}",
    }
    return parts


def prometheus_config(gateway: str, triton: str, interval: str, environment: str) -> str:
    """deploy/prometheus/prometheus.yml with these targets (host:port), and the rules where they lie."""
    text = (PROMETHEUS / "prometheus.yml").read_text("utf-8")
    for old, new in {
        "[gateway:8080]": f"['{gateway}']",
        "[triton:8002]": f"['{triton}']",
        "interval: 15s": f"interval: {interval}",
        "environment: production": f"environment: {environment}",
        "[rules/*.yml]": f"['{PROMETHEUS}/rules/*.yml']",
    }.items():
        if old not in text:
            raise RuntimeError(f"prometheus.yml has no {old!r} any more")
        text = text.replace(old, new)
    return text


def _provided(script: str) -> str:
    """The program that a script beside this one provides."""
    done = subprocess.run([HERE / script], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{script} provides none")
    return done.stdout.strip()


def _python() -> str:
    """The Python that has the gateway's packages."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def _holds(ready: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError):
        return bool(ready())
    return False


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def _answers(url: str) -> bool:
    with _open(url, timeout=5) as reply:
        return bool(reply.status == 200)


def _free_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in sockets]
    return iter(ports)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to all of its group if that doesn't help."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _end_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
