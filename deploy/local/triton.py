"""A real Triton server on this machine's CPU, without Docker. Standard library only.

    python deploy/local/triton.py --setup                      # once: the virtual environment with the server
    python deploy/local/triton.py --repository triton/models   # serve what is there; Ctrl-C ends it

The server is the one inside NVIDIA's package `nvidia-pytriton`. It lives exactly as long as this launcher: whatever
ends the launcher ends the server, its Python stubs and their shared memory. A small guard process sees to that: a stub
whose server dies while it is still loading waits for ever (nvidia-pytriton 0.7.0), so the group is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import http.client
import json
import os
import platform
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nvidia-pytriton==0.7.0", "onnxruntime>=1.19")
SHM = Path("/dev/shm")  # noqa: S108  # where shm_open puts its files: Triton's Python backend opens the same
PREFIX = "local-triton-"
STUB = "triton_python_backend_stub"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENVIRONMENTS = Path("/tmp")  # noqa: S108  # where Triton's Python backend makes a folder for each server
UNUSED_SECONDS = 3600
STOP_SECONDS = 30
GONE_SECONDS = 5
# The server is on this machine: a proxy named in the environment would only keep us from it.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def main() -> int:
    """Set up, or serve until a signal comes; the exit code is the server's (2: not set up)."""
    options, extra = _arguments()
    if platform.system() != "Linux":
        said = "Triton's server has packages for Linux only; here `make run` serves on the embedded engine, or set"
        print(f"{said} GATEWAY_TRITON_URL to a Triton on another machine (docs/start.md)", file=sys.stderr)
        return 2
    venv = options.venv if options.venv.is_absolute() else ROOT / options.venv
    if options.setup:
        return setup(venv)
    if not (venv / ".complete").is_file():
        print(
            f"{venv.name} is missing or incomplete; run: make triton (or {sys.argv[0]} --setup)",
            file=sys.stderr,
        )
        return 2
    server = Server(options, venv, extra)
    return server.serve()


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup", action="store_true", help="make the virtual environment and exit")
    parser.add_argument("--venv", type=Path, default=Path(".venv-triton"))
    parser.add_argument("--repository", type=Path, default=ROOT / "triton" / "models")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument(
        "--load", nargs="*", metavar="MODEL", help="load these (default: every one whose files exist)"
    )
    parser.add_argument(
        "--load-model",
        action="append",
        dest="load",
        metavar="MODEL",
        help="load this one, as tritonserver has it",
    )
    parser.add_argument("--log-verbose", type=int, default=0)
    parser.add_argument(
        "--exit-with-stdin", action="store_true", help="stop when standard input ends, as when a parent dies"
    )
    argv = sys.argv[1:]
    extra: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, extra = argv[:at], argv[at + 1 :]
    return parser.parse_args(argv), extra


def setup(venv: Path) -> int:
    """Install the server; an interrupted installation is done again, a complete one left alone."""
    complete = venv / ".complete"
    wanted = "\n".join(PACKAGES)
    if complete.is_file() and complete.read_text() == wanted:
        print(f"{venv.name}: complete")
        return 0
    print(f"{venv.name}: installing {', '.join(PACKAGES)} (about 450 MB)", flush=True)
    complete.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run(
        [venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], check=True
    )
    complete.write_text(wanted)
    return 0


