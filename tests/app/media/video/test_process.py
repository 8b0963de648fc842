"""The decoder's process: confined, never left behind, killed at any moment, and its memory given back."""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import videos
from support.paths import ROOT
from support.waiting import PATIENCE_S, ended, eventually

from app.errors import DeadlineExceeded, InvalidVideo, Overloaded
from app.media.video.reader import Sampling, VideoLimits, VideoReader, _Stall


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute and a half of small frames with one keyframe, and more than can be read at once."""
    path, pictures = tmp_path_factory.mktemp("long") / "long.mp4", videos.textured(2400, 240, 160)
    return videos.write(path, pictures, preset="ultrafast", crf="35", gop=2400)


@pytest.fixture
def video(long: Path) -> Iterator[VideoReader]:
    with long.open("rb") as file, VideoReader(file, slots=3) as reader:
        yield reader


def child(video: VideoReader) -> psutil.Process:
    assert video._child is not None
    return psutil.Process(video._child.pid)


def gone(process: psutil.Process) -> bool:
    """Return True once the process has ended; an orphan has while it waits to be reaped."""
    eventually(lambda: ended(process))
    return True


def held(video: VideoReader, count: int) -> list[Any]:
    """Hold that many frames without releasing them."""
    return list(islice(video, count))


def after(seconds: float, action: Callable[[], object]) -> threading.Thread:
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


def test_it_is_confined(video: VideoReader, long: Path) -> None:
    """The decoder has no environment, can open, write, dump and gain nothing, and has limited memory."""
    process = child(video)
    opened = {link.name: link.readlink().name for link in Path(f"/proc/{process.pid}/fd").iterdir()}
    del opened["2"]  # where the gateway's own complaints go
    assert sorted(name.split(":")[0] for name in opened.values()) == sorted(
        ["socket", "null", long.name, "memfd"]
    )
    assert process.environ() == {}
    assert process.cwd() == "/"
    assert os.getpgid(process.pid) == process.pid  # out of reach of a terminal's Ctrl-C
    assert process.rlimit(psutil.RLIMIT_NOFILE)[0] == 0
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_AS) == (4 << 30, 4 << 30)
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    assert "NoNewPrivs:\t1\n" in status
    assert "Threads:\t1\n" in status
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text(encoding="ascii") == "1000\n"


def test_the_gateway_loads_no_codec() -> None:
    """FFmpeg is not even loaded into the process that serves requests."""
    code = "import sys, app.media.video.reader; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_it_starts_from_any_folder(long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the working directory nor a module of the same name there changes what the process imports."""
    (tmp_path / "av.py").write_text("raise SystemExit('not this one')", encoding="utf-8")
    (tmp_path / "app").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with long.open("rb") as file, VideoReader(file, Sampling(end_s=0.1)) as video:
        assert len(held(video, 3)) == 3


def test_killed_in_the_middle(video: VideoReader) -> None:
    """Frames that came stay readable; then the fault says what happened, and after which frame."""
    frames = held(video, 2)
    child(video).kill()
    rest = list(video)
    assert [frame.index for frame in (*frames, *rest)] == list(range(2 + len(rest)))
    assert len(rest) <= 1
    assert all(frame.rgb.any() for frame in frames)
    assert isinstance(video.fault, InvalidVideo)
    assert video.fault.detail.startswith(f"after frame {1 + len(rest)} (")
    assert "SIGKILL" in video.fault.detail
    assert list(video) == []


def test_a_crash_before_its_slots_grow_is_a_fault(video: VideoReader) -> None:
    """A decoder that dies after it asked for larger slots is reported as dead, not as one that sends nonsense."""
    assert select.select([video._end], [], [], PATIENCE_S)[0], "it asks for slots"
    decoder = child(video)
    decoder.send_signal(signal.SIGSEGV)
    eventually(lambda: ended(decoder))
    assert list(video) == []
    assert "SIGSEGV" in video.fault.detail


