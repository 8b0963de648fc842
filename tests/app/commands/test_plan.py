"""`gateway plan` over a real repository: numbers, forms, exit codes and what people mistype."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.waiting import PATIENCE_S

from app.cli import main
from app.process import gpus
from deploy.local.triton_server import TritonServer
from routing import catalogue as catalogues
from routing.memory import ModelMemory

CATALOGUE = catalogues.load()


def _plan(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["plan", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _document(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    code, out, err = _plan(capsys, *words, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_every_number_is_in_the_json(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are sums of the notes beside the models; the budget is the memory without reserve and margin."""
    found = _document(capsys, "--repository", repository, "--memory", "6GiB")
    assert found["usable_bytes"] == (6 << 30) - (640 << 20) - int(0.1 * (6 << 30))
    assert {row["name"] for row in found["branches"]} == {"yolo11n_320", "yolo11n_640", "midas_256"}
    assert sorted(found["load_models"]) == ["midas_256", "yolo11n_320", "yolo11n_640"]
    rows = {row["name"]: row for row in found["branches"]}
    for row in rows.values():
        parts = ("weights_bytes", "activations_bytes", "workspace_bytes")
        assert row["total_bytes"] == sum(row[part] for part in parts) > 0
    assert found["needed_bytes"] == sum(row["total_bytes"] for row in rows.values())
    assert found["left_bytes"] == found["usable_bytes"] - found["needed_bytes"]
    assert (
        rows["yolo11n_640"]["activations_bytes"]
        > rows["yolo11n_320"]["activations_bytes"]
        >= 3 * 320 * 320 * 4
    )
    assert found["branches"][0]["name"] == "midas_256"  # the only one that is required


