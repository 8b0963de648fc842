"""Settings: what is refused, by which name, and what an address means."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.models.repository import CATALOGUE
from support.paths import ROOT
from support.servers.gateway import client
from support.waiting import PATIENCE_S

from app.addresses import TritonAddress, masked
from app.process import preflight
from app.settings import Settings, unknown_variables
from app.state import mounts
from app.state.jobs import JobIndex
from app.state.schema_version import JOBS, SchemaVersion
from deploy.local.triton_server import TritonServer


def gateway(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these variables and no other setting from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT, env=kept | {f"GATEWAY_{name}": value for name, value in variables.items()},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ENGINE", "tritn", "'embedded' or 'triton'"),
        ("LEASES", "0", "greater than or equal to 1"),
        ("LEASES", "65", "less than or equal to 64"),
        ("LEASES", "", "valid integer"),
        ("WARMUP", "perhaps", "valid boolean"),
        ("REQUEST_TIMEOUT_S", "inf", "finite number"),
        ("SESSION_TTL_S", "nan", "finite number"),
        ("TRITON_URL", "https://host", "https:// is not offered"),
        ("TRITON_URL", "gpu7:8001,gpu8,gpu7", "names gpu7:8001 twice"),
        ("TRITON_URL", "grpcs://gpu7,gpu8", "grpcs:// for all or for none"),
        ("TRITON_REPOSITORIES", "/a,/b", "has 2 folders, and GATEWAY_TRITON_URL 1 addresses"),
        ("TRITON_GRPC_PORT", "9001", "GATEWAY_TRITON_URL that begins with http://"),
        ("SESSION_STORE", "sql://hidden", "redis:// or rediss://"),
        ("API_KEYS", "north gw_hidden", "write its entry, with the hash"),
        ("API_KEYS_FILE", "/nowhere", "No such file"),
        ("TRUSTED_PROXIES", "proxy.example", "addresses and networks"),
        ("CORS_ORIGINS", "https://app.example/", "a list of origins"),
        ("OPERATE_PORT", "0", "greater than or equal to 1"),
        ("TLS_CERT", "/nowhere", "goes with GATEWAY_TLS_KEY"),
        ("TLS_CLIENT_CA", "/nowhere", "goes with GATEWAY_TLS_CERT"),
        ("REPOSITORY", "", "the embedded engine needs it"),
        ("REPOSITORY", "/nowhere", "/nowhere is not a folder that is there"),
        ("MANIFEST", "/nowhere.json", "not a file that is there"),
        ("PROFILES_FOLDER", "/nowhere", "not a folder that is there"),
        ("VIDEOS_FOLDER", "/proc/videos", "can't be written by user"),
        ("SPOOL_FOLDER", "/proc/spool", "can't be written by user"),
        ("TEXT_CACHE_FOLDER", "/proc/cache", "can't be written by user"),
        ("VARIANT", "q", "is one of n, s, m, l, x"),
        ("REQUIRE_READY", "checklist, yolo12n_*", "no branch is called yolo12n_*"),
        ("MODELS", "midas_256,raft_265", "no branch is called raft_265"),
        ("LEASE", "3", "did you mean GATEWAY_LEASES?"),
        ("PORT_8080_TCP", "tcp://10.0.0.1:8080", "enableServiceLinks: false"),
        ("ZZZ", "1", "`gateway config` lists all settings"),
    ],
)
def test_a_wrong_value_is_refused_at_start_by_name(name: str, value: str, said: str) -> None:
    """Exit code 2 before anything listens, the variable's name, what is allowed, and never the value of a secret."""
    done = gateway("serve", "--port", "0", **{name: value})
    assert done.returncode == 2
    assert f"gateway: GATEWAY_{name}: " in done.stderr
    assert said in done.stderr
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


def test_every_wrong_value_is_named_at_once() -> None:
    """Three mistakes are reported as three, the misspelt name among them."""
    done = gateway("serve", LEASES="0", PORT="tcp://10.0.0.1:80", SERVICE_HOST="10.0.0.1")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "GATEWAY_LEASES",
        "GATEWAY_PORT",
        "GATEWAY_SERVICE_HOST",
    ]


def test_what_others_put_into_the_environment_is_left_alone() -> None:
    """Only names with our prefix are ours, whatever their case; the tests' own variable is no setting."""
    names = ["HOME", "GATEWAY_PORT", "gateway_leases", "GATEWAY_REFERENCE_DATA", "MY_GATEWAY_X"]
    assert unknown_variables(names) == []
    assert len(unknown_variables(["gateway_leas"])) == 1


def test_defaults_that_are_not_there_only_take_away_what_needs_them(tmp_path: Path) -> None:
    """A read-only folder without videos and profiles serves; only what was asked for by name must be there."""
    assert preflight.faults(Settings(engine="triton"), CATALOGUE) == []
    asked = Settings(engine="triton", repository=tmp_path / "none")
    assert preflight.faults(asked, CATALOGUE)[0].startswith("GATEWAY_REPOSITORY: ")


