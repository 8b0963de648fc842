"""Weights are found, downloaded whole, or missed with a message that says what was looked for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from export.errors import ExportError
from export.weights import checkpoint, pretrained, random_weights

CONTENT = b"weights" * 1000


TAG = '"one"'


class _Release(BaseHTTPRequestHandler):
    """Answers a whole file, one that breaks off, a web page, or 404; `asked` lists the ranges that were asked for."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range"))
        if self.path.endswith("missing.pt"):
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if self.headers.get("If-Range", TAG) != TAG:
            start = 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header(
            "Content-Type", "text/html" if self.path.endswith("page.pt") else "application/octet-stream"
        )
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if not self.path.endswith("untagged.pt"):
            self.send_header("ETag", TAG)
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self._most()])

    def _most(self) -> int:
        """The bytes before the connection breaks off."""
        if self.path.endswith("stuck.pt"):
            return 100 if len(self.asked) == 1 else 0
        return 3000 if self.path.endswith(("broken.pt", "untagged.pt")) else len(CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a release of weights on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    _Release.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Release) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_random_weights_are_a_seed() -> None:
    """Random weights have no file and no digest, only their seed."""
    weights = random_weights()
    assert (weights.kind, weights.path, weights.source.sha256) == ("random", None, None)
    assert weights.source.name == "seed 0"


@pytest.mark.parametrize("place", ["folder", "file"])
def test_checkpoint_by_folder_or_file(tmp_path: Path, place: str) -> None:
    """A folder is searched for the variant's name, a file is taken as it is; its digest is recorded."""
    path = tmp_path / "yolo11n.pt"
    path.write_bytes(CONTENT)
    weights = checkpoint(tmp_path if place == "folder" else path, "yolo11n.pt")
    assert (weights.kind, weights.path) == ("checkpoint", path)
    assert weights.source.name == "yolo11n.pt"
    assert weights.source.sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("place", ["", "nowhere", "nowhere.pt"])
def test_missing_checkpoint_says_what_was_looked_for(tmp_path: Path, place: str) -> None:
    """The message names the very path that isn't there."""
    with pytest.raises(ExportError, match=r"looked for .*(yolo11x\.pt|nowhere)"):
        checkpoint(tmp_path / place, "yolo11x.pt")


def test_pretrained_is_downloaded_once(tmp_path: Path, release: str) -> None:
    """The file is fetched into the folder, recorded by name and digest, and not fetched again."""
    first = pretrained(f"{release}/yolo11n.pt", tmp_path)
    assert first.path == tmp_path / "yolo11n.pt"
    assert first.path.read_bytes() == CONTENT
    assert (first.kind, first.source.name) == ("pretrained", "yolo11n.pt")
    assert pretrained("http://127.0.0.1:9/yolo11n.pt", tmp_path) == first


def test_the_digest_is_printed(tmp_path: Path, release: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After a download stands the SHA-256 of what came."""
    pretrained(f"{release}/yolo11n.pt", tmp_path)
    assert f"yolo11n.pt: 0.0 MB, sha256:{hashlib.sha256(CONTENT).hexdigest()}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing.pt", "page.pt", "untagged.pt"])
def test_failed_download_leaves_nothing(tmp_path: Path, release: str, name: str) -> None:
    """A refused download, a web page, or a part that can't be resumed: an error that names the address, and no file."""
    with pytest.raises(ExportError, match=f"can't download .*{name}"):
        pretrained(f"{release}/{name}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_connection_is_resumed(tmp_path: Path, release: str) -> None:
    """A download that breaks off goes on where it was, as long as each try brings something."""
    weights = pretrained(f"{release}/broken.pt", tmp_path)
    assert _Release.asked == [None, "bytes=3000-", "bytes=6000-"]
    assert (tmp_path / "broken.pt").read_bytes() == CONTENT
    assert weights.source.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pt"]


def test_a_later_run_resumes(tmp_path: Path, release: str) -> None:
    """The part that a failed download brought is kept beside the file's name, and the next run requests the rest."""
    with pytest.raises(ExportError, match="of 7000 bytes arrived"):
        pretrained(f"{release}/stuck.pt", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stuck.pt.etag", "stuck.pt.part"]
    for name in ("part", "etag"):
        (tmp_path / f"stuck.pt.{name}").rename(tmp_path / f"yolo11n.pt.{name}")
    pretrained(f"{release}/yolo11n.pt", tmp_path)
    assert _Release.asked[-1] == "bytes=100-"
    assert (tmp_path / "yolo11n.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("part", "tag"),
    [(b"other" * 100, '"another"'), (b"longer" * 9000, TAG), (b"x", None)],
    ids=["of another file", "longer than the file", "without a tag"],
)
def test_a_part_of_another_file_is_not_used(
    tmp_path: Path, release: str, part: bytes, tag: str | None
) -> None:
    """Only the beginning of the very file is resumed; after at most one more run the file is whole."""
    (tmp_path / "yolo11n.pt.part").write_bytes(part)
    if tag:
        (tmp_path / "yolo11n.pt.etag").write_text(tag)
    with suppress(ExportError):
        pretrained(f"{release}/yolo11n.pt", tmp_path)
    pretrained(f"{release}/yolo11n.pt", tmp_path)
    assert (tmp_path / "yolo11n.pt").read_bytes() == CONTENT


def test_no_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer, the error says so instead of hanging."""
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ExportError, match="can't download"):
        pretrained("http://127.0.0.1:9/yolo11n.pt", tmp_path)


def test_offline_asks_nobody(tmp_path: Path, release: str) -> None:
    """After a host has failed it isn't asked again, though what is on disk still counts."""
    with pytest.raises(ExportError, match="failed before"):
        pretrained(f"{release}/yolo11n.pt", tmp_path, online=False)
