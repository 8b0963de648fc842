"""`gateway up`: what it builds, keeps and refuses, without serving."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from app import cli
from routing import overlay

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's folders are the test's, no setting comes from outside, and no host can be reached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("GATEWAY_REPOSITORY", "GATEWAY_VARIANT", "GATEWAY_ENGINE", "GATEWAY_MANIFEST"):
        monkeypatch.delenv(name, raising=False)
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("GATEWAY_PORT", "0")


def up(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    code = cli.main(["up", "--build-only", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_starter_is_built_once_and_again_when_a_file_is_damaged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Offline: random weights with a warning that names the way out; then nothing is built, until a digest differs.

    With GATEWAY_PRECISION=fp16, FP16 branches come beside them and are kept as well.

    Beside models of a user's own checkpoint, no model of other weights is built.
    """
    code, output, errors = up(capsys)
    assert code == 0, errors
    folder = tmp_path / "cache" / "triton-vision-gateway" / "models"
    assert str(folder) in output
    assert output.count(" exported ") == 3
    assert "weights: random, seed 0: they recognise nothing" in output
    assert "RANDOM WEIGHTS" in errors
    assert "gateway up --weights PATH" in errors

    code, output, errors = up(capsys)
    assert (code, errors) == (0, "")
    assert "already built" in output
    assert "weights: random" in output

    monkeypatch.setenv("GATEWAY_PRECISION", "fp16")
    monkeypatch.setenv("GATEWAY_CATALOGUE", str(tmp_path / "catalogue"))
    (tmp_path / "catalogue").mkdir()
    code, output, errors = up(capsys)
    assert (code, errors, output.count(" converted, ")) == (0, "", 3)
    assert "yolo11n_640_fp16" in overlay.load(tmp_path / "catalogue").branches
    code, output, _ = up(capsys)
    assert (code, output.count(" is there, ")) == (0, 3)
    monkeypatch.delenv("GATEWAY_PRECISION")
    monkeypatch.delenv("GATEWAY_CATALOGUE")

    model = folder / "repository" / "yolo11n_640" / "1" / "model.onnx"
    content = model.read_bytes()
    model.unlink()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, output, _ = up(capsys, "--weights", "random")
    assert code == 0
    assert (output.count(" exported "), output.count(" is there, ")) == (1, 2)
    assert model.read_bytes() == content

    note = folder / "repository" / "yolo11n_320" / "1" / "weights.json"
    document = json.loads(note.read_text()) | {
        "weights": "checkpoint",
        "source": {"name": "mine.pt", "sha256": None},
    }
    note.unlink()
    note.write_text(json.dumps(document))
    model.unlink()
    code, output, errors = up(capsys)
    assert code == 1
    assert "the other models were built from mine.pt: name that file with --weights PATH" in errors
    assert "exported" not in output


def test_building_alone_needs_no_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that serves already keeps nobody from building beside it; it does from serving."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("GATEWAY_PORT", str(taken.getsockname()[1]))
        code, _, errors = up(capsys, "--weights", "/nope/yolo11n.pt")
        assert (code, "no weights yolo11n.pt" in errors) == (1, True)
        assert cli.main(["up", "--weights", "/nope/yolo11n.pt"]) == 2
        assert "Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (["--weights", "/nope/yolo11n.pt"], {}, 1, "gateway up: no weights yolo11n.pt: looked for /nope/yolo11n.pt"),
        (["--weights", __file__], {}, 1, "hint: --weights PATH takes a checkpoint"),
        (["--models", f"{__file__}/x"], {}, 1, "--models names another folder"),
        (["--variant", "q"], {}, 2, "gateway up: --variant: is one of n, s, m, l, x"),
        ([], {"GATEWAY_VARIANT": "large"}, 2, "gateway up: --variant: is one of n, s, m, l, x"),
        ([], {"GATEWAY_REPOSITORY": "models"}, 2, "gateway up: serves what it builds: unset GATEWAY_REPOSITORY"),
        ([], {"GATEWAY_ENGINE": "triton"}, 2, "gateway up: serves on the embedded engine: unset GATEWAY_ENGINE"),
        ([], {"GATEWAY_WIEGHTS": "x"}, 2, "gateway up: GATEWAY_WIEGHTS: there is no such setting"),
        ([], {"GATEWAY_MODELS": "nope"}, 2, "gateway up: GATEWAY_MODELS: no branch is called nope"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(
    arguments: list[str],
    variables: dict[str, str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback; what to do instead; nothing is built."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, output, errors = up(capsys, *arguments)
    assert found == code, errors
    assert said in errors
    assert "exported" not in output
