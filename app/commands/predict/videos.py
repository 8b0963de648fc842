"""A video through `gateway detect`: a line of the answer a frame, and the annotated copy beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from app.commands.predict.answers import Work
from app.commands.predict.errors import InputFailed, NobodyAnswers
from app.commands.predict.families.detect import counted
from app.commands.predict.inputs import Input
from app.errors import DeadlineExceeded, TritonUnavailable

# A frame's object, its number and time, and the cells of its row.
OnFrame = Callable[[Mapping[str, Any], str, str], None]


@dataclass(slots=True)
class Summary:
    """Result of a video: frames that were answered and failed, how long it took in ms, and what was saved."""

    frames: int = 0
    errors: int = 0
    ms: float = 0.0
    branch: str = ""
    size: str = ""
    saved: Sequence[str] = ()
    document: dict[str, Any] = field(default_factory=dict)


def detect(work: Work, entry: Input, video: BinaryIO, nbytes: int, on_frame: OnFrame) -> Summary:
    """Post a video; `on_frame` is called with each frame as it comes.

    Raises:
        InputFailed: it can't be read, or ended early; what came before was delivered.
        RunFailed: see `Asking.ask`.
        OSError: a file can't be written.
    """
    started, summary = time.perf_counter(), Summary()
    with ExitStack() as held:
        keep, draw = _kept(work, entry, video, held)
        fault: Mapping[str, Any] | None = None
        for line in _lines(work, video, nbytes):
            document = {"input": entry.name, **line}
            keep(document)
            if "summary" in line:
                summary.document = line["summary"]
            elif "frame" not in line:
                fault = line["error"]
            else:
                _count(summary, line)
                draw(line)
                on_frame(document, *_cells(line))
        summary.ms = (time.perf_counter() - started) * 1000
    if work.saver is not None:
        summary.saved = [
            str(path) for kind in ("mp4", "ndjson") if (path := work.saver.path(entry, kind)).exists()
        ]
    if fault is not None:
        raise InputFailed(fault["code"], fault["detail"], fault.get("what_to_do", ""))
    return summary


def _kept(
    work: Work, entry: Input, video: BinaryIO, held: ExitStack
) -> tuple[Callable[[Mapping[str, Any]], object], Callable[[Mapping[str, Any]], None]]:
    """Open the outputs for lines and frames, until `held` is over."""
    if work.saver is None:
        return (lambda _: None), (lambda _: None)
    from app.commands.predict.drawing import film  # noqa: PLC0415  # FFmpeg, for those who save
    from app.media.video.reader import Sampling  # noqa: PLC0415  # ditto

    every, fps = work.query.get("every"), work.query.get("fps")
    sampling = Sampling(fps=float(fps[0]) if fps else None, every=int(every[0]) if every else None)
    lines = held.enter_context(
        held.enter_context(work.saver.fresh(entry, "ndjson")).open("w", encoding="utf-8")
    )
    annotated = held.enter_context(film(video, held.enter_context(work.saver.fresh(entry, "mp4")), sampling))

    def draw(line: Mapping[str, Any]) -> None:
        if annotated is not None and "detections" in line:
            annotated.add(line["frame"]["index"], line["detections"])

    return (lambda document: lines.write(json.dumps(document) + "\n")), draw


def _lines(work: Work, video: BinaryIO, nbytes: int) -> Iterator[dict[str, Any]]:
    asking = work.asking
    try:
        found = asking.lines(work.path(), video, nbytes)
        complete = False
        for line in found:
            said = json.loads(line)
            complete = complete or "summary" in said
            yield said
    except DeadlineExceeded:
        raise InputFailed("deadline_exceeded", f"no frame within {asking.timeout_s:g} s") from None
    except TritonUnavailable as error:
        raise NobodyAnswers(f"nobody answers there: {error.detail}") from error
    except ValueError as error:
        raise InputFailed("broken_off", "a line of the answer is no JSON: did it break off?") from error
    if not complete:
        raise InputFailed("broken_off", "the answer ended before its summary")


def _count(summary: Summary, line: Mapping[str, Any]) -> None:
    summary.frames += 1
    if "error" in line:
        summary.errors += 1
        return
    if "branch" in line:
        summary.branch = line["branch"]["name"]
    summary.size = f"{line['image']['width']}x{line['image']['height']}"


def _cells(line: Mapping[str, Any]) -> tuple[str, str]:
    frame = line["frame"]
    if "error" in line:
        return f"#{frame['index']} {frame['time_s']:.2f} s", f"failed: {line['error']['detail']}"
    return f"#{frame['index']} {frame['time_s']:.2f} s", counted(line["detections"])
