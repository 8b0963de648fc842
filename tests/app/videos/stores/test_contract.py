"""Every store keeps the same contract: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from app.videos.stores import remote
from app.videos.stores.base import ArtifactStore, Stored
from app.videos.stores.opened import open_store

NAMES = [
    "manifest.json",
    "a b/c d.npz",
    "größe/映像.mp4/x.npz",
    "100%/a#b?c&d+e=f.json",
    "deep/er/and/deeper/x",
    "[a]*/'q'.txt",
]


def names(store: ArtifactStore, prefix: str = "") -> list[str]:
    return sorted(stored.name for stored in store.list(prefix))


def contents(store: ArtifactStore, name: str) -> bytes:
    with store.open(name) as file:
        return file.read()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_written_read_listed_and_removed(store: ArtifactStore, name: str) -> None:
    """Names with spaces, other scripts and characters that URLs or globs know stay what they are."""
    with store.writing(name) as file:
        file.write(b"one")
        assert store.size(name) is None
    assert (contents(store, name), store.size(name)) == (b"one", 3)
    assert store.put(name, b"other")
    assert contents(store, name) == b"other"
    assert list(store.list()) == [Stored(name, 5)]
    store.delete(name)
    assert store.size(name) is None
    assert list(store.list()) == []
    store.delete(name)


def test_nothing_half_written_is_ever_visible(store: ArtifactStore) -> None:
    """Until the block ends the old file stands and no other is listed; after an error it still does."""
    store.put("x/a", b"old")

    def seen() -> tuple[list[str], bytes]:
        return names(store), contents(store, "x/a")

    with store.writing("x/a") as file:
        file.write(b"half")
        file.flush()
        assert seen() == (["x/a"], b"old")
    assert seen() == (["x/a"], b"half")
    with suppress(KeyError), store.writing("x/b") as file:
        file.write(b"half")
        raise KeyError
    assert seen() == (["x/a"], b"half")


def test_what_is_being_written_can_be_read(store: ArtifactStore) -> None:
    """A digest needs no second look at the store."""
    with store.writing("a") as file:
        file.write(b"0123456789")
        file.seek(4)
        assert file.read(2) == b"45"
    assert contents(store, "a") == b"0123456789"


def test_of_many_who_put_if_absent_one_succeeds(store: ArtifactStore) -> None:
    """The conditional put is one step: the winner's bytes stay."""
    won: list[int] = []
    start = threading.Barrier(8)

    def put(number: int) -> None:
        start.wait()
        if store.put("claim", str(number).encode(), only_if_absent=True):
            won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert contents(store, "claim") == str(won[0]).encode()
    assert names(store) == ["claim"]


def test_files_are_read_at_any_position(store: ArtifactStore) -> None:
    """Archives and tables are read from their ends."""
    data = bytes(range(256)) * 1000
    store.put("big", data)
    with store.open("big") as file:
        assert file.seek(-10, 2) == len(data) - 10
        assert file.read() == data[-10:]
        file.seek(1000)
        assert file.read(300) == data[1000:1300]
        assert file.tell() == 1300


def test_a_large_file_is_published_whole(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger than two parts of an upload."""
    monkeypatch.setattr(remote, "_PART_BYTES", 5 << 20)
    data = os.urandom(1 << 20) * 11
    with store.writing("large") as file:
        file.write(data)
    assert contents(store, "large") == data


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "./a", "a/.", "a\0b"])
def test_names_outside_the_store_are_refused(store: ArtifactStore, name: str) -> None:
    """Manifests come from others, too: their names lead nowhere else."""
    with pytest.raises(OSError, match="name"):
        store.open(name)
    with pytest.raises(OSError, match="name"), store.writing(name):
        pass
    for call in (store.size, store.delete, store.within):
        with pytest.raises(OSError, match="name"):
            call(name)
    with pytest.raises(OSError, match="name"):
        store.put(name, b"")
    assert names(store) == []


def test_what_is_not_there_is_said(store: ArtifactStore) -> None:
    """A folder of files is no file either."""
    store.put("a/b", b"")
    for name in ("x", "a", "a/b/c", "A/b"):
        with pytest.raises(FileNotFoundError):
            store.open(name)
        assert store.size(name) is None
        store.delete(name)
    assert names(store) == ["a/b"]


def test_lists_are_of_folders(store: ArtifactStore) -> None:
    """A prefix is a folder: `run` does not list `runs`; what is temporary or local is not listed."""
    for name in (
        "run/1",
        "run/deep/2",
        "runs/3",
        "run.json",
        ".hidden.mp4/manifest.json",
        "run/.lock",
        "v/.partial/chunk",
    ):
        store.put(name, b"x")
    assert names(store, "run") == names(store, "run/") == ["run/1", "run/deep/2"]
    assert names(store) == [".hidden.mp4/manifest.json", "run.json", "run/1", "run/deep/2", "runs/3"]
    assert names(store, "nothing") == []
    assert names(store.within("run/deep")) == ["2"]


def test_a_store_within_another_has_its_names(store: ArtifactStore) -> None:
    """Stores nest like folders."""
    inner = store.within("videos").within("a b.mp4")
    inner.put("manifest.json", b"{}")
    assert names(store) == ["videos/a b.mp4/manifest.json"]
    assert inner.url == f"{store.url}/videos/a b.mp4"
    assert inner.size("manifest.json") == 2
    inner.delete("manifest.json")
    assert names(store) == []


def test_long_lists_come_page_by_page(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than a page has, all of them once."""
    monkeypatch.setattr(remote, "_PAGE_NAMES", 3)
    made = {f"n/{number}" for number in range(10)}
    for name in made:
        store.put(name, b"")
    listed = store.list("n")
    assert next(listed).name in made
    assert len(list(listed)) == 9
    assert {stored.name for stored in store.list()} == made


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A folder takes the names that its file system has."""
    store = open_store(str(tmp_path))
    store.put("caf\udce9/x", b"1")
    assert names(store) == ["caf\udce9/x"]
