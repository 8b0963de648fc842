"""A repository is copied from a web server or a bucket, and no file with another digest stays."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.servers.s3 import S3Server, reachable

from app import cli
from app.commands import model_fetch

FILES = {
    "yolo/config.pbtxt": b"backend",
    "ensemble/config.pbtxt": b"steps",
    "yolo/1/model.onnx": b"graph of yolo",
    "yolo/1/weights.json": b'{"digest": "sha256:0"}',
    "yolo small/1/model.onnx": b"another graph",
    "yolo small/1/shared.bin": bytes(range(256)) * 2000,
    "yolo large/1/shared.bin": bytes(range(256)) * 2000,
}


def sums(files: dict[str, bytes] = FILES) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  ./{name}\n" for name, data in files.items()).encode()


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests short."""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder of the server."""
    folder = tmp_path / "served"
    for name, data in {**FILES, "SHA256SUMS": sums()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def asked() -> list[str]:
    """The paths of all requests."""
    return []


@pytest.fixture
def url(served: Path, asked: list[str]) -> Iterator[str]:
    handler = type("Handler", (_Quiet,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(url: str, into: Path, *options: str) -> int:
    return cli.main(["models", "fetch", url, "--repository", str(into), *options])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_repository_is_copied_and_then_kept(url: str, asked: list[str], tmp_path: Path) -> None:
    """Every file is there with its content, equal ones share their bytes, and a second run fetches the list alone."""
    into = tmp_path / "models"
    digest = f"sha256:{hashlib.sha256(sums()).hexdigest()}"
    assert run(f"{url}/", into, "--digest", digest) == 0
    assert content(into) == FILES
    assert (into / "ensemble" / "1").is_dir()
    shared = [into / name for name in FILES if name.endswith("shared.bin")]
    assert shared[0].samefile(shared[1])
    assert asked[-1] == "/yolo/1/weights.json"  # a note is believed if it is newer than what it describes
    asked.clear()
    assert run(url, into) == 0
    assert asked == ["/SHA256SUMS"]


def test_an_ensemble_has_the_version_of_its_last_part(url: str, served: Path, tmp_path: Path) -> None:
    """The second version of a branch lies in folders `2`; an ensemble's own holds no file that the list could name."""
    files = {
        "yolo_v2/config.pbtxt": b"backend",
        "yolo_v2/2/model.onnx": b"graph",
        "yolo_v2_uint8/config.pbtxt": b'step {\n model_name: "prepare"\n}\nstep {\n model_name: "yolo_v2"\n}',
    }
    for name, data in files.items():
        (served / name).parent.mkdir(parents=True, exist_ok=True)
        (served / name).write_bytes(data)
    (served / "SHA256SUMS").write_bytes(sums(files))
    into = tmp_path / "models"
    assert run(url, into) == 0
    assert [path.name for path in (into / "yolo_v2").iterdir() if path.is_dir()] == ["2"]
    assert [path.name for path in (into / "yolo_v2_uint8").iterdir() if path.is_dir()] == ["2"]


def test_a_changed_file_is_replaced(url: str, tmp_path: Path) -> None:
    """A damaged file is fetched again, and files that aren't listed stay."""
    into = tmp_path / "models"
    assert run(url, into) == 0
    (into / "yolo/1/model.onnx").write_bytes(b"damaged")
    (into / "own").write_bytes(b"mine")
    assert run(url, into) == 0
    assert content(into) == {**FILES, "own": b"mine"}


def test_a_file_with_another_digest_is_refused(
    url: str, served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command fails, names both digests, and leaves nothing of the file."""
    (served / "yolo/1/model.onnx").write_bytes(b"other weights")
    into = tmp_path / "models"
    assert run(url, into) == 1
    assert not (into / "yolo/1/model.onnx").exists()
    assert not (into / "yolo/1/.model.onnx.partial").exists()
    told = capsys.readouterr().err
    assert hashlib.sha256(b"other weights").hexdigest() in told
    assert hashlib.sha256(FILES["yolo/1/model.onnx"]).hexdigest() in told


def test_a_missing_file_and_another_list_are_refused(
    url: str, served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the file, or the digest of the list."""
    into = tmp_path / "models"
    assert run(url, into, "--digest", f"sha256:{'0' * 64}") == 1
    assert "SHA256SUMS: its digest is sha256:" in capsys.readouterr().err
    assert content(into) == {}
    (served / "yolo/config.pbtxt").unlink()
    assert run(url, into) == 1
    assert "yolo/config.pbtxt: the source answered 404" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (b"", "lists no file"),
        (b"\xff\n", "no UTF-8"),
        (b"abc  model.onnx\n", "line 1: 64 hexadecimal digits"),
        (b"0" * 64 + b"  ../outside\n", "line 1: a name in a store is relative"),
        (b"0" * 64 + b"  /etc/passwd\n", "line 1: a name in a store is relative"),
        (b"0" * 64 + b"  a\n" + b"1" * 64 + b"  a\n", "line 2: a has two digests"),
    ],
)
def test_a_bad_list_is_refused(
    url: str, served: Path, listed: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list that can't be read, or whose names lead out of the folder, fetches nothing."""
    (served / "SHA256SUMS").write_bytes(listed)
    assert run(url, tmp_path / "models") == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "source", ["ftp://host/models", "https://user:word@host/models", "s3://B", "https://host/models?token=1"]
)
def test_other_places_are_refused(source: str, tmp_path: Path) -> None:
    """A folder of a web server or of a bucket is needed, without a password in its URL."""
    assert run(source, tmp_path / "models") == 1


def test_a_source_that_stays_away_is_named(
    url: str,
    served: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After some attempts the command fails; the message has the reason."""
    monkeypatch.setattr(model_fetch, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(_Quiet, "do_GET", lambda self: self.send_error(503))
    assert run(url, tmp_path / "models") == 1
    assert "SHA256SUMS: the source answered 503 (8 attempts)" in capsys.readouterr().err


def test_a_bucket_is_copied(tmp_path: Path) -> None:
    """The credentials and the endpoint are those of AWS's variables."""
    with S3Server() as server, reachable(server):
        client = server.client()
        client.create_bucket(Bucket="models")
        for name, data in {**FILES, "SHA256SUMS": sums()}.items():
            client.put_object(Bucket="models", Key=f"v1/{name}", Body=data)
        assert run("s3://models/v1", tmp_path / "models") == 0
    assert content(tmp_path / "models") == FILES
