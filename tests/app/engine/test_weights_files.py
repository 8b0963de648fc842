"""Files of served models: what is believed, what is hashed, and what a file that hangs costs."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, eventually

from app.engine import weights_files
from app.engine.base import Weights
from app.engine.triton.served_weights import ServedWeights
from app.engine.weights import WeightsBook, files_digest
from app.engine.weights_files import Facts, WeightsFiles

Start = Callable[..., WeightsFiles]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes readers of `tmp_path` that look all the time; closed at the end."""
    made: list[WeightsFiles] = []

    def build(manifest: Path | None = None, **options: float) -> WeightsFiles:
        book = WeightsBook(tmp_path, manifest)
        made.append(WeightsFiles(book, lambda: None, **{"interval_s": 0.01, **options}))  # type: ignore[arg-type]  # numbers
        return made[-1]

    yield build
    for reader in made:
        reader.close()


def graph(root: Path, content: bytes, model: str = "m") -> str:
    """Put a model file there by one rename; its digest."""
    folder = root / model / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".new").write_bytes(content)
    (folder / ".new").rename(folder / "model.onnx")
    return files_digest(folder)


def note(root: Path, digest: str, model: str = "m") -> None:
    """Write weights.json, after all files that are there."""
    path = root / model / "1" / "weights.json"
    path.write_text(json.dumps({"digest": digest, "weights": "random"}))
    ahead = time.time_ns() + 1000
    os.utime(path, ns=(ahead, ahead))


def known(reader: WeightsFiles, model: str = "m") -> str:
    """The digest after a look that began now, and after what is to be hashed."""
    since = time.monotonic()
    eventually(lambda: reader.of(model, "1", since) is not None)
    reader.wait(PATIENCE_S)
    eventually(lambda: not reader._to_hash and reader._hands[1].at is None)
    since = time.monotonic()
    eventually(lambda: reader.of(model, "1", since) is not None)
    facts = reader.of(model, "1")
    assert facts is not None
    return facts.weights.digest


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose files are hashed from now on."""
    seen: list[Path] = []

    def watched(folder: Path, beat: Callable[[], None]) -> str:
        seen.append(folder)
        return files_digest(folder, beat)

    monkeypatch.setattr(weights_files, "files_digest", watched)
    return seen


def test_a_note_that_was_written_last_is_believed(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No gigabytes are read for what the exporter has just described."""
    seen = hashed(monkeypatch)
    digest = graph(tmp_path, b"graph")
    note(tmp_path, digest)
    assert known(start()) == digest
    assert seen == []


