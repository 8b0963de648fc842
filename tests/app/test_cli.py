"""The command line: its version, what was probably meant, and packages that are not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import run_command
from support.paths import ROOT

from app import __version__
from app.state.job_schema import INDEX


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, and the last line of the errors."""
    code, out, err = run_command(capsys, *arguments)
    return code, out, err.strip().splitlines()[-1] if err else ""


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the program."""
    assert said(capsys, "--version") == (0, f"gateway {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("serv", "did you mean 'serve'?"),
        ("anaylze", "did you mean 'analyze'?"),
        ("route", "did you mean 'routes'?"),
        ("keys nwe", "did you mean 'new'?"),
        ("serve --prot 8000", "did you mean '--port'?"),
        ("serve --worker-count=2", "did you mean '--workers'?"),
        ("config --jsno", "did you mean '--json'?"),
        ("serve --engine embeded", "did you mean 'embedded'?"),
        ("routes --family detct", "did you mean 'detect'?"),
        ("routes --not-ready yolo11n_32", "did you mean 'yolo11n_320'?"),
        ("routes --not-ready yolo11n_320,midas256", "did you mean 'midas_256'?"),
    ],
)
def test_what_was_probably_meant_is_told(capsys: pytest.CaptureFixture[str], line: str, hint: str) -> None:
    """A command, an option, a value or a branch with a slip in it: exit code 2, and the name that is like it."""
    code, _, error = said(capsys, *line.split())
    assert code == 2
    assert error.endswith(hint)


def test_what_is_like_nothing_has_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is guessed."""
    code, _, error = said(capsys, "xyzzy")
    assert (code, "did you mean" in error) == (2, False)


LONG = f"/tmp/{'a' * 300}"  # longer than any file system's names: it can't be looked at


@pytest.mark.parametrize(
    "line",
    [
        f"plan --memory 6GiB --repository {LONG}",
        f"detect --repository {LONG} docs/astronaut.jpg",
        f"detect {LONG}",
        f"branches --repository {LONG}",
        f"serve --repository {LONG}",
        f"backup {LONG}",
    ],
)
def test_a_path_that_cant_be_looked_at_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    """As a folder of another user: the path and the reason, exit code 2, and no traceback."""
    monkeypatch.setenv("GATEWAY_VIDEOS_FOLDER", str(tmp_path))
    (tmp_path / INDEX).touch()
    code, _, error = said(capsys, *line.split())
    assert (code, error) == (2, f"gateway: {LONG}: File name too long")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("models fetch https://host/models --timeout soon", "--timeout: 'soon' is not a number"),
        ("models fetch https://host/models --timeout nan", "--timeout: nan is not between 0 and 604800"),
        ("smoke --timeout soon", "--timeout: 'soon' is not a number"),
        ("detect --conf high a.jpg", "--conf: 'high' is not a number"),
        ("detect --timeout soon a.jpg", "--timeout: 'soon' is not a number"),
        ("bulk --limit 1.5", "--limit: '1.5' is not a whole number"),
    ],
)
def test_a_word_that_is_no_number_is_named(capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    """The error names the option and the word, not a function of the program."""
    code, _, error = said(capsys, *line.split())
    assert (code, error.partition("argument ")[2]) == (2, words)


@pytest.mark.parametrize(
    ("variant", "arguments", "branch"),
    [
        (None, ["320"], "yolo11x_320"),
        ("s", ["320"], "yolo11s_320"),
        ("s", ["--variant", "n", "320"], "yolo11n_320"),
        ("s", ["--family", "depth", "200"], "midas_256"),
    ],
)
def test_routes_follow_the_variant_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variant: str | None,
    arguments: list[str],
    branch: str,
) -> None:
    """`gateway routes` prints what a service with this GATEWAY_VARIANT would choose."""
    monkeypatch.delenv("GATEWAY_VARIANT", raising=False)
    if variant is not None:
        monkeypatch.setenv("GATEWAY_VARIANT", variant)
    code, output, _ = said(capsys, "routes", *arguments)
    assert (code, output.split()[1]) == (0, branch)


def test_routes_refuse_an_unknown_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command refuses it, as `gateway serve` does."""
    monkeypatch.setenv("GATEWAY_VARIANT", "q")
    code, output, error = said(capsys, "routes")
    assert (code, output) == (2, "")
    assert error.startswith("gateway routes: GATEWAY_VARIANT: is one of n, s, m, l, x, small, large")


ANALYZE = ["analyze", "--video-path", "docs/astronaut.mp4", "--profile-path", "profiles/detect_embedded.yaml"]


@pytest.mark.parametrize(
    ("package", "extra", "module", "arguments", "setting"),
    [
        ("onnxruntime", "embedded", "app.cli", ["serve", "--engine", "embedded"], None),
        ("onnxruntime", "embedded", "app.cli", [*ANALYZE, "--output", "OUT"], None),
        ("redis", "redis", "app.cli", ["serve"], "GATEWAY_SESSION_STORE=redis://127.0.0.1/0"),
        (
            "opentelemetry",
            "tracing",
            "app.cli",
            ["serve"],
            "GATEWAY_TRACING_ENDPOINT=http://127.0.0.1:4318/v1/traces",
        ),
        ("matplotlib", "bench", "app.cli", ["bench", "--plot"], None),
        ("onnx", "starter", "export.__main__", ["repository", "--check"], None),
    ],
)
def test_a_missing_package_is_one_line(
    package: str, extra: str, module: str, arguments: list[str], setting: str | None, tmp_path: Path
) -> None:
    """No traceback, exit code 1 or 2, and the extra that brings it."""
    arguments = [str(tmp_path) if word == "OUT" else word for word in arguments]
    script = (
        f"import runpy, sys; sys.modules[{package!r}] = None; "
        f"sys.argv = ['gateway', *{arguments!r}]; runpy.run_module({module!r}, run_name='__main__')"
    )
    given = dict([setting.split("=", 1)]) if setting else {}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={"PATH": "/usr/bin:/bin", "GATEWAY_REPOSITORY": "triton/models", **given},
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert f"pip install '.[{extra}]'" in lines[0]
