"""The mark of the host that uses a folder: others are refused while it lives, and only then."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.waiting import eventually

from app.errors import VideosUnavailable
from app.state.host_mark import NAME, HostMark, this_host

WATCH_S = 0.5


def mark(folder: Path, host: str, watch_s: float = WATCH_S, beat_s: float = 0.02) -> HostMark:
    return HostMark(folder, host, beat_s, watch_s)


def test_a_host_is_the_same_for_all_its_processes() -> None:
    """And has a name that isn't its host name, which a container gets at each start."""
    assert this_host() == this_host() != os.uname().nodename


def test_a_second_host_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """Workers and restarts of the same host are not."""
    first = mark(tmp_path, "one")
    assert first.take()
    first.hold()
    assert mark(tmp_path, "one").take()
    assert not mark(tmp_path, "other", watch_s=60.0).take()  # seen at the first beat
    first.check()
    first.close(last=False)


def test_a_dead_host_s_folder_is_free_after_a_while(tmp_path: Path) -> None:
    """After a crash, and after a reboot, which changes the name of the host."""
    assert mark(tmp_path, "one").take()
    assert mark(tmp_path, "other").take()
    assert (tmp_path / NAME).read_text() == "other"


def test_a_host_that_stops_leaves_no_mark(tmp_path: Path) -> None:
    """The last of its workers removes it, so that the next host needn't watch."""
    first, second = mark(tmp_path, "one"), mark(tmp_path, "one")
    for worker in (first, second):
        assert worker.take()
        worker.hold()
    first.close(last=False)
    assert (tmp_path / NAME).exists()
    second.close(last=True)
    assert list(tmp_path.iterdir()) == []
    assert mark(tmp_path, "other", watch_s=3600.0).take()


def test_a_host_that_was_taken_for_dead_stops(tmp_path: Path) -> None:
    """One that was suspended finds the other's mark before it does anything."""
    suspended = mark(tmp_path, "one", watch_s=0.0)
    assert suspended.take()
    assert mark(tmp_path, "other").take()
    with pytest.raises(VideosUnavailable, match="another host"):
        suspended.check()
    with pytest.raises(VideosUnavailable, match="postgresql"):
        suspended.check()
    suspended.close(last=True)
    assert (tmp_path / NAME).read_text() == "other"


def test_the_beat_finds_another_host(tmp_path: Path) -> None:
    """Without any request."""
    first = mark(tmp_path, "one", watch_s=3600.0)
    assert first.take()
    first.hold()
    (tmp_path / NAME).write_text("other")

    def lost() -> bool:
        try:
            first.check()
        except VideosUnavailable:
            return True
        return False

    eventually(lost)
    first.close(last=True)


def test_one_of_two_hosts_that_start_at_once_gets_the_folder(tmp_path: Path) -> None:
    """The other one is refused, in a new folder and in one that a third host left."""
    for left in (None, "dead"):
        if left:
            (tmp_path / NAME).write_text(left)
        else:
            (tmp_path / NAME).unlink(missing_ok=True)
        taken: list[str] = []
        marks = [mark(tmp_path, name) for name in ("one", "other")]

        def take(name: str, one: HostMark, taken: list[str] = taken) -> None:
            if one.take():
                one.hold()
                taken.append(name)

        threads = [
            threading.Thread(target=take, args=pair) for pair in zip(("one", "other"), marks, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in marks:
            one.close(last=False)
        assert len(taken) == 1
        assert (tmp_path / NAME).read_text() == taken[0]


def test_a_mark_that_a_full_disk_left_empty_is_written_again(tmp_path: Path) -> None:
    """It is nobody's, and names its host at the next beat."""
    first = mark(tmp_path, "one")
    assert first.take()
    first.hold()
    (tmp_path / NAME).write_text("")
    eventually(lambda: (tmp_path / NAME).read_text() == "one")
    first.check()
    first.close(last=False)
