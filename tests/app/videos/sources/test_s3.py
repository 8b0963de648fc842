"""Objects of buckets are fetched from a real S3 server, within the entries of the list."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from support.analysis import patches
from support.servers.gateway import client
from support.servers.s3 import SECRET, S3Server
from support.waiting import eventually

from app.addresses import sources
from app.errors import InvalidParameter, SourceNotAllowed, SourceUnreachable
from app.main import fetch_options
from app.outgoing import UrlGuard
from app.process import preflight
from app.settings import Settings
from app.state.jobs import Job, JobIndex
from app.state.sources import Source
from app.videos.job_files import JobFiles
from app.videos.sources.fetcher import Fetcher, FetchOptions
from app.videos.sources.routes import Places, S3Route, name_of, object_of
from app.videos.sources.s3 import SignedUrls
from app.videos.sources.transfer import Limits
from routing.catalogue import load

CONTENT = bytes(range(256)) * 1024
ODD = "cam 1/ä+%20?x#y&z=1/日本 (1).mp4"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A server with a bucket of three private objects and a public one."""
    with S3Server() as running:
        running.bucket("videos")
        for key in ("a.mp4", "2026/b.mp4", ODD):
            running.client().put_object(Bucket="videos", Key=key, Body=CONTENT)
        running.client().put_object(Bucket="videos", Key="public.mp4", Body=CONTENT, ACL="public-read")
        yield running


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables of an operator."""
    for name, value in {**server.environment, "AWS_CONFIG_FILE": str(tmp_path / "none")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[JobIndex]:
    opened = JobIndex.in_folder(tmp_path)
    yield opened
    opened.close()


def places(listed: str) -> Places:
    return Places(sources(listed), UrlGuard((), setting="GATEWAY_VIDEO_SOURCES"), SignedUrls())


def fetch(index: JobIndex, folder: Path, url: str, have: Source | None = None) -> Source:
    """Fetch a video to its end, or continue with the part `have`."""
    files = JobFiles(folder)
    files.input("a").parent.mkdir()
    assert index.add(Job("a", "queued", "x", "p", 0, "", time.time()), 10, None, url)
    if have is not None:
        assert index.sources.claim(time.time()) is not None
        assert index.sources.progress("a", have.bytes, have.total, have.etag, 0.0)
        index.sources.put_back("a", 0.0, 0, 0.0, None)
        files.partial("a").write_bytes(bytes(have.bytes))
    options = FetchOptions(places("s3://videos"), Limits(1 << 20, 3600.0, 60.0), retry_s=0.0)
    fetcher = Fetcher(lambda: index, files, lambda _: None, options, lambda: None)
    fetcher.start()
    try:
        eventually(lambda: _row(index).state in ("fetched", "failed"))
    finally:
        fetcher.close()
    return _row(index)


def _row(index: JobIndex) -> Source:
    found = index.sources.get("a")
    assert found is not None
    return found


@pytest.mark.parametrize("key", ["a.mp4", "2026/b.mp4", ODD])
def test_an_object_is_fetched(index: JobIndex, tmp_path: Path, server: S3Server, key: str) -> None:
    """Any characters in its key are right; the version is the bucket's."""
    row = fetch(index, tmp_path, f"s3://videos/{key}")
    assert (row.state, row.error, row.url) == ("fetched", None, f"s3://videos/{key}")
    assert (tmp_path / "a" / "input").read_bytes() == CONTENT
    assert row.etag == server.client().head_object(Bucket="videos", Key=key)["ETag"]


@pytest.mark.parametrize("changed", [False, True])
def test_an_object_is_continued_in_its_version(
    index: JobIndex, tmp_path: Path, server: S3Server, changed: bool
) -> None:
    """The part that is there stays; of another version nothing does."""
    etag = server.client().head_object(Bucket="videos", Key="a.mp4")["ETag"]
    have = Source("a", "", bytes=5000, total=len(CONTENT), etag='"0123"' if changed else etag)
    assert fetch(index, tmp_path, "s3://videos/a.mp4", have).state == "fetched"
    start = CONTENT[:5000] if changed else bytes(5000)
    assert (tmp_path / "a" / "input").read_bytes() == start + CONTENT[5000:]


@pytest.mark.parametrize(
    ("url", "code"), [("s3://videos/none.mp4", "source_refused"), ("s3://other/a.mp4", "source_not_allowed")]
)
def test_what_isnt_there_or_isnt_listed(index: JobIndex, tmp_path: Path, url: str, code: str) -> None:
    """The job fails with a code, and names no credentials."""
    assert fetch(index, tmp_path, url).state == "failed"
    job = index.get("a")
    assert job is not None
    assert (job.state, job.code) == ("failed", code)
    assert SECRET not in str(job)


