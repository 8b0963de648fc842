"""`gateway smoke` as an operator runs it: real processes against a real Triton and a real gateway."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from support.commands import run_command
from support.models import repository as test_repository
from support.models.repository import CATALOGUE
from support.paths import ROOT
from support.servers.gateway import server
from support.waiting import PATIENCE_S

from app.cli import main
from app.commands.smoke.inputs import fault_of, tensors
from app.engine.base import NUMPY_DTYPES
from deploy.local.triton_server import TritonServer, free_ports

REQUIRED = (
    "midas_256",
    "midas_384",
    "midas_512",
    "raft_256",
    "clip_image_224",
    "clip_text",
    "places365_resnet50_224",
)
WELL = (*REQUIRED, "yolo11n_320")


def broken(root: Path, name: str, how: str) -> None:
    """Replace the model of a branch by one that answers a constant, NaN, or the same to every input."""
    branch = CATALOGUE.branches[name]
    spec = branch.models[-1]
    output = spec.outputs[0]
    shape = numpy_helper.from_array(np.array(output.shape, np.int64), "shape")
    same = np.random.default_rng(1).random(output.shape, dtype=np.float32)
    value = {"constant": np.float32(0.5), "nan": np.float32("nan"), "deaf": same}[how]
    nodes = [
        helper.make_node("Cast", [spec.inputs[0].name], ["floats"], to=1),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["sum"]),
        helper.make_node("Expand", ["sum", "shape"], [output.name]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(value, "value"),
        shape,
    ]
    content = test_repository._serialise(spec, nodes, constants)
    (root / spec.name / "1" / "model.onnx").write_bytes(content)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every required branch, and optional ones that are broken: not loaded at the start."""
    root = test_repository.build(tmp_path_factory.mktemp("smoke"), (*WELL, "clip_image_336", "raft_384"))
    broken(root, "clip_image_336", "nan")
    broken(root, "raft_384", "deaf")
    return root