def test_a_folder_of_videos_that_hosts_share_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the setting and with what to use instead; with PostgreSQL, or if it is accepted, it is none."""
    table = tmp_path / "mountinfo"
    table.write_text(f"98 27 0:44 / {tmp_path} rw - nfs4 10.0.0.2:/export rw\n")
    monkeypatch.setattr(mounts, "_TABLE", table)
    given = {"engine": "triton", "videos_folder": tmp_path / "videos"}
    (said,) = preflight.faults(Settings(**given), CATALOGUE)
    assert said.startswith("GATEWAY_VIDEOS_FOLDER: ")
    assert "(nfs4)" in said
    assert "GATEWAY_JOB_STORE=postgresql://" in said
    assert preflight.faults(Settings(**given, videos_folder_on_network=True), CATALOGUE) == []
    database = Settings(**given, job_store="postgresql://localhost/jobs")
    assert not [said for said in preflight.faults(database, CATALOGUE) if "VIDEOS_FOLDER" in said]


def test_an_index_of_a_later_major_version_is_refused(tmp_path: Path) -> None:
    """One line, before anything is changed."""
    JobIndex.in_folder(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "jobs.sqlite3")
    connection.execute(f"PRAGMA user_version = {SchemaVersion(JOBS.major + 1, 0).number}")
    connection.close()
    (said,) = preflight.faults(Settings(engine="triton", videos_folder=tmp_path), CATALOGUE)
    assert said.startswith("GATEWAY_VIDEOS_FOLDER: ")
    assert f"{JOBS.major + 1}.0" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "triton", "rescan_s": 1}, "GATEWAY_RESCAN_S does nothing with GATEWAY_ENGINE=triton"),
        ({"triton_url": "gpu:1"}, "GATEWAY_TRITON_URL does nothing with GATEWAY_ENGINE=embedded"),
        ({"engine": "triton", "triton_url": "gpu:8000"}, "8000 is usually Triton's HTTP port"),
        ({"engine": "triton", "triton_url": "http://gpu:9000"}, "gRPC is expected at gpu:9001"),
    ],
)
def test_what_is_most_likely_not_meant_is_a_warning(given: dict[str, object], said: str) -> None:
    """The service starts, and says what the setting won't do."""
    (warning,) = preflight.warnings(Settings(**given))
    assert said in warning


@pytest.mark.parametrize(
    ("text", "port", "grpc"),
    [
        ("gpu7", None, "gpu7:8001"),
        ("gpu7:9001", None, "gpu7:9001"),
        ("grpc://gpu7", None, "gpu7:8001"),
        ("grpc://gpu7:9001", None, "gpu7:9001"),
        ("grpcs://gpu7", None, "gpu7:8001"),
        ("grpcs://gpu7:9001", None, "gpu7:9001"),
        ("http://gpu7", None, "gpu7:8001"),
        ("http://gpu7:8000/", None, "gpu7:8001"),
        ("http://gpu7:9000", None, "gpu7:9001"),
        ("http://gpu7:8000", 9999, "gpu7:9999"),
        ("[::1]:8001", None, "[::1]:8001"),
        ("http://[::1]:8000", None, "[::1]:8001"),
        ("10.0.0.7:8001", None, "10.0.0.7:8001"),
    ],
)
def test_an_address_of_triton_means_its_grpc_service(text: str, port: int | None, grpc: str) -> None:
    """host:port and grpc:// as they are; http:// the next port, which is how Triton's own ports lie."""
    assert TritonAddress.parse(text, port).grpc == grpc
    assert TritonAddress.parse(text, port).guessed == (text.startswith("http") and port is None)
    assert TritonAddress.parse(text, port).tls == text.startswith("grpcs")


@pytest.mark.parametrize(
    "text",
    ["", "https://gpu7", "grpcs://gpu7/x", "gpu7:port", "gpu7:70000", "gpu7:0", "http://gpu7/v2", "ftp://gpu7",
     "user@gpu7:8001", "http://gpu7:8000?x=1", "gpu7 :8001", "://gpu7", "http://", "http://gpu7:65535", "gpu7:8001,"],
)  # fmt: skip
def test_what_is_no_address_of_triton_says_what_is(text: str) -> None:
    """Refused by name where it is set, with the forms that are allowed."""
    with pytest.raises(ValidationError, match="host:port or grpc://host:port"):
        Settings(triton_url=text)


@pytest.mark.parametrize(
    "text", ["gpu7:8001,gpu7:8001", "http://gpu7:8000,gpu7:8001", "gpu7, grpc://GPU7:8001"]
)
def test_a_triton_is_named_once(text: str) -> None:
    """Two forms of one address are one Triton, which would get twice its share."""
    with pytest.raises(ValidationError, match="names gpu7:8001 twice"):
        Settings(triton_url=text)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory", "memory"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("rediss://me:se:c@ret@host/0", "rediss://me:***@host/0"),
        ("redis://secret@host", "redis://***@host"),
        ("redis://host/0?password=secret&ssl=1", "redis://host/0?password=***&ssl=1"),
        ("redis://:sec%2Fret@host", "redis://:***@host"),
    ],
)
def test_passwords_are_masked(url: str, said: str) -> None:
    """Every form in which a URL carries one."""
    assert masked(url) == said


@pytest.mark.triton
def test_a_real_triton_is_found_by_its_http_address(triton: TritonServer, repository: Path) -> None:
    """http:// with the port of gRPC named: the gateway serves through it."""
    port = int(triton.grpc_url.rpartition(":")[2])
    settings = {"engine": "triton", "triton_url": triton.http_url, "triton_grpc_port": port}
    with client(repository, **settings) as gateway_client:
        assert gateway_client.get("/readyz").status_code == 200


@pytest.mark.triton
def test_a_real_triton_is_found_on_the_next_port(repository: Path, tmp_path: Path) -> None:
    """http:// alone means gRPC on the next port, where Triton's own defaults have it too."""
    with (
        TritonServer(repository, tmp_path / "log", load=["yolo11n_320"], ports=_neighbours()) as server,
        client(repository, engine="triton", triton_url=server.http_url) as gateway_client,
    ):
        assert gateway_client.get("/readyz").status_code == 200
        server.kill()


def _neighbours() -> list[int]:
    """Two free ports side by side, and a third."""
    for port in range(20000, 60000, 7):
        try:
            for candidate in (port, port + 1, port + 2):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        return [port, port + 1, port + 2]
    raise RuntimeError("no free ports")
