"""Files of jobs in a shared store: every claim has its own, and nothing of another one is seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.analysis import PROFILES
from support.servers.s3 import S3Server, reachable

from app.state.jobs import Job
from app.state.sources import Source
from app.videos import job_files
from app.videos.checkpoint import checkpoint_folder
from app.videos.stored_jobs import files as module
from app.videos.stored_jobs.files import StoredJobFiles
from app.videos.stores.base import ArtifactStore
from app.videos.stores.opened import open_store

ID = "0123456789abcdef" * 2
PROFILE = PROFILES.parse("components: {core_object_detections: {variant: n}}")
Open = Callable[[], StoredJobFiles]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server, reachable(server):
        server.bucket("jobs")
        yield server


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "shared"))
    request.getfixturevalue("s3")
    return open_store(f"s3://jobs/{tmp_path.name}")


@pytest.fixture
def host(store: ArtifactStore, tmp_path: Path) -> Iterator[Open]:
    """Opens the files as one more host, with a local folder of its own."""
    with contextlib.ExitStack() as stack:
        opened: list[StoredJobFiles] = []

        def build() -> StoredJobFiles:
            files = StoredJobFiles(tmp_path / f"host-{len(opened)}", store)
            opened.append(files)
            stack.callback(files.close)
            return files

        yield build


def job(fence: int = 1) -> Job:
    return Job(ID, "running", "v", "p", 3, "00", 0.0, fence=fence, finished=1e9)


def upload(files: StoredJobFiles, data: bytes) -> None:
    path = files.incoming / "a.upload"
    path.parent.mkdir(exist_ok=True)
    with path.open("w+b") as file:
        file.write(data)
        files.keep(ID, file, PROFILE)


def names(store: ArtifactStore) -> set[str]:
    return {stored.name for stored in store.list()}


def test_another_host_finds_what_one_has_taken(host: Open, store: ArtifactStore) -> None:
    """The video and its profile; the local copy goes when it isn't needed."""
    upload(host(), b"abc")
    other = host()
    assert json.loads(other.profile_text(ID)) == PROFILE.to_dict()
    with other.input_file(job(), 0, lambda: None) as path:
        assert path.read_bytes() == b"abc"
    assert not path.exists()
    assert other.has_input(ID, 0)
    other.settle(job())
    assert names(store) == {f"{ID}/profile.json"}
    other.remove(ID)
    assert names(store) == set()


def test_a_copy_can_be_broken_off(host: Open) -> None:
    """By what its check raises; nothing stays of it."""
    files = host()
    upload(files, b"abc")

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), files.input_file(job(), 0, stop):
        pass
    assert [path.name for path in files.incoming.parent.glob("input-*")] == []


def test_what_another_claim_writes_is_not_seen(host: Open, store: ArtifactStore) -> None:
    """Not before the end of the job, and not after it."""
    late, files = host(), host()
    files.results(job(2)).put("manifest.json", b"second")
    late.results(job(1)).put("manifest.json", b"first")
    with files.file(job(2), "manifest.json") as file:
        assert file.read() == b"second"
    assert files.kept_bytes(job(2)) == len(b"second")
    files.settle(job(2))
    assert names(store) == {f"{ID}/2/manifest.json"}
    late.results(job(1)).put("manifest.json", b"late")
    with files.file(job(2), "manifest.json") as file:
        assert (file.read(), file.fileno() >= 0) == (b"second", True)


def test_a_claim_begins_with_the_chunks_of_the_one_before(host: Open, store: ArtifactStore) -> None:
    """And writes its own; those of the other are as they were."""
    with checkpoint_folder(host().results(job(1))) as chunks:
        (chunks.path / "chunk-000000.npz").write_bytes(b"one")
        chunks.written()
    with checkpoint_folder(host().results(job(3))) as chunks:
        assert [path.read_bytes() for path in chunks.path.iterdir()] == [b"one"]
        (chunks.path / "chunk-000001.npz").write_bytes(b"two")
        chunks.written()
    assert names(store) == {f"{ID}/{name}" for name in (
        "1/checkpoint/chunk-000000.npz", "3/checkpoint/chunk-000000.npz", "3/checkpoint/chunk-000001.npz",
    )}  # fmt: skip
    files = host()
    assert files.kept_bytes(job(3)) == 0
    with checkpoint_folder(files.results(job(2))) as chunks:
        assert [path.name for path in chunks.path.iterdir()] == ["chunk-000000.npz"]


def test_a_source_is_continued_only_by_the_host_that_has_its_part(host: Open, store: ArtifactStore) -> None:
    """A part that an earlier attempt left may be of another version. Each attempt's video has a name of its own."""
    files, other = host(), host()
    first = Source(ID, "http://a", attempts=1)
    files.begin_fetch(first).write_bytes(b"part")
    assert files.begin_fetch(replace(first, attempts=2)).read_bytes() == b"part"
    assert not other.begin_fetch(replace(first, attempts=3)).exists()
    assert not files.begin_fetch(replace(first, attempts=4)).exists()
    for source, data in ((replace(first, attempts=3), b"newer"), (replace(first, attempts=4), b"later")):
        at = other if source.attempts == 3 else files
        at.partial(ID).write_bytes(data)
        at.arrived(source)
    with files.input_file(job(), 3, lambda: None) as path:
        assert path.read_bytes() == b"newer"
    assert hashlib.sha256(b"").hexdigest() not in names(store)


def test_what_a_process_left_in_its_local_folder_goes_at_the_next_start(
    store: ArtifactStore, tmp_path: Path
) -> None:
    """The folder of another living process of the host stays."""
    gone, living = StoredJobFiles(tmp_path / "v", store), StoredJobFiles(tmp_path / "v", store)
    left, kept = gone.incoming.parent, living.incoming.parent
    (left / "input-1").write_bytes(b"abc")
    assert gone._own is not None
    gone._own._lock.close()  # as the kernel does when the process dies
    files = StoredJobFiles(tmp_path / "v", store)
    assert files.incoming.parent not in (left, kept)
    assert (left.exists(), kept.exists()) == (False, True)
    files.close()
    living.close()


def test_files_of_no_job_are_removed_at_the_second_look(
    host: Open, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission that is under way has its files before its row."""
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    files = host()
    upload(files, b"abc")
    store.put("other/file", b"")
    assert files.folders() == {ID}
    assert files.remove_orphans({ID}, None) == []
    assert files.remove_orphans({ID}, None) == [ID]
    assert names(store) == {"other/file"}
    assert job_files.is_id(ID)
