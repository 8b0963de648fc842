"""Weights are found, downloaded whole, or missed with a message that says what was looked for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from export.errors import ExportError
from export.weights import checkpoint, pretrained, random_weights

CONTENT = b"weights" * 1000


class _Release(BaseHTTPRequestHandler):
    """Answers a whole file, one that breaks off, or 404."""

    def do_GET(self) -> None:
        if self.path.endswith("missing.pt"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path.endswith("broken.pt") else CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a release of weights on this machine."""
    monkeypatch.setenv("no_proxy", "*")
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


@pytest.mark.parametrize("name", ["missing.pt", "broken.pt"])
def test_failed_download_leaves_nothing(tmp_path: Path, release: str, name: str) -> None:
    """A refused or broken download is an error that names the address, and leaves no file behind."""
    with pytest.raises(ExportError, match=f"can't download .*{name}"):
        pretrained(f"{release}/{name}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, the error says so instead of hanging."""
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ExportError, match="can't download"):
        pretrained("http://127.0.0.1:9/yolo11n.pt", tmp_path)


def test_offline_asks_nobody(tmp_path: Path, release: str) -> None:
    """After a host has failed it isn't asked again, though what is on disk still counts."""
    with pytest.raises(ExportError, match="failed before"):
        pretrained(f"{release}/yolo11n.pt", tmp_path, online=False)