def test_a_crash_is_a_fault(video: VideoReader) -> None:
    """A decoder that dies of a video takes nothing with it."""
    child(video).send_signal(signal.SIGSEGV)
    assert len(list(video)) <= 3
    assert isinstance(video.fault, InvalidVideo)
    assert "SIGSEGV" in video.fault.detail


GATEWAY = """
import sys, threading
from app.media.video.reader import VideoReader
video = VideoReader(open({path!r}, "rb"), slots=2)
print(video._child.pid, flush=True)
held = []
for frame in video:
    {each}
"""


def dies_with_its_gateway(source: str) -> bool:
    """Return whether a gateway's decoder, whose number it prints, is gone after a kill -9."""
    gateway = subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE)
    assert gateway.stdout is not None
    process = psutil.Process(int(gateway.stdout.readline()))
    time.sleep(0.2)
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    return gone(process)


@pytest.mark.parametrize("each", ["held.append(frame)", "frame.release()"], ids=["waiting", "working"])
def test_it_dies_with_the_gateway(long: Path, each: str) -> None:
    """However the gateway ends, there is no decoder soon."""
    assert dies_with_its_gateway(GATEWAY.format(path=str(long), each=each))


HUNG = r"""
import sys
import app.media.video.child as child
hang = "_die_with; _die_with(int(sys.argv[-3])); sys.stderr.close()\nwhile True: pass"
child._START = child._START.replace("main; main()", hang)
assert hang in child._START
ours, theirs = __import__("socket").socketpair()
process = child.DecoderProcess(theirs, 0, 0)
__import__("time").sleep(1)
print(process.pid, flush=True)
ours.recv(1)
"""


def test_a_decoder_that_hangs_dies_with_the_gateway() -> None:
    """One that is caught in a loop, and would notice nothing, is killed by the kernel."""
    assert dies_with_its_gateway(HUNG)


def test_a_gateway_that_is_gone_already() -> None:
    """A decoder whose gateway ended before it could ask to die with it ends by itself."""
    code = "import os; from app.media.video.process import _die_with; _die_with(os.getppid() + 1); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert done.stdout == b""


def test_a_gateway_that_ends_before_the_decoder_looks(long: Path) -> None:
    """The moment between start and the wish to die with the gateway is covered."""
    source = GATEWAY.format(path=str(long), each="pass").replace(
        "video = ",
        "import app.media.video.reader as v, os\nv.protocol.send = lambda *a, **k: os.kill(os.getpid(), 9)\nvideo = ",
    )
    before = set(psutil.pids())
    gateway = subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=False, capture_output=True)
    assert gateway.returncode == -signal.SIGKILL
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if p.pid not in before and "video_process" in str(p.info["cmdline"])
    ]
    assert all(gone(process) for process in left)


def test_it_outlives_the_thread_that_asked_for_it(long: Path) -> None:
    """A reader made in one thread, which then ends, is read in another: the kernel's tie is to a thread of its own."""
    made: list[VideoReader] = []
    with long.open("rb") as file:
        thread = threading.Thread(target=lambda: made.append(VideoReader(file, slots=3)))
        thread.start()
        thread.join()
        time.sleep(0.2)
        with made[0] as video:
            assert len(held(video, 3)) == 3


def test_close_ends_it_at_once(video: VideoReader) -> None:
    """After close there is no process, and closing again does nothing."""
    process = child(video)
    next(iter(video))
    video.close()
    assert not process.is_running()
    video.close()
    assert list(video) == []
    assert video.fault is None


def test_close_wakes_a_reader_that_waits(video: VideoReader) -> None:
    """An iteration that waits for a slot, which nobody frees, ends when another thread closes the video."""
    frames: list[Any] = []

    def close() -> None:
        eventually(lambda: len(frames) == 3)
        time.sleep(0.1)  # for the iteration to wait
        video.close()

    closer = threading.Thread(target=close)
    closer.start()
    frames.extend(video)
    closer.join()
    assert len(frames) == 3
    assert video.fault is None


