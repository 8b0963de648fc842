"""`gateway verify`: an output and its models, a year later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.analysis import patches
from support.analyze_command import BOXES, options, run

from app.cli import main

DETECTIONS = "core_object_detections/detections.npz"


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of `gateway analyze` with two videos."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("a.mp4", "sub dir/b.mp4"):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        patches(folder / "in" / name, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEWAY_VARIANT", "n")
        patch.setenv("GATEWAY_MANIFEST", "")
        code, _, err = run(
            "--video-path", folder / "in", "--output", folder / "out", "--format", "parquet",
            *options(repository, folder, BOXES),
        )  # fmt: skip
    assert code == 0, err
    return folder / "out"


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy that a test may harm."""
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"  # type: ignore[return-value]


def verify(
    capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit code, the manifests' objects and the summary."""
    code = main(["verify", *map(str, arguments), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, lines[:-1], lines[-1]["summary"]


def test_all_is_well(output: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is read; the models are those that made it."""
    code, manifests, summary = verify(capsys, output, "--repository", repository)
    assert code == 0
    assert [one["folder"] for one in manifests] == ["a.mp4", "sub dir/b.mp4"]
    assert all(one["ok"] for one in manifests)
    assert manifests[0]["components"][0]["component"] == "core_object_detections"
    assert summary["components"] == {"same": 2}
    assert (summary["manifests"], summary["files"], summary["problems"]) == (2, 4, {})
    assert main(["verify", str(output), "--repository", str(repository)]) == 0
    assert "2 manifests, 4 files" in capsys.readouterr().out


def test_every_harm_is_found(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit, a file that is cut off, one that is gone; the rest is checked all the same."""
    npz = output / "a.mp4" / DETECTIONS
    data = bytearray(npz.read_bytes())
    data[len(data) // 2] ^= 1
    npz.write_bytes(data)
    parquet = npz.with_suffix(".parquet")
    parquet.write_bytes(parquet.read_bytes()[:-1])
    (output / "sub dir" / "b.mp4" / DETECTIONS).unlink()
    code, manifests, summary = verify(capsys, output, "--files-only")
    assert code == 1
    faults = {problem["file"]: problem["fault"] for one in manifests for problem in one["problems"]}
    assert faults == {
        f"a.mp4/{DETECTIONS}": "other_digest",
        f"a.mp4/{DETECTIONS}".replace("npz", "parquet"): "other_length",
        f"sub dir/b.mp4/{DETECTIONS}": "missing",
    }
    assert summary["problems"] == {"missing": 1, "other_digest": 1, "other_length": 1}
    assert summary["models_at"] is None


def test_other_weights_are_named(
    output: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Per video and component, with both digests; models that are not there, too."""
    others = tmp_path / "others"
    shutil.copytree(repository, others)
    model = next(
        path for path in others.rglob("model.onnx") if "yolo11n_320" in str(path) and "pre" not in str(path)
    )
    model.write_bytes(model.read_bytes() + b"\0")
    code, manifests, summary = verify(capsys, output, "--repository", others)
    assert code == 1
    (compared,) = manifests[0]["components"][0]["models"]
    assert compared["verdict"] == "differs"
    assert compared["recorded"][0]["weights"] != compared["at_hand"]["weights"]
    assert summary["components"] == {"differs": 2}
    model.unlink()
    shutil.rmtree(model.parent)
    assert verify(capsys, output, "--repository", others)[2]["components"] == {"missing": 2}
    assert main(["verify", str(output), "--repository", str(others)]) == 1
    assert (
        "other model  a.mp4: core_object_detections: yolo11n_320: made by sha256:" in capsys.readouterr().out
    )


def test_unknown_files_are_shown(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are wrong only with --strict; a bulk run's own files are known."""
    (output / "notes.txt").write_text("mine")
    (output / "a.mp4" / "old.npz").write_text("left over")
    code, _, summary = verify(capsys, output, "--files-only")
    assert (code, summary["unknown_files"]) == (0, ["a.mp4/old.npz", "notes.txt"])
    assert verify(capsys, output, "--files-only", "--strict")[0] == 1
    (output / "run").mkdir()
    (output / "run" / "run.json").write_text("{}")
    (output / "index.parquet").write_text("")
    assert verify(capsys, output, "--files-only")[2]["unknown_files"] == ["a.mp4/old.npz", "notes.txt"]


def test_manifests_that_cannot_be_used(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A later version's is refused with the reason, and another program's is an unknown file."""
    path = output / "a.mp4" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    (output / "manifest.json").write_text('{"name": "a web app"}')
    code, manifests, summary = verify(capsys, output, "--files-only")
    assert code == 1
    assert [one["folder"] for one in manifests] == ["a.mp4", "sub dir/b.mp4"]
    assert "schema version 2 is not known" in manifests[0]["problems"][0]["detail"]
    assert "manifest.json" in summary["unknown_files"]


def test_one_video_s_folder_is_an_output_too(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its manifest lies in it, not below it."""
    code, manifests, _ = verify(capsys, output / "sub dir" / "b.mp4", "--files-only")
    assert (code, manifests[0]["folder"]) == (0, ".")


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_an_output_without_a_manifest_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """With exit code 2: a wrong path must not look like a sound archive."""
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert main(["verify", str(tmp_path / what)]) == 2
    assert capsys.readouterr().err.startswith("gateway verify: ")


def test_a_repository_that_is_not_there_is_refused(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was asked for by name."""
    assert main(["verify", str(output), "--repository", str(tmp_path / "gone")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_server_that_is_not_a_store_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says which URLs there are."""
    assert main(["verify", "ftp://host/x"]) == 2
    assert "s3://bucket/prefix" in capsys.readouterr().err


def test_the_models_of_a_triton_are_compared(
    output: Path,
    request: pytest.FixtureRequest,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton reports no digests; those of its repository's files count."""
    server = request.getfixturevalue("triton")
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(repository))
    monkeypatch.setenv("GATEWAY_MANIFEST", "")
    code, _, summary = verify(capsys, output, "--triton-url", server.grpc_url)
    assert (code, summary["components"]) == (0, {"same": 2})


def test_a_triton_that_does_not_answer_is_named(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of models that are missing."""
    monkeypatch.setattr("app.commands.verify.at_hand._PATIENCE_S", 0.2)
    assert main(["verify", str(output), "--triton-url", "127.0.0.1:9"]) == 2
    assert "does not answer" in capsys.readouterr().err
