"""URLs of stores, and what is said of those that can't be used."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers.s3 import SECRET

from app import extras
from app.videos.stores import remote
from app.videos.stores.base import StoreUnusable
from app.videos.stores.folder import FolderStore
from app.videos.stores.opened import open_store


@pytest.fixture
def reconnecting() -> Iterator[None]:
    """The process connects again in a test that changes the variables, and again after it."""
    remote.file_system.cache_clear()
    yield
    remote.file_system.cache_clear()


def test_paths_and_file_urls_are_folders(tmp_path: Path) -> None:
    """A file URL is decoded, a path is not."""
    for url, folder in (
        (f"{tmp_path}/a%20b", tmp_path / "a%20b"),
        (f"file://{tmp_path}/a%20b", tmp_path / "a b"),
        ("s3:/no/bucket", Path("s3:/no/bucket")),
    ):
        store = open_store(url)
        assert isinstance(store, FolderStore)
        assert store.folder == folder


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "name a folder"),
        ("gs://bucket/x", "gs:// is not supported"),
        ("https://user:secret@host/x", "not supported"),
        ("s3://", "no bucket"),
        ("s3:///x", "no bucket"),
        ("s3://key:secret@bucket/x", "credentials don't belong"),
        ("s3://bucket/\udce9", "UTF-8"),
        ("file://host/folder", "three slashes"),
    ],
)
def test_other_urls_are_refused(url: str, words: str) -> None:
    """The words say what to write, and repeat no secret."""
    with pytest.raises(StoreUnusable, match=words) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets need packages that a plain installation has not."""
    monkeypatch.setattr(extras, "missing", lambda extra: f"install {extra}")
    with pytest.raises(StoreUnusable, match="install bulk"):
        open_store("s3://bucket")


@pytest.mark.usefixtures("s3")
def test_faults_of_a_bucket_are_told_without_secrets() -> None:
    """A bucket that is missing, a server that is away, and no credentials."""
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        store.put("a", b"")
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        list(store.list())
    with pytest.raises(FileNotFoundError, match="no such bucket"), store.writing("a"):
        pass
    assert store.size("a") is None


@pytest.mark.usefixtures("s3", "reconnecting")
def test_a_server_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words name the variable to check."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OSError, match="AWS_ENDPOINT_URL") as caught:
        open_store("s3://things").size("a")
    assert SECRET not in str(caught.value)


@pytest.mark.usefixtures("s3", "reconnecting")
def test_missing_credentials_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The words name the variables to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(OSError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://things").put("a", b"")


@pytest.mark.usefixtures("s3")
def test_names_in_a_bucket_are_text() -> None:
    """A name that S3 cannot hold is refused before it is sent."""
    with pytest.raises(OSError, match="UTF-8"):
        open_store("s3://things").put("caf\udce9", b"")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file stands where the folder should."""
    (tmp_path / "file").write_bytes(b"")
    store = open_store(str(tmp_path / "file"))
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the number says it
        store.put("a", b"")
    assert caught.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert (store.size("a"), list(store.list())) == (None, [])


def test_a_long_name_is_written(tmp_path: Path) -> None:
    """The temporary name is no longer than the file system takes."""
    name = "x" * 255
    assert open_store(str(tmp_path)).put(name, b"")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_client_of_buckets_without_s3_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch brings fsspec without its part for S3."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "s3fs" else find(name))
    with pytest.raises(StoreUnusable, match=r"need s3fs, .*: pip install"):
        open_store("s3://bucket")