def test_close_kills_a_decoder_that_hangs(video: VideoReader) -> None:
    """A process that doesn't react to anything is killed all the same."""
    process = child(video)
    process.suspend()
    closer = after(0.3, video.close)
    list(video)
    closer.join()
    assert not process.is_running()


def test_a_stall_is_a_deadline(long: Path) -> None:
    """A decoder that hangs in the middle is killed after the limit, and what it had decoded is delivered."""
    began = time.monotonic()
    with long.open("rb") as file, VideoReader(file, limits=VideoLimits(stall_s=1.5), slots=3) as video:
        process = child(video)
        indices = [held(video, 1)[0].index]
        process.suspend()
        for frame in video:
            indices.append(frame.index)
            frame.release()  # who holds all slots would wait for itself, and that is no stall
        assert 1.4 < time.monotonic() - began < PATIENCE_S
        assert isinstance(video.fault, DeadlineExceeded)
        assert video.fault.stage == "decode"
        assert indices == list(range(len(indices)))
        assert gone(process)


@pytest.mark.parametrize(
    ("looks", "hangs"),
    [
        ([(0.1, False)] * 4, True),  # neither works nor wants to
        ([(0.1, True)] * 4, False),  # waits for a processor
        ([(0.1, False), (0.2, False), (0.2, False), (0.3, False)], False),  # gets a little of one
        ([(0.1, True), (5.0, True), (9.0, True), (20.0, True)], True),  # works, and says nothing
        ([(0.0, False)] * 4, True),  # has ended
    ],
)
def test_a_decoder_without_a_processor_does_not_hang(looks: list[tuple[float, bool]], hangs: bool) -> None:
    """A decoder hangs that neither works nor waits for a processor, or works for too long without a message."""
    stall = _Stall(limit_s=2.0)
    began = stall.since
    stall.look(0.1 if looks[0][0] else 0.0, runnable=False)
    for look in looks:
        last = time.monotonic()
        stall.look(*look)
    assert (stall.since < last) == hangs
    assert (stall.since == began) or not hangs or looks[-1][0] > 1


def test_the_processor_time_of_a_decoder(long: Path) -> None:
    """The decoder has used some when its first frame is there; suspended, it uses no more."""
    with long.open("rb") as file, VideoReader(file, slots=2) as video:
        started = video._child
        assert started is not None
        assert started.activity()[0] > 0
        child(video).suspend()
        while started.activity()[1]:
            pass
        assert started.activity() == started.activity()


def test_waiting_for_a_slot_is_no_stall(long: Path) -> None:
    """However long the holders take, the decoder is not to blame."""
    with long.open("rb") as file, VideoReader(file, limits=VideoLimits(stall_s=1.5), slots=2) as video:
        frames = held(video, 2)
        release = after(3.5, frames[0].release)
        assert next(iter(video)).index == 2
        assert video.fault is None
        release.join()


SPIN = """
import socket, sys
from app.media.video import protocol
from app.media.video.channel import Channel
ours, theirs = protocol.pair()
channel = Channel(ours, 0)
channel.stall_s = 0.3
channel.alive(0, 0)
while True:
    pass
"""


def test_a_loop_without_a_sign_is_ended_by_the_kernel() -> None:
    """A decoder caught in a loop while nobody reads ends itself after so much processor time."""
    spinning = subprocess.run([sys.executable, "-c", SPIN], cwd=ROOT, check=False, timeout=PATIENCE_S)
    assert spinning.returncode == -signal.SIGPROF


def test_work_without_frames_is_no_stall(long: Path) -> None:
    """A long way to the first wanted frame is progress, though no frame comes for longer than the limit."""
    with long.open("rb") as file, VideoReader(file, Sampling(every=2000), VideoLimits(stall_s=1.5)) as video:
        slower = threading.Thread(target=slow_down, args=(child(video), 8))
        slower.start()
        assert [frame.index for frame in video] == [0, 2000]
        assert video.fault is None
        assert video.decoded == 2001
        slower.join()