@pytest.fixture(scope="module")
def well(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton with all that is required."""
    with TritonServer(models, tmp_path_factory.mktemp("triton") / "log", load=WELL) as running:
        yield running


def control(triton: TritonServer, name: str, verb: str) -> None:
    """Load or unload a model, as an operator does."""
    connection = http.client.HTTPConnection(triton.http_url.removeprefix("http://"), timeout=PATIENCE_S)
    connection.request("POST", f"/v2/repository/models/{name}/{verb}", b"{}")
    assert connection.getresponse().status == 200
    connection.close()


def smoke(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a process of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "smoke", *arguments],
        check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def as_json(*arguments: str) -> dict[str, Any]:
    """The JSON answer, in this process; its exit code is the command's."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["smoke", *arguments, "--json"])
    document: dict[str, Any] = json.loads(out.getvalue())
    assert document["exit_code"] == code
    return document


def row(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    return next(check for check in document["checks"] if (check["kind"], check["name"]) == (kind, name))


def inferred(document: dict[str, Any]) -> dict[str, str]:
    """Status of every branch that was tried."""
    return {check["name"]: check["status"] for check in document["checks"] if check["kind"] == "inference"}


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["gRPC", "HTTP"])
def test_all_is_well(well: TritonServer, protocol: str) -> None:
    """Exit code 0; every READY branch made two inferences with times, and what is optional may be missing."""
    address = well.grpc_url if protocol == "gRPC" else well.http_url
    document = as_json("--triton-url", address, "--variant", "n", "--require", "checklist")
    assert document["exit_code"] == 0, document["wrong"]
    assert "Triton 2.51.0" in document["target"]
    assert protocol in document["target"]
    assert inferred(document) == dict.fromkeys(sorted(WELL, key=list(CATALOGUE.branches).index), "ok")
    assert all(check["ms"] > 0 for check in document["checks"] if check["kind"] in ("inference", "server"))
    required = {
        check["name"]
        for check in document["checks"]
        if check["kind"] == "model" and check["need"] == "required"
    }
    assert required == set(CATALOGUE.ready_checklist(required=True, variant="n"))
    assert all(row(document, "model", name)["checklist"] == "required" for name in required)
    found = row(document, "model", "yolo11n_640")
    assert (found["status"], found["need"], found["checklist"]) == ("missing", "optional", "optional")


@pytest.mark.triton
@pytest.mark.parametrize(
    ("require", "wrong"),
    [
        ("", []),
        ("yolo11n_320,midas_*", []),
        ("yolo11n_640", ["model yolo11n_640"]),
        ("checklist,raft_512", ["model preprocess_raft_512", "model raft_512", "model raft_512_onnx"]),
    ],
)
def test_required_is_what_is_asked_for(well: TritonServer, require: str, wrong: list[str]) -> None:
    """The checklist alone makes nothing wrong; a branch that must be READY does, with all its models."""
    document = as_json("--triton-url", well.grpc_url, "--require", require, "--branches", "")
    assert document["wrong"] == wrong
    assert document["exit_code"] == bool(wrong)


@pytest.mark.triton
def test_a_triton_without_any_model_is_wrong(models: Path, tmp_path: Path) -> None:
    """Nothing is required, and nothing is READY: a gateway over it would never be green."""
    with TritonServer(models, tmp_path / "log", load=("raft_384",)) as running:
        control(running, "raft_384", "unload")
        for part in ("raft_384_onnx", "preprocess_raft_384"):
            control(running, part, "unload")
        _until(lambda: as_json("--triton-url", running.grpc_url)["wrong"] == ["server models"])


@pytest.mark.triton
def test_the_table(well: TritonServer) -> None:
    """For people: columns below each other, a row a check, and the verdict last."""
    code, out, _ = smoke("--triton-url", well.grpc_url, "--branches", "midas_*")
    lines = out.splitlines()
    head = next(line for line in lines if line.startswith("check "))
    rows = [line for line in lines if line.startswith(("server ", "model ", "inference "))]
    assert code == 0
    assert {line[head.index("status") :].split()[0] for line in rows} <= {"ok", "missing", "failed"}
    assert sum(line.startswith("inference ") for line in rows) == 3
    assert any(line.startswith("model") and "yolo11n_320" in line and "extra" in line for line in rows)
    assert lines[-1] == "all that is required is well"


@pytest.mark.triton
def test_one_required_model_is_missing(well: TritonServer) -> None:
    """Exit code 1, and the table's last line names it; the others are still tried."""
    control(well, "midas_384", "unload")
    try:
        code, out, _ = smoke("--triton-url", well.grpc_url, "--require", "checklist")
        document = as_json("--triton-url", well.http_url, "--require", "checklist")
    finally:
        control(well, "midas_384", "load")
    assert code == 1
    assert out.splitlines()[-1] == "WRONG: model midas_384 (missing)"
    assert document["wrong"] == ["model midas_384"]
    assert row(document, "model", "midas_384")["detail"]
    assert "midas_384" not in inferred(document)
    assert inferred(document)["midas_512"] == "ok"


@pytest.mark.triton
def test_optional_and_broken(well: TritonServer) -> None:
    """Optional branches that answer NaN, or the same to everything, are failed, and count with --strict alone."""
    names = ("clip_image_336", "raft_384")
    for name in names:
        control(well, name, "load")
    try:
        relaxed = as_json("--triton-url", well.grpc_url, "--require", "checklist")
        strict = as_json("--triton-url", well.grpc_url, "--require", "checklist", "--strict")
    finally:
        for name in names:
            control(well, name, "unload")
    assert relaxed["exit_code"] == 0
    assert "not finite" in row(relaxed, "inference", "clip_image_336")["detail"]
    assert row(relaxed, "inference", "raft_384")["detail"] == "the same answer to two different inputs"
    assert strict["wrong"] == ["inference raft_384", "inference clip_image_336"]


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Required models that are READY and answer nonsense, and a detector that is well."""
    root = test_repository.build(tmp_path_factory.mktemp("sick"), (*REQUIRED, "yolo11n_320"))
    broken(root, "midas_256", "nan")
    broken(root, "places365_resnet50_224", "constant")
    broken(root, "clip_image_224", "deaf")
    return root


SICK = {
    "midas_256": "not finite",
    "places365_resnet50_224": "everywhere",
    "clip_image_224": "the same answer",
}


@pytest.mark.triton
def test_required_and_broken(sick: Path, tmp_path: Path) -> None:
    """READY is not enough: a required branch that answers NaN, a constant or the same to everything is wrong."""
    with TritonServer(sick, tmp_path / "log", load=("yolo11n_320", *SICK)) as running:
        documents = [
            as_json("--triton-url", url, "--require", "checklist")
            for url in (running.grpc_url, running.http_url)
        ]
    for document in documents:
        assert document["exit_code"] == 1
        for name, words in SICK.items():
            assert row(document, "inference", name)["status"] == "failed"
            assert words in row(document, "inference", name)["detail"]
        assert inferred(document)["yolo11n_320"] == "ok"


@pytest.mark.triton
def test_triton_is_down() -> None:
    """Exit code 2, at once, and a line that says where nobody answers."""
    port = free_ports(1)[0]
    for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"):
        started = time.monotonic()
        code, out, err = smoke("--triton-url", address)
        assert (code, out) == (2, "")
        assert f"127.0.0.1:{port}" in err
        assert "doesn't answer" in err
        assert time.monotonic() - started < PATIENCE_S


@pytest.mark.triton
def test_triton_hangs(models: Path, tmp_path: Path) -> None:
    """A server that accepts connections and says nothing is given up after the timeout."""
    with TritonServer(models, tmp_path / "log", load=("midas_256",)) as running:
        running.suspend()
        for address in (running.grpc_url, running.http_url):
            started = time.monotonic()
            document = as_json("--triton-url", address, "--timeout", "1")
            assert document["exit_code"] == 2
            assert "doesn't answer" in document["error"]
            assert time.monotonic() - started < PATIENCE_S
        running.resume()


def test_something_else_answers() -> None:
    """A web server that is neither Triton nor a gateway is as good as nobody."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_address[1]}"
        documents = [as_json(option, url) for option in ("--triton-url", "--url")]
        other.shutdown()
    assert [document["exit_code"] for document in documents] == [2, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "ftp://x"],
        ["--url", "http://x", "--triton-url", "y:1"],
        ["--triton-url", "x:1", "--variant", "q"],
        ["--triton-url", "x:1", "--require", "yolo12*"],
        ["--timeout", "0"],
        ["--transport", "pigeon"],
        ["--triton-url", "x:y"],
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Exit code 2 and a word on stderr for a command line that can't be meant."""
    code, out, err = run_command(capsys, "smoke", *arguments)
    assert (code, out) == (2, "")
    assert err


@pytest.mark.triton
def test_a_gateway_over_triton(well: TritonServer, models: Path, tmp_path: Path) -> None:
    """A real gateway: its own health, its checklist, and two requests to the route of every READY branch."""
    with server(
        models, tmp_path / "log", engine="triton", triton_url=well.grpc_url, require_ready="checklist"
    ) as (http_client, _):
        url = str(http_client.base_url)
        good = as_json("--url", url)
        control(well, "clip_text", "unload")
        try:
            _until(lambda: "clip_text" not in inferred(as_json("--url", url)))
            bad = as_json("--url", url)
        finally:
            control(well, "clip_text", "load")
    assert good["exit_code"] == 0, good["wrong"]
    assert "gateway" in good["target"]
    assert set(inferred(good)) == set(WELL)
    assert set(inferred(good).values()) == {"ok"}
    assert row(good, "inference", "yolo11n_320")["detail"] == ""
    assert bad["wrong"] == ["server ready", "model clip_text"]


def test_a_gateway_with_sick_models(sick: Path, tmp_path: Path) -> None:
    """Faults that the gateway itself refuses and faults that it passes on are both visible from outside."""
    settings = {"embedded_threads": 1, "require_ready": "checklist"}
    with server(sick, tmp_path / "log", **settings) as (http_client, _):
        document = as_json("--url", str(http_client.base_url))
    failed = {name for name, status in inferred(document).items() if status == "failed"}
    assert document["exit_code"] == 1
    assert failed == set(SICK)


def test_a_gateway_with_keys_and_a_port_for_operation(sick: Path, tmp_path: Path) -> None:
    """The key in the file opens what a stranger is told nothing of; probes are asked where --operate-url says."""
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", "keys", "new", "smoke", "--scopes", "infer,operate", "--json"],
        check=True, cwd=ROOT, capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    key = json.loads(made.stdout)
    (tmp_path / "key").write_text(key["key"] + "\n")
    with server(sick, tmp_path / "log", embedded_threads=1, api_keys=key["entry"]) as (http_client, _):
        where = ("--url", str(http_client.base_url), "--branches", "yolo11n_320")
        stranger = as_json(*where)
        known = as_json(*where, "--api-key-file", str(tmp_path / "key"))
        apart = as_json(*where, "--operate-url", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert stranger["wrong"] == ["server index"]
    assert "401" in row(stranger, "server", "index")["detail"]
    assert (known["exit_code"], inferred(known)) == (0, {"yolo11n_320": "ok"})
    assert apart["exit_code"] == 2


def test_a_gateway_whose_backend_is_away(tmp_path: Path) -> None:
    """The gateway answers, so the exit code is 1: not ready, with the reason, and everything required missing."""
    port, triton = free_ports(2)
    environment = {**os.environ, "GATEWAY_VIDEOS_FOLDER": "", "GATEWAY_TRITON_URL": f"127.0.0.1:{triton}"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--engine", "triton"],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _until(lambda: as_json("--url", f"http://127.0.0.1:{port}")["exit_code"] != 2)
        document = as_json("--url", f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    assert document["exit_code"] == 1
    assert row(document, "server", "live")["status"] == "ok"
    assert row(document, "server", "ready")["status"] == "failed"
    assert "triton" in row(document, "server", "ready")["detail"]
    assert inferred(document) == {}


def _until(true: Any, seconds: float = PATIENCE_S) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.mark.parametrize("name", list(CATALOGUE.branches))
def test_inputs_keep_the_contract_and_differ(name: str) -> None:
    """Whatever the branch, both inputs have its dtypes and shapes, and each tensor differs between the two."""
    branch = CATALOGUE.branches[name]
    first, second = (tensors(branch, number) for number in (0, 1))
    for spec in branch.inputs:
        for arrays in (first, second):
            assert arrays[spec.name].shape == spec.shape
            assert arrays[spec.name].dtype == NUMPY_DTYPES[spec.datatype]
        assert not np.array_equal(first[spec.name], second[spec.name])


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([1.0, 2.0], [2.0, 1.0], None),
        ([1.0, 2.0], [1.0, 2.0], "the same answer"),
        ([1.0, 2.0], [1.0, 2.0000001], "the same answer"),
        ([1.0, 2.0], [3.0, 3.0], "everywhere"),
        ([1.0, float("inf")], [1.0, 2.0], "not finite"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "shape"),
        ([0.0, 0.00001], [0.0, 0.00002], None),
    ],
)
def test_answers_are_judged(first: list[float], second: list[float], words: str | None) -> None:
    """Shape, finite, not constant, different: the first fault is told, and small numbers are no fault."""
    answers = [{"y": np.array(values, np.float32)} for values in (first, second)]
    fault = fault_of(answers, {"y": (2,)})
    assert fault is None if words is None else words in (fault or "")
