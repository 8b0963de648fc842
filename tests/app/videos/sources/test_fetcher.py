"""Videos are fetched whole or not at all, from places that the settings list, whatever a source does."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.servers.authority import HERE, Authority
from support.video_source import Plan, VideoSource, serving
from support.waiting import eventually

from app.addresses import networks, sources
from app.errors import Overloaded, PayloadTooLarge
from app.outgoing import SocketAddress, UrlGuard, resolve
from app.state.jobs import Job, JobIndex
from app.state.sources import Source
from app.videos.job_files import JobFiles
from app.videos.sources import fetcher as module
from app.videos.sources.fetcher import Fetcher, FetchOptions, refuse_all
from app.videos.sources.routes import Places
from app.videos.sources.transfer import Limits

CONTENT = bytes(range(256)) * 4096  # 1 MiB
GUARD = UrlGuard(("127.0.0.1",), networks("127.0.0.1"), setting="GATEWAY_VIDEO_SOURCES")
OPTIONS = FetchOptions(
    Places(sources("127.0.0.1"), GUARD),
    Limits(most_bytes=1 << 21, limit_s=3600.0, silence_s=60.0),
    retry_s=0.01,
)
Start = Callable[..., Fetcher]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[JobIndex]:
    opened = JobIndex.in_folder(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path)


@pytest.fixture
def source() -> Iterator[VideoSource]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def start(index: JobIndex, files: JobFiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a fetcher over the index; closed at the end."""
    monkeypatch.setattr(module, "_LOOK_S", 0.02)  # for the sake of the tests' time
    with contextlib.ExitStack() as stack:

        def build(
            admit: Callable[[int], None] = lambda _: None,
            fetched: Callable[[], None] = lambda: None,
            **changes: object,
        ) -> Fetcher:
            limits = {
                name: changes.pop(name) for name in ("most_bytes", "limit_s", "silence_s") if name in changes
            }
            options = replace(OPTIONS, limits=replace(OPTIONS.limits, **limits), **changes)  # type: ignore[arg-type]
            fetcher = Fetcher(lambda: index, files, admit, options, fetched)
            fetcher.start()
            stack.callback(fetcher.close)
            return fetcher

        yield build


def submit(index: JobIndex, files: JobFiles, url: str, name: str = "a") -> None:
    """A job whose video is to be fetched."""
    files.input(name).parent.mkdir()
    assert index.add(Job(name, "queued", "holiday.mp4", "p", 0, "", time.time()), 10, None, url)


def row(index: JobIndex, name: str = "a") -> Source:
    found = index.sources.get(name)
    assert found is not None
    return found


def job(index: JobIndex, name: str = "a") -> Job:
    found = index.get(name)
    assert found is not None
    return found


def arrived(index: JobIndex, files: JobFiles) -> None:
    """Wait for the whole video, and compare it."""
    eventually(lambda: row(index).state in ("fetched", "failed"))
    assert row(index).error is None
    assert files.input("a").read_bytes() == CONTENT
    assert not files.partial("a").exists()
    assert (job(index).state, job(index).bytes) == ("queued", len(CONTENT))
    assert job(index).sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (row(index).bytes, row(index).total) == (len(CONTENT), len(CONTENT))


def failed(index: JobIndex, files: JobFiles) -> tuple[str | None, str]:
    """Wait for the job's failure; return its code and detail. Nothing of the video is left."""
    eventually(lambda: row(index).state in ("fetched", "failed"))
    assert job(index).state == "failed"
    assert row(index).state == "failed"
    assert row(index).error == job(index).detail
    assert not files.partial("a").exists()
    assert not files.input("a").exists()
    assert job(index).finished is not None
    return job(index).code, job(index).detail or ""


