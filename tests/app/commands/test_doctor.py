"""`gateway doctor` and `gateway branches`: what they find, what they say to do, and their exit codes."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.commands import run_command
from support.servers.gateway import server
from support.servers.redis_server import RedisServer

from deploy.local.triton_server import TritonServer, free_ports

Said = tuple[int, str, str]
Run = Callable[..., Said]


@pytest.fixture
def run(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run a command in a folder of its own, over the small test repository, with a port that is free."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(repository))
    monkeypatch.setenv("GATEWAY_PORT", str(free_ports(1)[0]))

    def command(*arguments: str) -> Said:
        return run_command(capsys, *arguments)

    return command


def checked(run: Run, *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """The exit code, and the rows by what and name."""
    code, out, err = run("doctor", "--json", *arguments)
    assert "Traceback" not in err
    return code, {(row["what"], row["name"]): row for row in json.loads(out)["checks"]}


def test_all_is_well(run: Run) -> None:
    """Exit code 0; what was looked at stands in rows, each with a state, and random weights are a warning."""
    code, rows = checked(run)
    assert code == 0
    assert rows["python", "version"]["state"] == "ok"
    assert "CPUExecutionProvider" in rows["runtime", "providers"]["found"]
    assert rows["models", "folder"]["state"] == "ok"
    assert "yolo11n_320, yolo11n_640; not built: 960" in rows["family", "detect"]["found"]
    assert rows["weights", "random"]["state"] == "warning"
    assert {("port", name) for what, name in rows if what == "port"}
    assert {"folder", "memory", "limit", "redis", "triton", "extra", "setting"} <= {what for what, _ in rows}
    table = run("doctor", "--quick")[1]
    assert table.splitlines()[0].split() == ["what", "name", "state", "found"]
    assert table.splitlines()[-1].endswith(": well")


def test_what_fails_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 1: no models, a Triton and a Redis that nobody started, a port and a folder that can't be had."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name, value in {
            "ENGINE": "triton",
            "TRITON_URL": f"127.0.0.1:{free_ports(1)[0]}",
            "SESSION_STORE": f"redis://user:hunter2@127.0.0.1:{free_ports(1)[0]}",
            "PORT": str(taken.getsockname()[1]),
            "SPOOL_FOLDER": "/proc/nothing",
            "VARIANT": "q",
        }.items():
            monkeypatch.setenv(f"GATEWAY_{name}", value)
        code, rows = checked(run)
        assert code == 1
        failed = {key: row for key, row in rows.items() if row["state"] == "failed"}
        assert {what for what, _ in failed} == {"triton", "redis", "port", "folder", "setting"}
        assert all(row["todo"] for row in failed.values())
        assert "hunter2" not in json.dumps(list(rows.values()))
    monkeypatch.setenv("GATEWAY_ENGINE", "embedded")
    code, rows = checked(run, "--repository", str(tmp_path))
    assert rows["models", "folder"]["state"] == "failed"
    assert "builds the starter set" in rows["models", "folder"]["todo"]


def test_files_that_are_not_those_noted_fail(run: Run, repository: Path, tmp_path: Path) -> None:
    """A model whose bytes changed after it was built is named; --quick doesn't read it."""
    shutil.copytree(repository, tmp_path / "models")
    with (tmp_path / "models/yolo11n_640/1/model.onnx").open("ab") as file:
        file.write(b"more")
    code, rows = checked(run, "--repository", "models")
    assert code == 1
    assert rows["weights", "yolo11n_640"]["state"] == "failed"
    assert checked(run, "--repository", "models", "--quick")[0] == 0


def test_a_redis_and_a_triton_that_answer_are_well(
    run: Run, redis_server: RedisServer, triton: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked by their own protocols."""
    monkeypatch.setenv("GATEWAY_SESSION_STORE", redis_server.url)
    monkeypatch.setenv("GATEWAY_ENGINE", "triton")
    monkeypatch.setenv("GATEWAY_TRITON_URL", triton.grpc_url)
    code, rows = checked(run, "--quick")
    assert code == 0
    assert [row["state"] for (what, _), row in rows.items() if what in ("redis", "triton")] == [
        "ok",
        "ok",
        "ok",
    ]


def test_a_wrong_setting_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, as with every command."""
    monkeypatch.setenv("GATEWAY_PORT", "many")
    code, _, err = run("doctor")
    assert code == 2
    assert err.startswith("gateway: GATEWAY_PORT: ")


@pytest.fixture(scope="module")
def gateway(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A real `gateway serve`."""
    with server(repository, tmp_path_factory.mktemp("gateway") / "log", embedded_threads=1) as (http, _):
        yield http


def test_a_running_gateway_is_looked_at(
    run: Run, gateway: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --url; its own port is no fault where the settings name it."""
    monkeypatch.setenv("GATEWAY_PORT", str(gateway.base_url.port))
    code, rows = checked(run, "--quick", "--url", str(gateway.base_url))
    assert code == 0
    assert rows["gateway", "/readyz"]["state"] == "ok"
    assert rows["port", str(gateway.base_url.port)]["found"] == "a gateway serves there already"
    code, rows = checked(run, "--quick", "--url", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert code == 1
    assert rows["gateway", "/livez"]["todo"]


def test_branches_are_listed_from_a_gateway_and_from_a_folder(run: Run, gateway: httpx2.Client) -> None:
    """The same rows with the same digests; what is not there is left out unless --all asks for it."""
    code, by_url, _ = run("branches", "--url", str(gateway.base_url))
    assert code == 0
    code, here, err = run("branches")
    assert code == 0
    assert "more are not there" in err
    rows = [{line.split()[1]: line.split() for line in text.splitlines()} for text in (by_url, here)]
    assert list(rows[0]["branch"]) == [
        "family",
        "branch",
        "tier",
        "size",
        "variant",
        "state",
        "weights",
        "digest",
    ]
    names = {"yolo11n_320", "yolo11n_640", "midas_256"}
    assert names <= set(rows[0]) & set(rows[1])
    for name in names:
        by_gateway, by_files = (listed[name] for listed in rows)
        assert ("ready" in by_gateway, "built" in by_files) == (True, True)
        assert by_gateway[-2:] == by_files[-2:]
        assert by_files[-2] == "random"
    assert rows[1]["yolo11n_640"][:5] == ["detect", "yolo11n_640", "medium", "640", "n*"]
    assert len(run("branches", "--all")[1].splitlines()) > len(here.splitlines())
    said = json.loads(run("branches", "--url", str(gateway.base_url), "--json")[1])
    assert said == gateway.get("/v1/branches").json()
    code, out, err = run("branches", "--url", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert (code, out) == (2, "")
    assert "nobody answers there" in err