def slow_down(process: psutil.Process, times: int) -> None:
    """Let it work for a fifth of a second in each half."""
    for _ in range(times):
        with suppress(psutil.NoSuchProcess):
            process.suspend()
            time.sleep(0.3)
            process.resume()
            time.sleep(0.2)


def test_memory_is_bounded_by_the_slots(long: Path) -> None:
    """Over two thousand frames neither process grows."""
    with long.open("rb") as file, VideoReader(file, slots=3) as video:
        processes = (psutil.Process(), child(video))
        sizes = []
        for frame in video:
            assert frame.rgb[0, 0, 0] >= 0
            frame.release()
            if frame.index in {300, 2300}:
                sizes.append([process.memory_info().rss for process in processes])
        grown = [later - earlier for earlier, later in zip(*sizes, strict=True)]
        assert max(grown) < 2 << 20  # nine frames of 2,000


def test_nothing_lies_in_shared_memory(video: VideoReader) -> None:
    """Frames have no name that could be left behind: neither process maps a file of /dev/shm for them."""
    process = child(video)
    before = _named(psutil.Process())
    next(iter(video))
    assert _named(psutil.Process()) == before
    assert _named(process) == set()
    process.kill()
    video.close()


def _named(process: psutil.Process) -> set[str]:
    """Files of /dev/shm that a process maps or holds open; other test processes make and remove files there, too."""
    paths = [row.path for row in process.memory_maps()] + [row.path for row in process.open_files()]
    return {path for path in paths if path.startswith("/dev/shm/")}


