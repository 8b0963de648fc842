"""`gateway detect`, `depth`, `flow`, …: the run over all inputs, and its exit code."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from app.commands.predict import inputs
from app.commands.predict.answers import Answer, Work
from app.commands.predict.asking import Asking
from app.commands.predict.errors import CommandFailed, InputFailed, NobodyAnswers, NoInput, RunFailed
from app.commands.predict.families.base import FamilyCommand
from app.commands.predict.gateway import Gateway, HttpGateway
from app.commands.predict.inputs import Input
from app.commands.predict.printing import Printer, plain
from app.commands.predict.saving import Saver
from app.commands.smoke.http import key_headers
from app.errors import GatewayError
from app.settings import caller_key

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_JOBS_BY_URL, _JOBS_HERE = 4, 2
_KEYS = "GATEWAY_KEY holds the key of a gateway, --api-key-file names a file with it"
_FRAME = " #10000 1000.00 s"  # room for it beside a video's name


class Item(NamedTuple):
    """Subject of one row: an input, and the second picture of a pair."""

    entry: Input
    second: Input | None = None


def predict(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code. Ctrl-C ends the process."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that can't show a name shows its escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    name = parsed.predict.name
    saver = None if parsed.save is None else Saver(parsed.save, name, overwrite=parsed.overwrite)
    try:
        with _told_to_end(saver):
            return _predict(parsed, saver)
    except (CommandFailed, RuntimeError) as error:
        print(f"gateway {name}: {plain(str(error))}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        _leave(saver, INTERRUPTED)


@contextlib.contextmanager
def _told_to_end(saver: Saver | None) -> Iterator[None]:
    """SIGTERM ends the process at once, as Ctrl-C does; unfinished files are removed."""
    before = signal.signal(signal.SIGTERM, lambda number, _: _leave(saver, 128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(saver: Saver | None, code: int) -> NoReturn:
    """End here: a model that runs can't be interrupted, and Python would wait for its thread."""
    if saver is not None:
        saver.abandon()
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # also in the middle of a write
        sys.stdout.flush()
    os._exit(code)


def _predict(parsed: argparse.Namespace, saver: Saver | None) -> int:
    command: FamilyCommand = parsed.predict
    items = _items(parsed, command)
    if saver is not None:
        saver.check([item.entry for item in items], command.kinds)
    names = [_name(item) + _FRAME * item.entry.is_video for item in items]
    printer = Printer(names, command.heading, len(items), as_json=parsed.json)
    with contextlib.closing(printer), contextlib.closing(_gateway(parsed, items, printer)) as gateway:
        overridden = bool(parsed.branch or parsed.model_version or getattr(parsed, "variant", None))
        asking = Asking(
            gateway, parsed.timeout, parsed.wait, overridden, lambda text: printer.note(text, once=True)
        )
        work = Work(command, asking, command.query(parsed), saver)
        jobs = parsed.jobs or (_JOBS_BY_URL if parsed.url else _JOBS_HERE)
        run = Run(work, printer, _sampling(parsed))
        try:
            return run.all(items, jobs)
        # Before the gateway is closed, which waits for what runs; and frames that run must not meet Python's end.
        except KeyboardInterrupt:
            _leave(saver, INTERRUPTED)
        except BrokenPipeError:  # `| head`
            _leave(saver, 128 + signal.SIGPIPE)


def _items(parsed: argparse.Namespace, command: FamilyCommand) -> list[Item]:
    texts = inputs.texts(getattr(parsed, "text", ()))
    if not parsed.files and texts:
        return [Item(entry) for entry in texts]
    if command.text is not None and not parsed.files:
        raise NoInput("name at least one picture, or a text with --text")
    found = inputs.found(parsed.files, videos=command.video is not None)
    if command.pair is not None:
        return [Item(*pair) for pair in inputs.pairs(found, consecutive=parsed.consecutive)]
    return [Item(entry) for entry in (*texts, *found)]


def _name(item: Item) -> str:
    return item.entry.name if item.second is None else f"{item.entry.name} {item.second.name}"


