"""The worked examples of docs/own-models.md, carried out as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.models.own import detector, three_classes
from support.paths import ROOT
from support.servers.gateway import client

from app.cli import main
from routing import overlay

DOCUMENT = (ROOT / "docs" / "own-models.md").read_text(encoding="utf-8")
WORKED = DOCUMENT.partition("## Worked examples")[2].partition("\n## ")[0]
EXAMPLES = re.split(r"^### \d\. ", WORKED, flags=re.MULTILINE)[1:]


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the examples speak of."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=lambda *_: ["benchmarks", "dashboards"])
    (tmp_path / "catalogue").mkdir()
    three_classes(tmp_path / "best.pt")
    theirs = tmp_path / "triton/models/ppe-detector/1"
    theirs.mkdir(parents=True)
    detector(theirs / "model.onnx", 320)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _posted(http: TestClient, line: str) -> dict[str, Any]:
    """The answer to a line of curl."""
    words = shlex.split(line)
    data = Path(words[words.index("--data-binary") + 1].removeprefix("@")).read_bytes()
    response = http.post(words[-1].removeprefix("http://127.0.0.1:8080"), content=data)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def test_the_worked_examples_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file of the catalogue is read, every command ends well, every request is answered by its variant."""
    served = []
    printed = ""
    for example in EXAMPLES:
        for text in blocks(example, "toml"):
            (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)
        lines = [line for text in blocks(example, "sh") for line in text.splitlines()]
        for line in (line for line in lines if line.startswith("gateway ")):
            assert main(shlex.split(line)[1:]) == 0, line
        printed += capsys.readouterr().out
        settings: dict[str, Any] = {"models": "helmet_*,ppe-detector", "variant": None}
        with client(Path("triton/models"), **settings) as http:
            posts = [_posted(http, line) for line in lines if line.startswith("curl ")]
        served.append([answer["branch"]["name"] for answer in posts])
    assert served == [["helmet_320", "helmet_64"], ["helmet_320"], ["ppe-detector"]]
    assert "1920x1080   yolo11n_640" in printed


def test_every_file_that_is_shown_is_a_catalogue(tmp_path: Path) -> None:
    """The reference's examples, too."""
    shown = blocks(DOCUMENT, "toml")
    assert len(shown) >= 5
    variants = {"helmet": '["a"]', "vit_l_14": None}
    for number, text in enumerate(shown):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "shown.toml").write_text(text)
        if "[[variant]]" not in text and "helmet" in text:
            families = {"helmet": ("detect",), "vit_l_14": ("clip_image", "clip_text")}
            (folder / "named.toml").write_text(
                "".join(
                    f'[[variant]]\nfamily = "{family}"\nname = "{name}"\n'
                    + (f"labels = {variants[name]}\n" if variants[name] else "dimension = 768\n")
                    + f'[[variant.branch]]\nname = "{family}_{name}"\n'
                    + ("" if family == "clip_text" else "size = 224\n")
                    for name, of in families.items()
                    for family in of
                )
            )
        assert overlay.load(folder).branches
