"""Options of `gateway bulk --on ray`, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import run_command

from app.commands.bulk.executors import on_nodes
from app.settings import Settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--address", "auto"), "--address and --node-triton go with --on ray"),
        (("--node-triton",), "--address and --node-triton go with --on ray"),
        (("--on", "ray", "--address", "ray://head:10001"), "Ray Client isn't supported"),
        (("--on", "ray", "--address", "127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1"),
        (("--on", "ray", "--node-triton", "--address", "local"), "give its --address"),
    ],
)
def test_options_that_do_not_fit_are_told(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line says which, and nothing is started or written."""
    (tmp_path / "a.mp4").touch()
    arguments = ("bulk", str(tmp_path), "--profile", "p.yaml", "--output", str(tmp_path / "out"))
    code, out, err = run_command(capsys, *arguments, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_workers_on_nodes_find_the_models_from_every_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Paths are absolute, and a worker has as many threads as it reserves CPUs, unless a setting says otherwise."""
    monkeypatch.chdir(tmp_path)
    settings = on_nodes(Settings(repository=Path("models")), 3, node_triton=False)
    assert (settings.repository, settings.embedded_threads) == (tmp_path / "models", 3)
    assert settings.own_catalogue is None
    (tmp_path / "catalogue").mkdir()
    assert on_nodes(Settings(), 3, node_triton=False).own_catalogue == tmp_path / "catalogue"
    assert on_nodes(Settings(embedded_threads=1), 3, node_triton=False).embedded_threads == 1


def test_a_node_s_triton_needs_the_engine_triton() -> None:
    """A run on the embedded engine would reserve a Triton for nothing."""
    with pytest.raises(RuntimeError, match="--triton-url"):
        on_nodes(Settings(engine="embedded"), 2, node_triton=True)
    assert on_nodes(Settings(engine="triton"), 2, node_triton=True).engine == "triton"