def _inputs(item: Item) -> Any:
    """The names as JSON has them: one, or those of a pair."""
    return item.entry.name if item.second is None else [item.entry.name, item.second.name]


def _sampling(parsed: argparse.Namespace) -> dict[str, Sequence[str]]:
    """Parameters that only a video may have."""
    names = ("every", "fps", "provenance")
    return {name: [str(value)] for name in names if (value := getattr(parsed, name, None)) is not None}


def _gateway(parsed: argparse.Namespace, items: Sequence[Item], printer: Printer) -> Gateway:
    if parsed.url is None:
        from app.commands.predict.here import embedded  # noqa: PLC0415  # the service, which --url doesn't need

        if parsed.cacert or parsed.api_key_file:
            raise RunFailed("--cacert and --api-key-file go with --url")
        entries = [entry for item in items for entry in item if entry is not None]
        return embedded(parsed, entries, printer.note)
    return by_url(parsed)


def by_url(parsed: argparse.Namespace) -> HttpGateway:
    """The gateway that the command line names, with its key.

    Raises:
        RunFailed: the address or a file can't be used.
    """
    if "://" not in parsed.url:
        raise RunFailed(f"--url: {parsed.url} isn't an address; did you mean http://{parsed.url}?")
    if "@" in parsed.url.partition("://")[2].partition("/")[0]:
        raise RunFailed(f"--url: an address has no user and password; {_KEYS}")
    try:
        return HttpGateway(parsed.url, parsed.timeout, key_of(parsed), parsed.cacert)
    except ValueError as error:
        raise RunFailed(f"--url: {error}") from error
    except OSError as error:
        raise RunFailed(f"--cacert: {parsed.cacert}: {error.strerror or error}") from error


def key_of(parsed: argparse.Namespace) -> dict[str, str]:
    try:
        headers = key_headers(parsed.api_key_file)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise RunFailed(f"--api-key-file: {parsed.api_key_file}: {said}") from error
    key = headers.get("X-API-Key") or parsed.key or caller_key()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise RunFailed("the API key contains characters that keys never have")  # it is never shown
    return {"X-API-Key": key}


