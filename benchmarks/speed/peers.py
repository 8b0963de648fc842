"""The peers: their virtual environments, how each is started, and what each is sent.

Each is written as its own documentation has it (`peers/`), lives in `.venv-peers/<name>`, and answers the same
pictures with the same models. What can't be installed or started is a row that says why.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.common.cases import CASES, NPY, Case, body, request
from benchmarks.common.services import process, wait_http
from benchmarks.matrix.targets import JsonCaller
from benchmarks.speed.targets import HttpTarget, Unavailable
from deploy.local.triton_server import free_ports
from routing import catalogue as catalogues

FOLDER = ROOT / "benchmarks" / "peers"
VENVS = ROOT / ".venv-peers"
INSTALL_SECONDS = 900
# The families that a peer has an endpoint for, under the family's name.
MOST, EVERY = ("detect", "depth"), ("detect", "depth", "flow", "clip_image", "places")
_TRITON = ("pillow", "numpy", "tritonclient[grpc]")
# Half of a plain service's time goes into mapping and unmapping memory: what its operator can do about that.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}
_BILINEAR = {"DEPTH_FILTER": "BILINEAR"}
Make = Callable[[Case, Sequence[bytes]], bytes]
Check = Callable[[bytes], str | None]


@dataclass(frozen=True, slots=True)
class Peer:
    """Installation and start of one peer; `{python}`, `{bin}`, `{port}` and `{triton}` are filled in.

    `check`: turns the check of a case into that of the peer's answers. `versions`: packages whose versions stand in the
    table. `ready`: a path that answers 200 once it serves. `restless`: takes CPU while nobody asks it, so that it only
    runs while it is measured.
    """

    name: str
    what: str
    venv: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    versions: tuple[str, ...]
    ready: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    make: Make | None = None
    check: Callable[[Case], Check] = lambda case: case.check
    restless: bool = False
    families: tuple[str, ...] = MOST

    def answers(self, case: Case) -> bool:
        """Return whether the peer has an endpoint for the case; none resizes maps to the picture's size."""
        return case.family in self.families and not case.at_source


def form_request(case: Case, frames: Sequence[bytes]) -> bytes:
    """The picture as the part `file` of a form, or two under the case's own names."""
    content, kind = body(case, frames, part="file")
    return request(f"/{case.family}", content, {"Content-Type": kind, "Accept": case.accept})


def v1_request(case: Case, frames: Sequence[bytes]) -> bytes:
    """The picture in base64, as KServe's documentation sends it (v2's binary tensors become lists inside KServe)."""
    content = json.dumps({"instances": [{"image": {"b64": base64.b64encode(frames[0]).decode()}}]}).encode()
    return request(f"/v1/models/{case.branch}:predict", content, {"Content-Type": "application/json"})


def v1_answer(case: Case) -> Check:
    """The check of a case on the prediction: JSON as it is, or bytes in base64."""

    def checked(answer: bytes) -> str | None:
        found = json.loads(answer)["predictions"][0]
        return case.check(
            base64.b64decode(found["b64"]) if case.accept == NPY else json.dumps(found).encode()
        )

    return checked