def test_the_table_is_for_people(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that the numbers are estimates, and how many branches fit."""
    code, out, err = _plan(capsys, "--repository", repository, "--memory", "6GB", "--margin", "5%")
    assert (code, err) == (0, "")
    assert out.startswith("5.6 GiB of memory, 640 MiB reserved, 286 MiB kept free: ")
    assert "for models (cuda; estimates)" in out
    assert "3 of 3 branches fit: " in out
    assert "of host memory for 4 leases per branch" in out


def test_arguments_for_triton_name_what_fits(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An ensemble brings its parts; what is left out is told beside them."""
    small = ["--repository", repository, "--memory", "700MiB", "--reserve", "690MiB", "--margin", "0"]
    code, out, err = _plan(capsys, *small, "--format", "triton-args")
    assert (code, out) == (0, "--load-model=midas_256\n")
    assert "gateway plan: left out: yolo11n_320: no, " in err
    assert _plan(capsys, *small, "--format", "names")[1] == "midas_256\n"


def test_a_triton_loads_what_the_arguments_name(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real server takes them as they are printed; the parts of an ensemble come with it, and nothing else."""
    words = [
        "--repository",
        repository,
        "--branches",
        "midas_256",
        "--memory",
        "6GiB",
        "--format",
        "triton-args",
    ]
    names = [word.removeprefix("--load-model=") for word in _plan(capsys, *words)[1].split()]
    with TritonServer(repository, tmp_path / "triton.log", names) as server:
        index = httpx2.post(f"{server.http_url}/v2/repository/index", json={}, timeout=PATIENCE_S).json()
    ready = {row["name"] for row in index if row.get("state") == "READY"}
    assert ready == {"midas_256", "midas_256_onnx", "preprocess_midas_256"}


def test_a_required_branch_that_does_not_fit_is_a_failure(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table says what is short; a script sees the exit code."""
    code, out, err = _plan(capsys, "--repository", repository, "--memory", "700MiB")
    assert code == 1
    assert err.startswith("gateway plan: required branches don't fit (midas_256); --branches chooses others")
    assert " short" in out
    assert "0 of 3 branches fit: 0 MiB needed, 0 MiB left" in out


def test_branches_are_chosen_by_patterns(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twins too, which add only the graph that prepares; a branch that isn't built has no estimate."""
    names = "yolo11n_320*,raft_256"
    code, out, _ = _plan(
        capsys, "--repository", repository, "--memory", "6GiB", "--branches", names, "--json"
    )
    rows = {row["name"]: row for row in json.loads(out)["branches"]}
    assert code == 1  # raft_256 is required
    assert (rows["raft_256"]["total_bytes"], rows["raft_256"]["fits"]) == (None, False)
    assert rows["raft_256"]["models_without_estimate"] == ["preprocess_raft_256", "raft_256_onnx"]
    assert rows["yolo11n_320_uint8"]["fits"] is False  # nobody has built its graph
    code, out, _ = _plan(capsys, "--repository", repository, "--memory", "6GiB", "--branches", names)
    assert "no estimate: preprocess_raft_256, raft_256_onnx isn't built" in out


def test_instances_multiply_on_a_gpu(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A processor shares weights between them."""
    where = ["--repository", repository, "--memory", "6GiB", "--branches", "yolo11n_320"]
    one, two = (_document(capsys, *where, "--instances", n)["branches"][0] for n in ("1", "2"))
    assert two["total_bytes"] == 2 * one["total_bytes"]
    cpu = _document(capsys, *where, "--instances", "2", "--device", "cpu")["branches"][0]
    assert cpu["weights_bytes"] == one["weights_bytes"]
    assert cpu["workspace_bytes"] == 0


def test_models_without_a_note_are_estimated_from_their_graphs(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that an older version has built, or others."""
    shutil.copytree(repository / "yolo11n_320", tmp_path / "yolo11n_320")
    where = ["--memory", "6GiB", "--branches", "yolo11n_320", "--repository"]
    noted = _document(capsys, *where, repository)["branches"]
    (tmp_path / "yolo11n_320/1/weights.json").unlink()
    assert _document(capsys, *where, tmp_path)["branches"] == noted
    (tmp_path / "yolo11n_320/1/model.onnx").write_bytes(b"broken")
    code, out, _ = _plan(capsys, *where, tmp_path)
    assert code == 1
    assert "no estimate: yolo11n_320" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "6"], "argument --memory: '6': memory is a number with a unit, such as 6GiB"),
        (["--memory", "6GiB", "--margin", "100"], "a percentage from 0 to below 100"),
        (["--memory", "6GiB", "--margin", "lots"], "a percentage from 0 to below 100"),
        (["--memory", "6GiB", "--instances", "0"], "is less than 1"),
        (
            ["--memory", "6GiB", "--branches", "yolo11n_32"],
            "no branch is called yolo11n_32; did you mean 'yolo11n_320'?",
        ),
        (["--memory", "6GiB", "--branches", ","], "--branches: names no branch"),
    ],
)
def test_what_is_mistyped_is_told(
    words: list[str], said: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line."""
    try:
        code = main(["plan", "--repository", str(repository), *words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err


def test_an_empty_folder_has_nothing_to_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says where it looked and what to do."""
    code, _, err = _plan(capsys, "--memory", "6GiB", "--repository", tmp_path)
    assert code == 2
    assert f"no branch is built in {tmp_path}" in err
    code, _, err = _plan(capsys, "--memory", "6GiB", "--repository", tmp_path / "nowhere")
    assert code == 2
    assert "there is no folder" in err


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `nvidia-smi` that prints a card's row, and that tests may change."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '0, NVIDIA GeForce RTX 2060, 6144, 312, 560.35.03, 7.5'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def test_the_memory_is_the_card_s_unless_it_is_said(
    card: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first GPU that nvidia-smi reports."""
    assert _document(capsys, "--repository", repository)["memory_bytes"] == 6 << 30
    assert gpus.found() == [gpus.Gpu(0, "NVIDIA GeForce RTX 2060", 6 << 30, 312 << 20, "560.35.03", "7.5")]


@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'No devices were found'", "echo '0, A card, [N/A], [N/A], 1, 1'"]
)
def test_a_machine_without_a_card_asks_for_the_memory(
    card: Path, script: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever nvidia-smi has to say; a processor has the machine's."""
    card.write_text(f"#!/bin/sh\n{script}\n")
    code, _, err = _plan(capsys, "--repository", repository)
    assert code == 2
    assert "--memory: say how much the device has, such as 6GiB" in err
    found = _document(capsys, "--repository", repository, "--device", "cpu")
    assert found["memory_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_branches_of_a_gateway_have_the_estimate(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers as the plan's, by branch; null where a model has none."""
    rows = {
        row["name"]: row
        for row in _document(capsys, "--repository", repository, "--memory", "6GiB")["branches"]
    }
    assert main(["branches", "--repository", str(repository), "--json"]) == 0
    families = json.loads(capsys.readouterr().out)["families"]
    found = {row["name"]: row["memory"] for family in families for row in family["branches"]}
    for name, row in rows.items():
        assert found[name]["device"] == "cuda"
        assert found[name]["total_bytes"] == row["total_bytes"]
    assert found["yolo11x_960"] is None
    assert found["midas_256"]["lease_bytes"] == 256 * 256 * 7


def test_a_note_of_another_shape_is_no_estimate(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that was changed by hand isn't trusted when it makes no sense; the graph is asked instead."""
    shutil.copytree(repository / "yolo11n_320", tmp_path / "yolo11n_320")
    note = tmp_path / "yolo11n_320/1/weights.json"
    document = json.loads(note.read_text())
    assert set(document["memory"]) == set(ModelMemory(0, 0, 0, 0).to_json())
    note.write_text(json.dumps({**document, "memory": {**document["memory"], "weights_bytes": "much"}}))
    where = ["--memory", "6GiB", "--branches", "yolo11n_320", "--repository"]
    assert (
        _document(capsys, *where, tmp_path)["branches"] == _document(capsys, *where, repository)["branches"]
    )
