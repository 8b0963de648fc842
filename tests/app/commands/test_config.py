"""`gateway config`: what is in force, where it comes from, and the table of all settings."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
from support.paths import ROOT
from support.waiting import PATIENCE_S

from app import cli
from app.commands.config import markdown, shown
from app.settings import HEADINGS, Settings

DOCUMENT = ROOT / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from outside."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GATEWAY_{name.upper()}", raising=False)


def test_the_table_of_settings_is_not_stale() -> None:
    """docs/settings.md is what `gateway config --markdown` prints now."""
    assert DOCUMENT.read_text(encoding="utf-8") == markdown(), "run: make settings"


def test_every_setting_stands_in_the_table_once_with_all_it_needs() -> None:
    """Name, default, unit or values, and what it is for; in a group with a heading."""
    rows = [line.split(" | ") for line in markdown().splitlines() if line.startswith("| `GATEWAY_")]
    assert [row[0].strip("| `") for row in rows] == [
        f"GATEWAY_{name.upper()}" for name in Settings.model_fields
    ]
    for row in rows:
        assert len(row) == 4, row
        assert all(len(cell.strip(" |")) > 2 for cell in row[:3] if cell != "| `0`"), row
        assert row[3].rstrip(" |").endswith((".", ")")), row
    assert next(iter(HEADINGS)) == next(iter(Settings.model_fields))
    assert {*HEADINGS} <= {*Settings.model_fields}


def test_durations_and_sizes_have_their_unit() -> None:
    """A number whose name ends in _s or _bytes says so."""
    for line in markdown().splitlines():
        if re.match(r"\| `GATEWAY_\w+_S` ", line):
            assert "| seconds" in line
        if re.match(r"\| `GATEWAY_\w+_BYTES` ", line):
            assert "| bytes" in line


def test_it_says_where_each_value_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flag before environment before default, with the value in force."""
    monkeypatch.setenv("GATEWAY_PORT", "9001")
    monkeypatch.setenv("GATEWAY_LEASES", "7")
    assert cli.main(["config", "--json", "--port", "9002", "--triton-url", "gpu7"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    assert {*rows} == {*Settings.model_fields}
    assert rows["port"] == {
        "name": "port", "variable": "GATEWAY_PORT", "value": 9002, "source": "flag", "default": 8080,
    }  # fmt: skip
    assert (rows["leases"]["value"], rows["leases"]["source"]) == (7, "environment")
    assert (rows["engine"]["value"], rows["engine"]["source"]) == ("triton", "flag")
    assert (rows["warmup"]["value"], rows["warmup"]["source"]) == (True, "default")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_secret_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    """A password in the store's URL is masked in both forms; the rest of it is there."""
    monkeypatch.setenv("GATEWAY_SESSION_STORE", "redis://me:hidden@store:6379/2")
    assert cli.main(["config", *form]) == 0
    printed = capsys.readouterr().out
    assert "hidden" not in printed
    assert "redis://me:***@store:6379/2" in printed


@pytest.mark.parametrize("name", ["api_key", "api_keys", "admin_token", "redis_password", "client_secret"])
def test_a_setting_that_is_called_a_secret_is_masked_whole(name: str) -> None:
    """A setting added later under such a name shows nothing, except that it is empty."""
    assert shown(name, "hidden") == "***"
    assert shown(name, "") == ""
    assert shown("models", "*") == "*"


def test_a_typo_is_an_error_here_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`gateway config` checks what `gateway serve` would refuse."""
    monkeypatch.setenv("GATEWAY_LEASE", "3")
    assert cli.main(["config"]) == 2
    assert "GATEWAY_LEASE: there is no such setting; did you mean GATEWAY_LEASES?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["config", "config --markdown", "routes", "metrics"])
def test_a_reader_who_has_seen_enough_is_no_error(command: str) -> None:
    """`gateway config | head -1`: one line, no traceback, and the code that the shell gives for it."""
    script = f"{shlex.quote(sys.executable)} -m app.cli {command} | (read -r line; echo $line); echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stderr == ""
    first, code = done.stdout.splitlines()
    assert first
    assert code in ("0", "141")  # 0: all of it fitted into the pipe