class Server:
    """One tritonserver and all that it needs."""

    def __init__(self, options: argparse.Namespace, venv: Path, extra: list[str]) -> None:
        self._options = options
        self._extra = extra
        found = sorted(venv.glob("lib/python3.*/site-packages"))
        self._site = found[0]
        self._binary = self._site / "pytriton" / "tritonserver" / "bin" / "tritonserver"
        # Python's own variables would lead the stubs to other packages than the virtual environment's.
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
        self._environment = {
            "ORT_DISABLE_TELEMETRY": "1",
            **kept,
            "LD_LIBRARY_PATH": str(self._site / "nvidia_pytriton.libs"),
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._id = ""

    def serve(self) -> int:
        """Start it, say when it is ready, and stay until it ends."""
        backends = self._backends()
        models = self._options.load if self._options.load is not None else present(self._options.repository)
        sweep()
        with claim() as name:
            self._id = name
            backends = _plain(backends, SHM / f"{name}-backends")
            repository = _plain(self._options.repository.resolve(), SHM / f"{name}-repository")
            libraries = _plain(self._site / "nvidia_pytriton.libs", SHM / f"{name}-libraries")
            self._environment["LD_LIBRARY_PATH"] = str(libraries)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            process = self._process = subprocess.Popen(
                self._command(backends, repository, models, f"{name}-"),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                process_group=0,  # its stubs are in it, and Ctrl-C goes to this launcher alone
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # no threads here
            )
            with guard(process.pid, name):
                if self._stopping:  # the signal came before there was a process
                    process.terminate()
                if self._options.exit_with_stdin:
                    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
                if self._wait_ready(process):
                    self._say_ready(models)
                code = process.wait()
                return 0 if self._stopping else code

    def _stop(self, *_: object) -> None:
        asked_twice, self._stopping = self._stopping, True
        process = self._process
        if process is None:
            return
        if asked_twice:
            process.kill()
            return
        process.terminate()
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.alarm(STOP_SECONDS)

    def _command(self, backends: Path, repository: Path, models: list[str], prefix: str) -> list[str]:
        options = self._options
        command = [
            str(self._binary),
            f"--id={self._id}",
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in models),
            "--exit-on-error=false",
            "--strict-readiness=false",
            "--disable-auto-complete-config",
            f"--http-address={options.host}",
            f"--grpc-address={options.host}",
            f"--metrics-address={options.host}",
            f"--http-port={options.http_port}",
            f"--grpc-port={options.grpc_port}",
            f"--metrics-port={options.metrics_port}",
            f"--log-verbose={options.log_verbose}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
        ]
        if (backends / ".allow-client-shm").is_file():
            command.append("--allow-client-shm=true")
        return command + self._extra

    def _backends(self) -> Path:
        """The backends folder: Triton's Python backend with the stub of this Python, and ours. Made whole, once.

        Its name is the digest of what is in it, so a change makes another folder beside the one that servers use.
        """
        server = self._site / "pytriton" / "tritonserver"
        version = self._site.parent.name.removeprefix("python")
        stub = server / "python_backend_stubs" / version / STUB
        parts = {
            f"python/{stub.name}": stub,
            **{f"python/{p.name}": p for p in (server / "backends" / "python").iterdir() if p.is_file()},
            "onnxruntime/model.py": Path(__file__).parent / "backends" / "onnxruntime" / "model.py",
        }
        digest = hashlib.sha256()
        for name, part in sorted(parts.items()):
            digest.update(f"{name} {hashlib.sha256(part.read_bytes()).hexdigest()}\n".encode())
        target = ROOT / ".build" / "triton-backends" / digest.hexdigest()[:16]
        if not target.is_dir():
            self._build(target, parts)
        return target

    def _build(self, target: Path, parts: dict[str, Path]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as folder:
            fresh = Path(folder) / "backends"
            for name, part in parts.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(part, fresh / name)
            (fresh / "python" / STUB).chmod(0o755)  # or the first Triton must, and may not be allowed to
            if b"allow-client-shm" in self._help():
                (fresh / ".allow-client-shm").touch()
            try:
                fresh.rename(target)
            except OSError:
                if not target.is_dir():  # else another launcher was faster
                    raise

    def _help(self) -> bytes:
        done = subprocess.run(
            [self._binary, "--help"], env=self._environment, capture_output=True, check=False
        )
        return done.stdout + done.stderr

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> bool:
        while process.poll() is None and not self._stopping:
            # Who answers may be another server on this port: ours ends soon then, and mustn't look ready before.
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
                if self._ask("/v2")["name"] == self._id and self._ask("/v2/health/ready") is None:
                    return True
            time.sleep(0.1)
        return False

    def _say_ready(self, wanted: list[str]) -> None:
        options = self._options
        index = {row["name"]: row for row in self._ask("/v2/repository/index", data=b"{}")}
        ready = sorted(name for name, row in index.items() if row.get("state") == "READY")
        for name in sorted({*wanted, *index} - {*ready}):
            reason = index.get(name, {}).get("reason", "")
            if reason != "unloaded" and (reason or name in wanted):
                print(f"triton: NOT READY {name}: {reason or 'not loaded, see the log above'}", flush=True)
        print(
            f"triton: ready, gRPC {options.host}:{options.grpc_port}, HTTP {options.host}:{options.http_port}, "
            f"metrics {options.host}:{options.metrics_port}, {len(ready)} models READY: {' '.join(ready) or 'none'}",
            flush=True,
        )

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        """Return the answer of our server to GET, or to POST if there is data; None for an empty body."""
        with _open(self._url(path), data=data, timeout=5) as reply:
            return json.loads(reply.read() or b"null")

    def _url(self, path: str) -> str:
        return f"http://{self._options.host}:{self._options.http_port}{path}"


def present(repository: Path) -> list[str]:
    """Models to load: those whose files are there. Parts of ensembles come with them; what lacks files is named."""
    configs = {path.parent.name: path.read_text() for path in sorted(repository.glob("*/config.pbtxt"))}
    steps = {name: set(re.findall(r'model_name:\s*"([^"]+)"', text)) for name, text in configs.items()}
    there = {name for name in configs if (_served(repository / name) / "model.onnx").is_file()}
    for name in configs:
        if steps[name] and steps[name] <= there:
            _served(repository / name).mkdir(
                exist_ok=True
            )  # Triton wants the version folder of an ensemble too
            there.add(name)
    for name in sorted(set(configs) - there):
        lacks = " ".join(sorted(steps[name] - there)) or "1/model.onnx"
        print(f"triton: skipping {name}: no {lacks}", flush=True)
    parts = set().union(*(steps[name] for name in there))  # a part of a skipped ensemble serves by itself
    return sorted(there - parts)


def _served(model: Path) -> Path:
    """The version folder that Triton serves: the one with the highest number; without any, the first one."""
    numbers = [
        path.name for path in model.iterdir() if path.is_dir() and re.fullmatch("[1-9][0-9]*", path.name)
    ]
    return model / max(numbers, key=int, default="1")


@contextlib.contextmanager
def claim() -> Iterator[str]:
    """A name for shared memory, ours while a lock is held; what is left under it is removed at the end."""
    name = f"{PREFIX}{secrets.token_hex(6)}"
    fresh, lock = SHM / f".{name}", SHM / f"{name}.lock"
    fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        fresh.rename(lock)
        yield name
    finally:
        _remove(name)
        lock.unlink(missing_ok=True)
        os.close(fd)


def _plain(folder: Path, link: Path) -> Path:
    """The folder, or a link to it where its path holds characters that a shell or a list of paths acts on.

    Triton's Python backend starts its stub through an unquoted shell line.
    """
    if re.fullmatch(r"[\w@%+=,./-]+", str(folder), re.ASCII):
        return folder
    link.symlink_to(folder)
    return link


def sweep() -> None:
    """Remove the shared memory of launchers that died, and empty folders of servers that were killed."""
    for folder in ENVIRONMENTS.glob("python_env_*"):
        with contextlib.suppress(OSError):  # it isn't empty, or another launcher was faster
            if folder.stat().st_mtime < time.time() - UNUSED_SECONDS:
                folder.rmdir()
    for lock in SHM.glob(f"{PREFIX}*.lock"):
        with contextlib.suppress(OSError):
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock.name.removesuffix(".lock"))
                lock.unlink(missing_ok=True)
            finally:
                os.close(fd)


def _remove(name: str) -> None:
    for path in SHM.glob(f"{name}-*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def guard(group: int, name: str) -> Iterator[None]:
    """A process that ends what is left of the server when this one is gone, even by SIGKILL; at exit we do it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        if os.fork() == 0:  # not our child: it outlives us by moments
            os.setsid()
            if os.read(read, 1) == b"":  # the end of the pipe: the launcher is gone
                _end(group)
                _remove(name)
                (SHM / f"{name}.lock").unlink(missing_ok=True)
        os._exit(0)
    os.close(read)
    os.waitpid(child, 0)
    # From here on the stubs of a server that dies become our children, so that we needn't wait until init reaps them.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _end(group)
        with contextlib.suppress(BrokenPipeError):
            os.write(write, b".")
        os.close(write)


def _end(group: int) -> None:
    """SIGKILL to a process group, and return when it is empty."""
    limit = time.monotonic() + GONE_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < limit:
            os.killpg(group, signal.SIGKILL)
            _reap(group)
            time.sleep(0.01)


def _reap(group: int) -> None:
    """Reap our dead children of a process group."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main())