def test_no_process_can_be_started(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without free processes or descriptors, the answer is `overloaded`."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with long.open("rb") as file, pytest.raises(Overloaded, match="no decoder can be started"):
        VideoReader(file)


@pytest.mark.parametrize("left", range(6))
def test_no_descriptor_is_left(long: Path, left: int) -> None:
    """Wherever the descriptors run out, the machine is overloaded; and what was opened until then is closed."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with long.open("rb") as file:
        before = descriptors()
        free = [number for number in range(max(before) + 10) if number not in before]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[left], limits[1]))
        try:
            with pytest.raises(Overloaded, match="Too many open files"):
                VideoReader(file)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors() == before


def descriptors() -> set[int]:
    """The numbers of what this process has open, but for the one that lists them."""
    gc.collect()
    listed = list(Path("/proc/self/fd").iterdir())
    return {int(link.name) for link in listed if link.is_symlink()}


def test_many_at_once(long: Path) -> None:
    """Ten videos are read side by side, each by a process of its own, and none is left."""
    others = psutil.Process().children()  # servers that the whole run shares
    with long.open("rb") as file:
        readers = [VideoReader(file, Sampling(every=50, end_s=6), slots=2) for _ in range(10)]
        counts = []
        for reader in readers:
            with reader:
                counts.append([frame.index for frame in reader if frame.release() is None])
    assert counts == [list(range(0, 150, 50))] * 10
    assert psutil.Process().children() == others


IMPOSTOR = """
import json, socket, sys, time
end = socket.socket(fileno=0)
end.recv(65536)
for message in {messages!r}:
    end.send(message.encode())
time.sleep(60)
"""
FACTS = (
    '{"kind":"facts","facts":{"width":4,"height":2,"rotation":0,"pixel_aspect":1.0,"duration_s":1.0,"fps":25.0,'
    '"frames":25,"codec":"h264","container":"mov"}}'
)
NEED = '{"kind":"need","bytes":280}'
FRAME = '{"kind":"frame","slot":0,"index":0,"time_s":0.0,"decode_s":0.01,"width":4,"height":2,"decoded":1,"damaged":0}'


def believed(long: Path, monkeypatch: pytest.MonkeyPatch, *messages: str) -> tuple[int, VideoReader]:
    """Return the number of frames from a decoder that sends this and then is silent, and its reader."""
    monkeypatch.setattr("app.media.video.child._START", IMPOSTOR.format(messages=messages))
    with long.open("rb") as file, VideoReader(file, limits=VideoLimits(stall_s=2), slots=2) as video:
        return len(list(video)), video


def test_the_impostor_is_believed_what_is_right(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages that the next tests spoil are accepted as they are."""
    frames, video = believed(long, monkeypatch, FACTS, NEED, FRAME)
    assert frames == 1
    assert isinstance(video.fault, DeadlineExceeded)


@pytest.mark.parametrize(
    "messages",
    [
        ["no JSON"],
        ["[]"],
        ["[" * 60_000],
        ["{}"],
        ['{"kind": 3}'],
        [FRAME],
        [FRAME.replace('"slot":0', '"slot":[]')],
        [NEED, FRAME.replace('"slot":0', '"slot":2')],
        [NEED, FRAME.replace('"slot":0', '"slot":-1')],
        [NEED, FRAME, FRAME],
        [NEED, FRAME.replace('"width":4', '"width":4000000000000')],
        [NEED, FRAME.replace('"width":4', '"width":0')],
        [NEED, FRAME.replace('"width":4', '"width":-4').replace('"height":2', '"height":-2')],
        [NEED, FRAME.replace('"width":4', '"width":"4"')],
        [NEED, FRAME.replace('"width":4', '"width":1.5')],
        [NEED, FRAME.replace('"index":0', '"index":-1')],
        [NEED, FRAME.replace('"index":0', '"index":Infinity')],
        [NEED, FRAME.replace('"time_s":0.0', '"time_s":NaN')],
        [NEED, FRAME.replace('"time_s":0.0', '"time_s":null')],
        [NEED, FRAME.replace('"decode_s":0.01', '"decode_s":-1')],
        [NEED, FRAME.replace('"decoded":1', '"decoded":[1]')],
        [NEED, NEED],
        [NEED.replace("280", "-1")],
        [NEED.replace("280", str(1 << 40))],
        [NEED.replace("280", "Infinity")],
        ['{"kind":"end"}'],
        ['{"kind":"end","error":{"code":"weights_missing","detail":""}}'],
        ['{"kind":"end","error":"none"}'],
    ],
    ids=lambda messages: messages[-1][:60],
)
def test_a_decoder_that_was_taken_over_is_not_believed(
    long: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    """Whatever a decoder says that it never should is an invalid video, and kills it."""
    frames, video = believed(long, monkeypatch, FACTS, *messages)
    assert frames == messages[:-1].count(FRAME)
    assert isinstance(video.fault, InvalidVideo)
    assert "nonsense" in video.fault.detail


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"width":4', '"width":"4"'),
        ('"width":4', '"width":-4'),
        ('"width":4,', ""),
        ('"duration_s":1.0', '"duration_s":NaN'),
        ('"frames":25', '"frames":2.5'),
        ('"facts":{', '"facts":3,"x":{'),
    ],
)
def test_facts_that_are_none(long: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Facts of the wrong kind are refused like any other nonsense."""
    with pytest.raises(InvalidVideo, match="nonsense"):
        believed(long, monkeypatch, FACTS.replace(old, new))


def test_limits_that_are_lower_already_stay(long: Path) -> None:
    """Under an administrator's own limits the decoder starts too, and raises none of them."""
    source = GATEWAY.format(path=str(long), each="break")
    limits = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
    limits += "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    end = "\nprint(open(f'/proc/{video._child.pid}/limits').read())"
    done = subprocess.run(
        [sys.executable, "-c", limits + source + end], cwd=ROOT, check=True, capture_output=True, text=True
    )
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["Max", "open", "files", "0", "100", "files"] in words
    assert ["Max", "address", "space", str(3 << 30), str(3 << 30), "bytes"] in words