_PLAIN = ("fastapi", "uvicorn[standard]", "python-multipart", *_TRITON)
_UVICORN = ("{bin}/uvicorn", "plain:app", "--port", "{port}", "--log-level", "warning")
PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("plain", "FastAPI, `def` endpoints, `UploadFile`, Pillow, tritonclient gRPC; depth with a bilinear filter",
             "plain", _PLAIN, _UVICORN, ("fastapi", "uvicorn", "pillow", "tritonclient"),
             environment=_BILINEAR, families=EVERY),
        Peer("plain_bicubic", "the same with the reference's filter for depth", "plain", _PLAIN, _UVICORN,
             ("fastapi", "uvicorn"), families=("depth",)),
        Peer("plain_tuned", "the first with malloc variables and two workers", "plain", _PLAIN,
             (*_UVICORN, "--workers", "2"), ("fastapi", "uvicorn"), environment={**_MALLOC, **_BILINEAR}),
        Peer("litserve", "LitServe, two workers per API", "litserve",
             ("litserve==0.2.19", "python-multipart", *_TRITON),
             ("{python}", "lit.py", "{port}"), ("litserve", "fastapi"), ready="/health"),
        Peer("bentoml", "BentoML service, `PIL.Image` inputs", "bentoml", ("bentoml==1.4.40", *_TRITON),
             ("{bin}/bentoml", "serve", "bento:Vision", "--port", "{port}"), ("bentoml",), ready="/readyz",
             environment={"BENTOML_DO_NOT_TRACK": "True"}),
        Peer("kserve", "KServe's Python transformer, pictures in base64, gRPC to Triton", "kserve",
             ("kserve==0.21.0", "pillow", "numpy"),
             ("{python}", "kserve_transformer.py", "--predictor_host", "{triton}", "--predictor_protocol", "grpc-v2",
              "--http_port", "{port}", "--enable_grpc", "false"), ("kserve",), make=v1_request, check=v1_answer),
        Peer("ray", "Ray Serve, FastAPI ingress, one replica", "ray",
             ("ray[serve]==2.60.0", "python-multipart", *_TRITON),
             ("{python}", "ray_serve.py", "{port}"), ("ray",),
             environment={"RAY_USAGE_STATS_ENABLED": "0"}, restless=True),
    )
}  # fmt: skip


def install(peer: Peer) -> Path:
    """Its virtual environment, made where it isn't complete.

    Raises:
        Unavailable: pip says no.
    """
    venv = VENVS / peer.venv
    wanted = "\n".join(peer.packages)
    complete = venv / ".complete"
    if complete.is_file() and complete.read_text() == wanted:
        return venv
    complete.unlink(missing_ok=True)
    print(f"{peer.venv}: installing {' '.join(peer.packages)}", file=sys.stderr, flush=True)
    pip = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *peer.packages]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, capture_output=True, text=True)
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"pip: {error.stderr.strip().splitlines()[-1][:200]}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip took longer than {INSTALL_SECONDS} s") from error
    complete.write_text(wanted)
    return venv


def versions(peer: Peer) -> dict[str, str]:
    """Return the versions of the packages that make up the peer."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    python = VENVS / peer.venv / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code, *peer.versions], capture_output=True, text=True, check=True, timeout=60
    )
    return dict(zip(peer.versions, done.stdout.split(), strict=True))


@contextlib.contextmanager
def serve(peer: Peer, cases: Iterable[str], triton_grpc: str, log: Path) -> Iterator[HttpTarget]:
    """A running peer, and its requests of those cases for which it has an endpoint.

    Raises:
        Unavailable: it can't be installed, or doesn't become ready.
    """
    venv, port = install(peer), free_ports(1)[0]
    filled = {"python": venv / "bin" / "python", "bin": venv / "bin", "port": port, "triton": triton_grpc}
    command = [part.format(**filled) for part in peer.command]
    path = f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {"TRITON_GRPC": triton_grpc, "PYTHONPATH": str(FOLDER), "PATH": path, **peer.environment}
    make = peer.make or form_request
    answered = [case for name in cases if peer.answers(case := CASES[name])]
    requests = {case.name: [make(case, frames) for frames in case.frames()] for case in answered}
    with process(command, log, environment, FOLDER) as served:
        try:
            wait_http(served, port, peer.ready, log)
        except RuntimeError as error:
            said = str(error).replace(str(ROOT), "")[-300:]
            raise Unavailable(f"doesn't start: {said}") from error
        yield HttpTarget(
            peer.name, port, served, requests, {case.name: peer.check(case) for case in answered}
        )


def json_client(triton_http: str, case: Case, calls: int = 3) -> float:
    """Median ms of one call as the client before this project made it: every tensor a list of numbers in JSON.

    The tensors alone: neither the picture's decoding nor the boxes are in it.
    """
    branch = catalogues.load().branches[case.branch]
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        spec.name: random.random(spec.shape, dtype=np.float32) for spec in branch.inputs
    }
    caller = JsonCaller(triton_http, branch, [arrays], 60)
    spent = []
    for _ in range(calls):
        before = time.perf_counter()
        caller()
        spent.append((time.perf_counter() - before) * 1000)
    caller.close()
    return float(np.median(spent))