class Run:
    """One run over its inputs: some are under way at once, and their rows come in order.

    Args:
        work: what is done with each.
        printer: where rows go.
        sampling: the query parameters of videos.
    """

    def __init__(self, work: Work, printer: Printer, sampling: dict[str, Sequence[str]]) -> None:
        self._work = work
        self._printer = printer
        self._sampling = sampling
        self._answered = self._failed = self._left = 0
        self._started = time.perf_counter()
        self._texts: list[tuple[str, Answer]] = []

    def all(self, items: Sequence[Item], jobs: int) -> int:
        """Answer every item; returns the exit code.

        Raises:
            RunFailed: no input could have an answer.
        """
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="input")
        left = collections.deque(items)
        try:
            self._loop(left, pool, jobs)
        except NobodyAnswers as error:
            if not self._answered:
                raise
            self._left = len(items) - self._answered - self._failed
            self._printer.note(str(error))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        self._sum_up()
        return FAILED if self._failed or self._left else OK

    def _loop(self, left: collections.deque[Item], pool: ThreadPoolExecutor, jobs: int) -> None:
        """Queue twice as many inputs as run at once, so that no worker idles while rows are printed.

        The first input runs alone, so that a wrong address, key or option fails after one request.
        """
        running: collections.deque[tuple[Item, Future[Answer | Video]]] = collections.deque()
        while left or running:
            most = 2 * jobs if self._answered or self._failed else 1
            while left and len(running) < most:
                item = left.popleft()
                running.append((item, pool.submit(self._one, item)))
            item, future = running.popleft()
            try:
                self._finish(item, future.result)
            except BaseException:
                for _, other in running:
                    other.cancel()
                raise

    def _one(self, item: Item) -> Answer | Video:
        entry, work, command = item.entry, self._work, self._work.command
        for one in (entry, item.second):
            if one is not None and one.fault is not None:
                raise InputFailed("unreadable", one.fault)
        if entry.text is not None and command.text is not None:
            return command.text(work, entry)
        content = inputs.read(entry)
        if content.video is not None:
            if command.video is not None:
                return Video(content)
            content.video.close()
            raise InputFailed("video", "it is a video", f"gateway {command.name} reads pictures.")
        if item.second is None or command.pair is None:
            return work.picture(entry, content.data)
        return command.pair(work, entry, item.second, content.data, inputs.read(item.second).data)

    def _finish(self, item: Item, result: Callable[[], Answer | Video]) -> None:
        """Print what became of an item."""
        name = _name(item)
        try:
            with _one_line():
                found = result()
                if isinstance(found, Video):
                    self._video(item.entry, found)
                else:
                    self._answer(item, name, found)
        except InputFailed as failed:
            self._failed += 1
            self._printer.row(name, "", "", None, failed.line())
            self._printer.document({"input": _inputs(item), "error": failed.document()})
        self._printer.done()

    def _answer(self, item: Item, name: str, answer: Answer) -> None:
        result = answer.result
        if item.entry.text is not None:
            self._texts.append((item.entry.name, answer))
        elif answer.vector is not None and self._texts:
            result += self._nearest(answer)
        self._printer.row(name, answer.size, answer.branch, answer.ms, result)
        self._printer.document(answer.document)
        for warning in answer.warnings:
            self._printer.note(warning, once=True)
        self._answered += 1

    def _nearest(self, answer: Answer) -> str:
        """The text that is most like a picture, by the cosine of their embeddings."""
        import numpy as np  # noqa: PLC0415  # loaded already

        def cosine(text: Answer) -> float:
            one, other = answer.vector, text.vector
            assert one is not None  # noqa: S101  # see the caller
            assert other is not None  # noqa: S101  # texts have one
            return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))

        name, best = max(((name, cosine(text)) for name, text in self._texts), key=lambda pair: pair[1])
        return f"; nearest text: {name} (cosine {best:.3f})"

    def _video(self, entry: Input, video: Video) -> None:
        command = self._work.command
        assert command.video is not None  # noqa: S101  # see `_one`
        work = Work(command, self._work.asking, {**self._work.query, **self._sampling}, self._work.saver)
        name = entry.name

        def on_frame(document: object, frame: str, said: str) -> None:
            assert isinstance(document, dict)  # noqa: S101  # of a line
            self._printer.row(f"{name} {frame}", *_place(document), None, said)
            self._printer.document(document)
            for warning in document.get("warnings", ()):
                self._printer.note(warning, once=True)

        with video.content.video or contextlib.nullcontext() as file:
            assert file is not None  # noqa: S101  # it is a video
            summary = command.video(work, entry, file, video.content.size, on_frame)
        self._printer.document({"input": name, "saved": list(summary.saved), "summary": summary.document})
        failed = f", {summary.errors} failed" if summary.errors else ""
        said = f"{summary.frames} frames{failed}"
        self._printer.row(name, summary.size, summary.branch, summary.ms, said)
        if summary.errors:
            self._failed += 1
        else:
            self._answered += 1

    def _sum_up(self) -> None:
        total = self._answered + self._failed + self._left
        seconds = time.perf_counter() - self._started
        parts = [f"{self._answered} of {total} answered in {seconds:.1f} s"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{self._left} not tried"] if self._left else []
        if self._work.saver is not None:
            parts.append(f"saved in {self._work.saver.folder}")
        self._printer.note(", ".join(parts))


class Video(NamedTuple):
    """A video, which is sent when it is its turn: its frames are printed as they come."""

    content: inputs.Content


def _place(document: dict[str, object]) -> tuple[str, str]:
    image, branch = document.get("image"), document.get("branch")
    size = f"{image['width']}x{image['height']}" if isinstance(image, dict) else ""
    return size, str(branch["name"]) if isinstance(branch, dict) else ""


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn a file error of one input into that input's failure."""
    try:
        yield
    except GatewayError as error:
        raise InputFailed(error.code, error.detail, error.hint) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        path = Path(str(error.filename)).name if error.filename else ""
        said = error.strerror or "it can't be read or written"
        raise InputFailed("unreadable", f"{path}: {said}" if path else said) from error
