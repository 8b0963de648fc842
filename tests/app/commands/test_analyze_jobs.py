"""`gateway analyze --jobs`: several videos at once give what they give one after another."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import videos
from support.analysis import EVERYTHING, numbers, patches, same_numbers
from support.analyze_command import BOXES, ENVIRONMENT, options, run, run_interrupted
from support.waiting import PATIENCE_S

from app.cli import main
from app.commands import analysis_backend
from app.commands.analysis_backend import sharing, videos_at_once
from app.commands.video_list import Entry
from app.commands.video_threads import Stop, run_in_order
from app.media.video.writer import VideoWriter
from app.settings import Settings
from app.videos.analysis import Cancelled, Input, VideoAnalysis
from app.videos.run_state import Progress


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what every run here has, in this process and in those that it starts."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def boxes(repository: Path, tmp_path: Path) -> list[str]:
    """The options of a run over boxes alone."""
    return options(repository, tmp_path, BOXES)


@contextlib.contextmanager
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let an analysis begin only when another one does, too."""
    both, begun = threading.Barrier(2, timeout=PATIENCE_S), VideoAnalysis.run

    def begin(analysis: VideoAnalysis, *arguments: Any, **named: Any) -> dict[str, Any]:
        both.wait()
        return begun(analysis, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(VideoAnalysis, "run", begin)
        yield


def a_mixture(folder: Path) -> Path:
    """A folder of videos of several lengths and kinds; one breaks off, and one is no video."""
    folder.mkdir()
    for number, frames in enumerate((9, 30, 5)):
        patches(folder / f"{number}.mp4", frames)
    (folder / "3.mp4").write_bytes(b"text")
    videos.cut(patches(folder / "whole.mkv", 40), 0.5).replace(folder / "4.mkv")
    return folder


def test_the_same_as_one_after_another(
    all_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal lines in the same order, exit code and arrays to the bit, over one engine; faults stay with their video."""
    engines: list[Any] = []
    create = analysis_backend.create_engine

    def counted(*arguments: Any) -> Any:
        engines.append(create(*arguments))
        return engines[-1]

    monkeypatch.setattr(analysis_backend, "create_engine", counted)
    folder, given = a_mixture(tmp_path / "in"), options(all_families, tmp_path, EVERYTHING)
    whole = ("--video-path", folder, *given)
    with two_at_once(monkeypatch):
        code, at_once, _ = run(*whole, "--output", tmp_path / "at_once", "--jobs", "3")
    assert len(engines) == 1
    code_before, one_by_one, _ = run(*whole, "--output", tmp_path / "one_by_one", "--jobs", "1")
    expected = ["ok", "ok", "ok", "failed", "partial", "ok"]
    assert [row["status"] for row in at_once] == [row["status"] for row in one_by_one] == expected
    assert [(row["video"], row["frames"], row["detail"]) for row in at_once] == [
        (row["video"], row["frames"], row["detail"]) for row in one_by_one
    ]
    assert code == code_before == 1
    for name in ("0.mp4", "1.mp4", "2.mp4", "4.mkv", "whole.mkv"):
        one, other = tmp_path / "at_once" / name, tmp_path / "one_by_one" / name
        assert numbers(one)
        assert same_numbers(one, other)


def test_a_decoder_that_is_killed_ends_its_video_only(
    boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That video is partial, and the one beside it is whole."""
    killed, other = patches(tmp_path / "killed.mp4", 100), patches(tmp_path / "other.mp4", 30)
    begin = VideoAnalysis.run

    def kill(analysis: Any, video: Input, *arguments: Any, **named: Any) -> dict[str, Any]:
        def report(_: Progress) -> None:
            analysis._running._source._child.kill()

        return begin(analysis, video, *((report,) if video.name == "killed.mp4" else arguments), **named)

    monkeypatch.setattr(VideoAnalysis, "run", kill)
    given = ("--video-path", killed, other, "--output", tmp_path / "out", *boxes)
    with two_at_once(monkeypatch):
        code, rows, _ = run(*given, "--jobs", "2")
    assert (code, [row["status"] for row in rows]) == (3, ["partial", "ok"])
    assert "SIGKILL" in rows[0]["detail"]
    assert (0 < rows[0]["frames"] < 100, rows[1]["frames"]) == (True, 30)


def test_a_signal_stops_all(boxes: list[str], tmp_path: Path) -> None:
    """Those that run leave checkpoints, the one that waits is not begun; run again, all are as undisturbed."""
    folder, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    patches(folder / "a.mp4", 60)
    for name in ("b.mp4", "c.mp4"):
        shutil.copy(folder / "a.mp4", folder / name)
    given = ("--video-path", folder, "--jobs", "2", *boxes)
    code, rows = run_interrupted(2, signal.SIGTERM, *given, "--output", out)
    assert (code, [row["status"] for row in rows]) == (130, ["interrupted"] * 2)
    assert all(list((out / name / ".partial").glob("chunk-*.npz")) for name in ("a.mp4", "b.mp4"))
    assert not (out / "c.mp4").exists()
    assert run(*given, "--output", out)[0] == run(*given, "--output", whole)[0] == 0
    for name, resumed in (("a.mp4", True), ("b.mp4", True), ("c.mp4", False)):
        manifest = json.loads((out / name / "manifest.json").read_text())
        assert (manifest["frames"]["resumed"] > 0) == resumed
        assert same_numbers(out / name, whole / name)


def test_a_signal_ends_a_rendering(boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artefacts stay, no half of a film does, and the next run makes it; the handlers are as before."""
    told, request, write = threading.Event(), Stop.request, VideoWriter.write

    def request_and_tell(stop: Stop) -> None:
        request(stop)
        told.set()

    def write_and_wait(writer: VideoWriter, *frame: Any) -> None:
        write(writer, *frame)
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(PATIENCE_S)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    given = (
        "--video-path",
        patches(tmp_path / "v.mp4", 12),
        "--output",
        tmp_path / "out",
        "--render",
        *boxes,
    )
    with monkeypatch.context() as patched:
        patched.setattr(Stop, "request", request_and_tell)
        patched.setattr(VideoWriter, "write", write_and_wait)
        code, (row,), _ = run(*given)
    assert (code, row["status"]) == (130, "interrupted")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    left = {path.name for path in (tmp_path / "out" / "v.mp4").iterdir()}
    assert left == {"core_object_detections", "manifest.json"}
    code, (row,), _ = run(*given)
    assert (code, row["status"]) == (0, "ok")
    assert "made annotated.mp4" in row["detail"]


def test_one_video_twice_is_done_once(boxes: list[str], tmp_path: Path) -> None:
    """The second waits for the first, however many run at once, and is skipped then."""
    video = patches(tmp_path / "v.mp4", 10)
    given = ("--video-path", video, video, tmp_path, "--output", tmp_path / "out", *boxes)
    code, rows, _ = run(*given, "--jobs", "4")
    assert (code, [row["status"] for row in rows]) == (0, ["ok", "skipped", "skipped"])


def test_settings_that_can_t_be_carried_out_end_the_run(
    boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exit code of a wrong command, once, and without a line for a video."""

    def unusable(*_: object) -> None:
        raise RuntimeError("this can't be carried out")

    monkeypatch.setattr(analysis_backend, "create_engine", unusable)
    names = [patches(tmp_path / f"{number}.mp4", 4) for number in range(3)]
    code, rows, said = run("--video-path", *names, "--output", tmp_path / "out", *boxes, "--jobs", "2")
    assert (code, rows, said.splitlines()) == (2, [], ["gateway analyze: this can't be carried out"])


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_stay_readable_on_a_terminal(
    boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each video has a bar with its name; no bar is drawn into the lines."""
    names = [patches(tmp_path / f"{number}.mp4", 12) for number in range(4)]
    out, err = io.StringIO(), Terminal()
    arguments = ["--video-path", *map(str, names), "--output", str(tmp_path / "out"), "--jobs", "2", *boxes]
    with two_at_once(monkeypatch), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["analyze", *arguments])
    assert code == 0
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["ok"] * 4
    assert all(name.name in err.getvalue() for name in names)


@pytest.mark.parametrize(
    ("asked", "cores", "leases", "count", "expected"),
    [
        (None, 2, 4, 9, 1),
        (None, 1, 4, 9, 1),
        (None, 8, 4, 9, 4),
        (None, 64, 4, 9, 4),
        (None, 64, 16, 9, 9),
        (3, 1, 1, 9, 3),
        (8, 64, 4, 2, 2),
        (None, 8, 4, 0, 1),
    ],
)
def test_how_many_run_at_once(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, cores: int, leases: int, count: int, expected: int
) -> None:
    """By default a video per two cores, no more than leases, and never more than there are."""
    monkeypatch.setattr(analysis_backend, "available_cores", lambda: cores)
    entries = [Entry(Path(f"{number}.mp4"), f"{number}.mp4") for number in range(count)]
    assert videos_at_once(asked, Settings(leases=leases), entries) == expected


def test_no_video_fails_for_the_others_sake() -> None:
    """All frames in flight may wait for a lease, and each has as much more time as there are videos."""
    settings = Settings(max_waiting=8, video_window=6, video_frame_timeout_s=10)
    shared, options = sharing(settings, 5)
    assert (shared.max_waiting, options.frame_s, options.window) == (30, 50, 6)
    assert sharing(settings, 1)[0].max_waiting == 8


def test_threads_tell_in_order_and_stop_at_an_error() -> None:
    """Results come in the order of the items, those of one key one after another; an error ends what runs."""
    told: list[int] = []
    running: list[int] = []
    later = threading.Event()

    def run_one(item: int) -> int:
        if item == 0:
            later.wait(PATIENCE_S)  # the last one is over before the first one
        if item == 3:
            later.set()
        if item % 2:
            running.append(item)
            assert running == [item]
            running.remove(item)
        return item

    run_in_order(range(4), lambda item: str(item % 2), run_one, told.append, 3, Stop())
    assert told == [0, 1, 2, 3]
    stop, begun = Stop(), threading.Event()

    def until_stopped(item: int) -> int:
        if item == 0:
            assert begun.wait(PATIENCE_S)
            raise OSError("full")
        ended = threading.Event()
        with stop.cancelling(ended.set):
            begun.set()
            assert ended.wait(PATIENCE_S)
        raise Cancelled

    with pytest.raises(OSError, match="full"):
        run_in_order([0, 1, 2, 3], str, until_stopped, told.append, 2, stop)
    assert told == [0, 1, 2, 3]
    with pytest.raises(Cancelled), stop.cancelling(ended_already):
        raise AssertionError("nothing begins after a stop")


def ended_already() -> None:
    """Cancel nothing."""
