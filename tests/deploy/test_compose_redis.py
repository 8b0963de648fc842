"""Redis of compose.yaml: its very command, run on a real server."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from support.paths import ROOT
from support.servers.programs import program
from support.waiting import PATIENCE_S

from deploy.local.triton_server import free_ports

PASSWORD = "a-password_1"  # noqa: S105  # of this test's server alone


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """The service's command line, with a port of this test's; yields the port."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["redis"]
    command = [word.replace("$$", "$") for word in service["command"]]
    port = free_ports(1)[0]
    stand_in = tmp_path / "bin" / "redis-server"
    stand_in.parent.mkdir()
    redis_server, folder = shlex.quote(program("redis-server")), shlex.quote(str(tmp_path))
    stand_in.write_text(f'#!/bin/sh\nexec {redis_server} "$@" --port {port} --dir {folder}\n')
    stand_in.chmod(0o755)
    environment = {"PATH": f"{stand_in.parent}{os.pathsep}/usr/bin:/bin", "REDISCLI_AUTH": PASSWORD}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "eady to accept connections" in line:
                break
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_redis_wants_its_password_and_keeps_what_it_has(server: int) -> None:
    """Nobody without it gets in; a full memory refuses what is new, and loses nothing that was kept."""
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=server).get("x")
    client = redis.Redis(port=server, password=PASSWORD)
    assert client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
    assert client.config_get("maxmemory")["maxmemory"] == str(256 << 20)
    client.set("session", "kept", ex=600)
    client.config_set("maxmemory", "1kb")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("another", b"x", ex=600)
    assert client.get("session") == b"kept"


def test_the_password_is_on_no_command_line(server: int) -> None:
    """Everybody on a host can read those."""
    assert server
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert PASSWORD not in listing
    assert shutil.which("ps") is not None
