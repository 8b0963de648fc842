"""`gateway bulk report`: one HTML file, complete and harmless."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.bulk_outputs import at, begin, outcome, publish

from app.bulk.outcomes import Outcome
from app.cli import main
from app.videos.stores.folder import FolderStore

EVIL = '<script>alert("1")</script>$\\frac$.mp4'


class _Ids(HTMLParser):
    """Collects tags, ids and links."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href"):
                self.links.append(value or "")


@pytest.fixture
def report(output: Path, tmp_path: Path) -> str:
    """The report of a run with failures and a name that means harm."""
    store = FolderStore(output)
    begin(store, 6, profile=EVIL)
    slow = outcome(output, "a.mp4", 40.0, seconds=400.0)
    failed = Outcome(EVIL, EVIL, "failed", "$invalid_video$", EVIL, 1, finished_at=at(20))
    publish(store, "r2", failed, replace(slow, name="slow.mp4"))
    target = tmp_path / "reports" / "my report.html"
    assert main(["bulk", "report", str(output), "--to", str(target)]) == 0
    return target.read_text(encoding="utf-8")


def test_everything_is_in_it(report: str, output: Path) -> None:
    """Plots, failures with their reasons, slowest videos, and the models with their digests."""
    parser = _Ids()
    parser.feed(report)
    assert parser.tags.count("svg") == 3
    for words in ("Frames per second", "Seconds per video", "Failures by reason", "Slowest videos", "Models"):
        assert f"<h2>{words}</h2>" in report
    assert "slow.mp4" in report
    assert len(re.findall(r"sha256:[0-9a-f]{64}", report)) >= 2
    assert "yolo11n_320" in report


def test_numbers_of_plots_are_plain(report: str) -> None:
    """The axis of durations that differ much is logarithmic, and has no markup of formulas."""
    assert "mathdefault" not in report
    assert ">100<" in report


def test_it_needs_no_network_and_runs_nothing(report: str) -> None:
    """No script, no link to elsewhere; names are text; ids are given once, and links lead to them."""
    parser = _Ids()
    parser.feed(report)
    assert "script" not in parser.tags
    assert len(parser.ids) == len(set(parser.ids))
    assert {link.removeprefix("#") for link in parser.links} <= set(parser.ids)
    assert "&lt;script&gt;" in report
    assert "default-src 'none'" in report


def test_a_run_without_results_has_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is plotted then."""
    begin(FolderStore(tmp_path / "out"), 5)
    monkeypatch.chdir(tmp_path)
    assert main(["bulk", "report", "out"]) == 0
    assert "<svg" not in (tmp_path / "bulk-report.html").read_text()


def test_a_file_that_cannot_be_written_is_refused(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a line that names it."""
    (output / "file").write_text("")
    assert main(["bulk", "report", str(output), "--to", str(output / "file" / "x.html")]) == 2
    assert capsys.readouterr().err.startswith("gateway bulk report: ")
    (output / "folder").mkdir()
    assert main(["bulk", "report", str(output), "--to", str(output / "folder")]) == 2
    assert capsys.readouterr().err == f"gateway bulk report: {output}/folder: Is a directory\n"