def test_a_public_bucket_needs_no_credentials(
    index: JobIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request isn't signed then."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "Signature" not in SignedUrls()("videos", "a.mp4", None)
    assert fetch(index, tmp_path, "s3://videos/public.mp4").state == "fetched"


def test_a_service_fetches_from_a_bucket(repository: Path, tmp_path: Path, server: S3Server) -> None:
    """The manifest names the object and its version, and the video's name is the key's last part."""
    video = patches(tmp_path / "v.mp4").read_bytes()
    server.client().put_object(Bucket="videos", Key="cam 1/0001.mp4", Body=video)
    kept = tmp_path / "kept"
    with client(repository, videos_folder=kept, video_sources="s3://videos/cam 1") as gateway:
        body = {"source": "s3://videos/cam 1/0001.mp4", "profile": "detect_embedded"}
        answer = gateway.post("/v1/videos", json=body)
        assert answer.status_code == 202, answer.text
        link = answer.json()["links"]["self"]
        eventually(lambda: gateway.get(link).json()["state"] in ("done", "failed"))
        done = gateway.get(link).json()
        other = gateway.post("/v1/videos", json={**body, "source": "s3://videos/a.mp4"})
    assert (done["state"], done["error"]) == ("done", None)
    given = done["manifest"]["input"]
    etag = server.client().head_object(Bucket="videos", Key="cam 1/0001.mp4")["ETag"]
    assert (given["name"], given["url"], given["etag"]) == ("0001.mp4", body["source"], etag)
    assert given["sha256"] == hashlib.sha256(video).hexdigest()
    assert (other.status_code, other.json()["code"]) == (422, "source_not_allowed")


def test_a_missing_client_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it, and only where a bucket is listed."""
    monkeypatch.setitem(sys.modules, "app.videos.sources.s3", None)
    monkeypatch.setattr("app.extras.importlib.util.find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"GATEWAY_VIDEO_SOURCES .*bulk"):
        fetch_options(Settings(video_sources="media.example.com,s3://videos"))
    assert fetch_options(Settings(video_sources="media.example.com")) is not None
    for listed, said in (("s3://videos", True), ("media.example.com", False)):
        words = "\n".join(preflight.faults(Settings(video_sources=listed), load()))
        assert ("GATEWAY_VIDEO_SOURCES: " in words and "bulk" in words) == said


@pytest.mark.parametrize(
    ("bucket", "region", "start"),
    [
        ("videos", "eu-west-1", "https://videos.s3.eu-west-1.amazonaws.com/a.mp4?"),
        ("my.videos", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.videos/a.mp4?"),
        ("videos", None, "https://videos.s3.amazonaws.com/a.mp4?"),
    ],
)
def test_amazon_s_buckets_are_asked_in_their_region(
    monkeypatch: pytest.MonkeyPatch, bucket: str, region: str | None, start: str
) -> None:
    """The URL is that of the region's own host, and its certificate's."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert SignedUrls()(bucket, "a.mp4", region).startswith(start)


def test_settings_that_cant_be_used_have_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that isn't there, and an endpoint that is none."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SourceUnreachable, match="ProfileNotFound"):
        SignedUrls()("videos", "a.mp4", None)
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nothing")
    with pytest.raises(SourceUnreachable, match="ValueError"):
        SignedUrls()("videos", "a.mp4", None)


@pytest.mark.parametrize(
    ("status", "region", "followed"),
    [
        (301, "eu-west-1", True), (307, "eu-west-1", True), (400, "eu-west-1", True), (301, None, False),
        (403, "eu-west-1", False), (301, "evil.example/", False), (301, "", False),
    ],
)  # fmt: skip
def test_a_bucket_of_another_region_is_asked_there(
    server: S3Server, status: int, region: str | None, followed: bool
) -> None:
    """At the same endpoint, signed for the region; no other redirect is followed."""
    answer = Message()
    answer["location"] = "http://evil.example/"
    if region is not None:
        answer["x-amz-bucket-region"] = region
    target = S3Route("videos", "a.mp4", SignedUrls()).onward(status, answer)
    assert (target is not None) == followed
    if target is not None:
        assert server.url == f"http://{target.host}:{target.port}"
        assert "eu-west-1" in target.path


@pytest.mark.parametrize(
    ("listed", "url", "allowed"),
    [
        ("s3://videos", "s3://videos/a/b.mp4", True),
        ("s3://videos/", "s3://videos/a/b.mp4", True),
        ("s3://videos/a", "s3://videos/a/b.mp4", True),
        ("s3://videos/a/", "s3://videos/a", True),
        ("s3://videos/a", "s3://videos/ab.mp4", False),
        ("s3://videos", "s3://videos2/a", False),
        ("s3://*", "s3://any.bucket-1/a", True),
        ("s3://*/a", "s3://any/b", False),
        ("videos", "s3://videos/a", False),
        ("*", "s3://videos/a", False),
    ],
)
def test_only_listed_objects_are_fetched(listed: str, url: str, allowed: bool) -> None:
    """By bucket, and by the parts of the key."""
    if allowed:
        places(listed).check_addresses(url)
    else:
        with pytest.raises(SourceNotAllowed, match="GATEWAY_VIDEO_SOURCES"):
            places(listed).check_addresses(url)


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3://b", "s3://videos", "s3://videos/", "s3://videos//a", "s3://videos/a/", "s3://videos/./a",
     "s3://videos/../other/a", "s3://videos/a\nb", "s3://-videos/a", "s3://videos/" + "ä" * 513, "s3:/videos/a"],
)  # fmt: skip
def test_what_names_no_object_is_refused(url: str) -> None:
    """A key that a lenient server could read as another one, too."""
    with pytest.raises(InvalidParameter):
        object_of(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://videos/a/b c?.mp4", "b c?.mp4"), ("https://h/a/b%20c.mp4?x=/y#z", "b c.mp4"), ("https://h", ""),
        ("https://h?x=/y", ""), ("https://h/a/", ""), ("https://h/%ff%2f..%2fx", "\ufffd/../x"),
    ],
)  # fmt: skip
def test_a_video_is_named_after_its_url(url: str, name: str) -> None:
    """The last part of the path; the service cleans it."""
    assert name_of(url) == name


@pytest.mark.parametrize(
    "text", ["s3://", "s3://B", "s3://a", "https://media.example.com", "a.example/x", "s3://videos,a b"]
)
def test_what_is_no_place_is_no_setting(text: str) -> None:
    """A wrong entry stops the start."""
    with pytest.raises(ValueError, match="list of hosts and buckets"):
        sources(text)