def test_a_video_is_fetched_before_its_job_runs(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """The whole of it, with its digest and version; the job can be claimed from then on."""
    told = threading.Event()
    submit(index, files, f"{source.url}?X-Signature=secret")
    assert index.claim(time.time()) is None
    start(fetched=told.set)
    assert told.wait(60)
    arrived(index, files)
    assert (row(index).etag, row(index).attempts) == ('"v1"', 1)
    assert row(index).url == f"{source.url}?***"
    assert source.seen[0][0] == "/a/holiday.mp4?X-Signature=secret"
    claimed = index.claim(time.time())
    assert claimed is not None
    assert claimed.id == "a"


def test_a_broken_connection_is_continued(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """The rest is asked for, of the same version."""
    source.plans = [Plan(most=1000), Plan(most=400_000), Plan(status=503), Plan()]
    submit(index, files, source.url)
    start()
    arrived(index, files)
    assert source.ranges() == [None, "bytes=1000-", "bytes=401000-", "bytes=401000-"]
    assert {headers.get("if-range") for _, headers in source.seen[1:]} == {'"v1"'}


@pytest.mark.parametrize(
    "plans",
    [
        [Plan(most=1000, etag=None), Plan(etag=None)],
        [Plan(most=1000, etag='W/"v1"'), Plan(etag='W/"v1"')],
        [Plan(most=1000), Plan(ranges=False)],
        [Plan(most=1000, etag='"v0"'), Plan()],
        [Plan(most=1000), Plan(status=416), Plan()],
        [
            Plan(most=1000),
            Plan(status=206, headers={"content-range": "bytes 1000-1/2", "etag": '"v0"'}),
            Plan(),
        ],
        [
            Plan(most=1000),
            Plan(status=206, headers={"content-range": "bytes 7-9/10", "etag": '"v1"'}),
            Plan(),
        ],
        [Plan(most=1000), Plan(status=206, headers={"etag": '"v1"'}), Plan()],
    ],
    ids=[
        "no ETag",
        "weak ETag",
        "no ranges",
        "changed",
        "416",
        "206 of another",
        "206 elsewhere",
        "206 of nothing",
    ],
)
def test_what_cant_be_continued_begins_again(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start, plans: list[Plan]
) -> None:
    """No video is made of two versions, or of the wrong parts."""
    source.plans = plans
    submit(index, files, source.url)
    start()
    arrived(index, files)
    if len(source.seen) > 2:
        assert source.ranges()[-1] is None


@pytest.mark.parametrize(
    ("plan", "code", "words"),
    [
        (Plan(status=404), "source_refused", "answered 404"),
        (Plan(status=403), "source_refused", "answered 403"),
        (Plan(status=204), "source_refused", "answered 204"),
        (Plan(status=302), "source_refused", "without a location"),
        (Plan(status=302, headers={"location": "/again"}), "source_refused", "redirects more than 5"),
        (Plan(headers={"content-encoding": "gzip"}), "source_refused", "Content-Encoding"),
        (Plan(announced=1 << 40), "source_too_large", "has 1099511627776 bytes"),
        (Plan(announced=None, endless=True), "source_too_large", "more than 2097152 bytes"),
        (Plan(status=503), "source_unreachable", "answered 503"),
        (Plan(most=0, etag=None), "source_unreachable", "connection broke"),
    ],
    ids=str,
)
def test_what_a_source_does_wrong_has_a_code(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start, plan: Plan, code: str, words: str
) -> None:
    """The job fails with it, and keeps nothing of the video or of the URL's secrets."""
    source.plans = [plan]
    submit(index, files, f"{source.url}?token=secret")
    start(retry_s=0.0)
    found, detail = failed(index, files)
    assert (found, words in detail) == (code, True), detail
    assert "secret" not in f"{row(index)}{job(index)}"


def test_a_length_that_lies_is_seen(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """Too few bytes are a broken connection; more than announced aren't read."""
    source.plans = [Plan(announced=len(CONTENT) + 1, etag=None), Plan(announced=1000, etag=None), Plan()]
    submit(index, files, source.url)
    start()
    eventually(lambda: row(index).state == "fetched")
    assert files.input("a").read_bytes() == CONTENT[:1000]


def test_a_slow_source_ends_in_time(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """The limit holds for a whole fetch, in the middle of a wait."""
    source.plans = [Plan(most=1000, hang=True)]
    submit(index, files, source.url)
    start(limit_s=0.3)
    assert failed(index, files)[0] == "source_timeout"


def test_a_silent_source_is_tried_again(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """Silence is a broken connection, and what came before counts."""
    source.plans = [Plan(most=1000, hang=True), Plan()]
    submit(index, files, source.url)
    start(silence_s=1.0)
    arrived(index, files)
    assert source.ranges() == [None, "bytes=1000-"]


def test_a_slow_source_holds_up_no_other(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """Another is fetched meanwhile."""
    source.plans = [Plan(most=0, hang=True), Plan()]
    submit(index, files, source.url, "b")
    start()
    eventually(lambda: len(source.seen) == 1)
    submit(index, files, source.url)
    arrived(index, files)
    assert row(index, "b").state == "fetching"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://127.0.0.2:{port}/x", "doesn't list it"),
        ("http://other.example/x", "'other.example' may not be called"),
        ("http://user:word@127.0.0.1:{port}/x", "no user"),
        ("file:///etc/passwd", "begins with http"),
        ("s3://bucket/key", "begins with http"),
        ("http://[::1", "can't be read"),
    ],
)
def test_every_redirect_is_checked(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start, location: str, words: str
) -> None:
    """A listed host leads to no other."""
    source.plans = [Plan(status=302, headers={"location": location.format(port=source.port)})]
    submit(index, files, source.url)
    start()
    code, detail = failed(index, files)
    assert (code, words in detail) == ("source_not_allowed", True), detail
    assert len(source.seen) == 1


def test_a_redirect_within_the_list_is_followed(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """Relative to the URL before; the part that is there is continued behind it, too."""
    source.plans = [
        Plan(status=307, headers={"location": "../b/other.mp4?x=1#part"}), Plan(most=1000),
        Plan(status=308, headers={"location": source.url}), Plan(),
    ]  # fmt: skip
    submit(index, files, source.url)
    start()
    arrived(index, files)
    assert [path for path, _ in source.seen][:2] == ["/a/holiday.mp4", "/b/other.mp4?x=1"]
    assert source.ranges() == [None, None, "bytes=1000-", "bytes=1000-"]


def test_a_private_address_is_refused_at_every_attempt(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """A name that had a good address when it was submitted, and has another when it is fetched, isn't called."""
    answers: list[list[SocketAddress]] = [
        [(socket.AF_INET, ("8.8.8.8", source.port))],
        [(socket.AF_INET, ("127.0.0.1", source.port))],
    ]
    judge = UrlGuard(("a.example",), (), setting="GATEWAY_VIDEO_SOURCES", resolve=lambda *_: answers.pop(0))
    places = Places(sources("a.example"), judge)
    url = f"http://a.example:{source.port}/x"
    places.check_addresses(url)
    submit(index, files, url)
    start(places=places)
    code, detail = failed(index, files)
    assert (code, "special address" in detail, source.seen) == ("source_not_allowed", True, [])


def test_a_source_that_is_no_longer_listed_is_refused(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """A job of earlier settings fails with the reason; without any place, all of them do."""
    submit(index, files, source.url)
    other = UrlGuard(("other.example",), (), setting="GATEWAY_VIDEO_SOURCES")
    fetcher = start(places=Places(sources("other.example"), other))
    assert failed(index, files)[0] == "source_not_allowed"
    fetcher.close()
    submit(index, files, f"{source.url}?s=secret", "b")
    refuse_all(index, files)
    assert (job(index, "b").state, job(index, "b").code) == ("failed", "source_not_allowed")
    assert row(index, "b").url == f"{source.url}?***"
    assert source.seen == []


def test_hosts_that_cant_be_reached(index: JobIndex, files: JobFiles, start: Start) -> None:
    """A refused connection has its reason after the last attempt."""
    with socket.socket() as bound:  # it doesn't listen, so it refuses
        bound.bind(("127.0.0.1", 0))
        submit(index, files, f"http://127.0.0.1:{bound.getsockname()[1]}/x.mp4")
        start(retry_s=0.0)
        code, detail = failed(index, files)
    assert code == "source_unreachable"
    assert "connection was refused" in detail
    assert row(index).attempts == 8


def test_a_restart_continues(index: JobIndex, files: JobFiles, source: VideoSource, start: Start) -> None:
    """Closing cuts off the transfer; the next start asks for the rest."""
    source.plans = [Plan(most=700_000, hang=True), Plan()]
    submit(index, files, source.url)
    first = start()
    eventually(lambda: files.partial("a").exists() and files.partial("a").stat().st_size > 0)
    first.close()
    eventually(lambda: row(index).state == "waiting")
    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("video-fetch")])
    kept = row(index).bytes
    assert 0 < kept <= 700_000
    assert (row(index).owner, row(index).error, row(index).failures) == (None, None, 0)
    start()
    arrived(index, files)
    assert source.ranges() == [None, f"bytes={kept}-"]


def test_a_killed_worker_s_part_is_continued_as_far_as_it_is_safe(
    tmp_path: Path, index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """Bytes beyond the last record are fetched again; a living worker's source is left alone."""
    submit(index, files, source.url)
    other = JobIndex.in_folder(tmp_path)
    assert other.sources.claim(time.time()) is not None
    assert other.sources.progress("a", 5000, len(CONTENT), '"v1"', 1.0)
    files.partial("a").write_bytes(CONTENT[:5000] + b"garbage of a crash")
    assert index.sources.claim(time.time()) is None
    other.close()
    start()
    arrived(index, files)
    assert source.ranges() == ["bytes=5000-"]


def test_a_lost_part_is_fetched_again(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """A record that says more than the disk has is not believed."""
    submit(index, files, source.url)
    assert index.sources.claim(time.time()) is not None
    index.sources.progress("a", 5000, len(CONTENT), '"v1"', 1.0)
    index.sources.put_back("a", 0.0, 0, 1.0, None)
    files.partial("a").write_bytes(CONTENT[:4999])
    start()
    arrived(index, files)
    assert source.ranges() == [None]


def test_a_deleted_job_stops_its_transfer(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """In the middle of a wait for the source; nothing is left, and the threads go on."""
    source.plans = [Plan(most=1000, hang=True), Plan()]
    submit(index, files, source.url, "b")
    fetcher = start()
    eventually(lambda: files.partial("b").exists())
    index.mark_deleted("b")
    fetcher.stop_deleted()
    files.remove("b")
    index.remove("b")
    assert index.sources.get("b") is None
    submit(index, files, source.url)
    arrived(index, files)
    assert not files.input("b").parent.exists()


def test_the_limit_of_the_disk_holds(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announced length is asked for before a byte comes; a refusal is no failure of the source."""
    monkeypatch.setattr(module, "_ROOM_S", 0.01)
    asked: list[int] = []

    def admit(nbytes: int) -> None:
        asked.append(nbytes)
        if len(asked) < 3:
            raise Overloaded("the videos that wait have 1 byte together")

    submit(index, files, source.url)
    start(admit)
    arrived(index, files)
    assert asked == [len(CONTENT)] * 3
    assert (row(index).attempts, row(index).failures) == (3, 0)


def test_a_video_that_never_fits_fails(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start
) -> None:
    """It is larger than all videos that wait may be together."""

    def admit(_: int) -> None:
        raise PayloadTooLarge("the video has more than 7 bytes")

    source.plans = [Plan(announced=None)]
    submit(index, files, source.url)
    start(admit)
    assert failed(index, files) == ("source_too_large", "the video has more than 7 bytes")


def test_a_full_disk_is_waited_for(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job says so, and the fetch goes on once there is room."""
    monkeypatch.setattr(module, "_ROOM_S", 0.01)
    full = threading.Event()
    full.set()
    opened = Path.open

    def guarded(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "input.partial" and full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", guarded)
    submit(index, files, source.url)
    start()
    eventually(lambda: "disk is full" in (row(index).error or ""))
    assert (row(index).failures, job(index).state) == (0, "queued")
    full.clear()
    arrived(index, files)


def test_a_lack_of_descriptors_is_no_fault_of_the_source(
    index: JobIndex, files: JobFiles, source: VideoSource, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for, as a full disk is."""
    monkeypatch.setattr(module, "_ROOM_S", 0.01)
    short = [OSError(errno.EMFILE, "Too many open files") for _ in range(10)]

    def resolved(host: str, port: int) -> list[SocketAddress]:
        if short:
            raise short.pop()
        return resolve(host, port)

    judge = UrlGuard(("127.0.0.1",), networks("127.0.0.1"), setting="GATEWAY_X", resolve=resolved)
    submit(index, files, source.url)
    start(places=Places(sources("127.0.0.1"), judge))
    arrived(index, files)
    assert (row(index).attempts, row(index).failures) == (11, 0)


@pytest.mark.parametrize("certificate", ["right", "of another authority", "of another host"])
def test_a_video_comes_over_tls_from_the_right_host_only(
    index: JobIndex,
    files: JobFiles,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
) -> None:
    """With any other certificate nothing is asked for; a redirect to plain HTTP is refused."""
    ours = Authority(tmp_path / "ours")
    signer = Authority(tmp_path / "theirs") if certificate == "of another authority" else ours
    signed = signer.signed("x", "DNS:other.example" if certificate == "of another host" else HERE)
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.ca))
    with serving(CONTENT, signed) as source, serving(CONTENT) as plain:
        submit(index, files, source.url)
        start()
        if certificate != "right":
            assert failed(index, files) == (
                "source_unreachable",
                "the source's certificate can't be verified",
            )
            assert source.seen == []
            return
        arrived(index, files)
        source.plans = [Plan(status=302, headers={"location": plain.url})]
        submit(index, files, source.url, "b")
        eventually(lambda: row(index, "b").state == "failed")
        assert "from https://" in (job(index, "b").detail or "")
        assert plain.seen == []