def test_a_file_that_is_newer_than_its_note_is_hashed_once(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes under a new stamp keep their digest; the next looks read nothing."""
    seen = hashed(monkeypatch)
    digest = graph(tmp_path, b"graph")
    note(tmp_path, digest)
    os.utime(tmp_path / "m" / "1" / "weights.json", ns=(1, 1))
    reader = start()
    assert known(reader) == digest
    assert known(reader) == digest
    assert seen == [tmp_path / "m" / "1"]


@pytest.mark.parametrize("late", ["untouched", "touched", "written again", "older file"])
def test_an_old_note_beside_a_new_file_says_nothing(tmp_path: Path, start: Start, late: str) -> None:
    """The digest of what lay there before is never said of the new file, however new the note looks."""
    old = graph(tmp_path, b"graph")
    note(tmp_path, old)
    reader = start()
    assert known(reader) == old
    graph(tmp_path, b"other graph")
    path = tmp_path / "m" / "1" / "weights.json"
    if late == "touched":
        path.touch()
    elif late == "written again":
        note(tmp_path, old)
    elif late == "older file":
        os.utime(path.with_name("model.onnx"), ns=(1, 1))
    assert known(reader) == "unknown"


def test_a_new_note_beside_an_old_file_says_nothing(tmp_path: Path, start: Start) -> None:
    """The note came first; once the file follows, its digest is known."""
    note_first = graph(tmp_path, b"other graph")
    old = graph(tmp_path, b"graph")
    note(tmp_path, old)
    reader = start()
    assert known(reader) == old
    note(tmp_path, note_first)
    assert known(reader) == "unknown"
    graph(tmp_path, b"other graph")
    assert known(reader) == note_first


def test_external_data_counts(tmp_path: Path, start: Start) -> None:
    """Another file of weights beside the graph is another model."""
    folder = tmp_path / "m" / "1"
    graph(tmp_path, b"graph")
    (folder / "data.bin").write_bytes(b"weights")
    digest = files_digest(folder)
    note(tmp_path, digest)
    reader = start()
    assert known(reader) == digest
    (folder / "data.bin").write_bytes(b"other")
    assert known(reader) == "unknown"


def test_the_manifest_is_compared_with_files_that_can_be_seen(tmp_path: Path, start: Start) -> None:
    """The manifest says nothing about other bytes, and counts if there are no files."""
    digest = graph(tmp_path, b"graph")
    manifest = tmp_path / "manifest.json"
    rows = {"m": {"digest": digest}, "far": {"digest": "sha256:bb"}}
    manifest.write_text(json.dumps({"models": rows}))
    reader = start(manifest)
    assert (known(reader), known(reader, "far")) == (digest, "sha256:bb")
    graph(tmp_path, b"other graph")
    assert known(reader) == "unknown"


def test_a_file_that_hangs_costs_only_its_own_model(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is dropped after the limit, asking never waits, others are read on; it is back when the file is."""
    digests = {name: graph(tmp_path, name.encode(), name) for name in ("m", "other")}
    for name, digest in digests.items():
        note(tmp_path, digest, name)
    reader = start(limit_s=0.2)
    assert (known(reader), known(reader, "other")) == (digests["m"], digests["other"])
    answer, real = threading.Event(), weights_files._stamp

    def hangs(folder: Path) -> object:
        if folder.parent.name == "m":
            answer.wait()
        return real(folder)

    monkeypatch.setattr(weights_files, "_stamp", hangs)
    eventually(lambda: reader.tend() is None and reader.of("m", "1") is None)
    assert reader.of("m", "1") is None  # while the file hangs, until `answer` below
    fresh = graph(tmp_path, b"fresh", "other")
    note(tmp_path, fresh, "other")
    assert known(reader, "other") == fresh
    answer.set()
    assert known(reader) == digests["m"]


def test_what_was_queued_behind_a_hash_that_hangs_is_hashed(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that hangs has taken the signal for both models; the next thread finds the other one all the same."""
    digests = {name: graph(tmp_path, name.encode(), name) for name in ("m", "other")}
    answer, began = threading.Event(), threading.Event()

    def hangs(folder: Path, beat: Callable[[], None]) -> str:
        if folder.parent.name == "m":
            began.set()
            answer.wait()
        return files_digest(folder, beat)

    monkeypatch.setattr(weights_files, "files_digest", hangs)
    reader = start(limit_s=0.2)
    for name in digests:
        reader._to_hash.append(((name, "1"), weights_files._stamp(tmp_path / name / "1")[0]))
    reader._wake_hash.set()
    assert began.wait(PATIENCE_S)
    eventually(lambda: reader.tend() is None and ("other", "1") in reader._digests)
    answer.set()


def test_a_hash_that_hangs_costs_only_its_own_model(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of another model is computed meanwhile, by another thread."""
    digests = {name: graph(tmp_path, name.encode(), name) for name in ("m", "other")}
    for name, digest in digests.items():
        note(tmp_path, digest, name)
        os.utime(tmp_path / name / "1" / "weights.json", ns=(1, 1))
    answer = threading.Event()

    def hangs(folder: Path, beat: Callable[[], None]) -> str:
        if folder.parent.name == "m":
            answer.wait()
        return files_digest(folder, beat)

    monkeypatch.setattr(weights_files, "files_digest", hangs)
    reader = start(limit_s=0.2)

    def other() -> str:
        reader.tend()
        reader.of("m", "1")
        facts = reader.of("other", "1")
        return "" if facts is None else facts.weights.digest

    eventually(lambda: other() == digests["other"])
    assert reader.of("m", "1") is None or reader.of("m", "1") == Facts(
        reader._facts["m", "1"].stamp, Weights()
    )
    answer.set()
    eventually(lambda: reader.tend() is None and known(reader) == digests["m"])


def test_a_note_that_is_a_fifo_blocks_nobody(tmp_path: Path, start: Start) -> None:
    """Nobody writes into it: nothing is known, and no thread is lost."""
    graph(tmp_path, b"graph")
    os.mkfifo(tmp_path / "m" / "1" / "weights.json")
    assert known(start(limit_s=60.0)) == "unknown"


def test_what_was_loaded_keeps_its_digest_only_while_its_files_lie_there(
    tmp_path: Path, start: Start
) -> None:
    """Replaced: unknown; put back: known; loaded again: the new one."""
    digest = graph(tmp_path, b"graph")
    note(tmp_path, digest)
    aside = tmp_path / "aside"
    reader = start()
    served = ServedWeights(reader)
    known(reader)
    assert served.of("m", "1").digest == digest
    shutil.copytree(tmp_path / "m" / "1", aside)
    other = graph(tmp_path, b"other graph")
    note(tmp_path, other)
    assert known(reader) == other
    assert served.of("m", "1").digest == "unknown"
    served.forget(["m"])
    eventually(lambda: served.of("m", "1").digest == other)
