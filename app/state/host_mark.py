"""The mark of the one host that uses a folder.

Locks tell workers of one host from each other, and don't reach other hosts. A host is named by the id of its kernel's
boot, which its containers share, whatever their names are. Its mark is touched every 2 s. The mark of another boot is
that of a host that is gone if nobody touches it for 7 s; clocks of hosts are not compared.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from pathlib import Path

from app.errors import VideosUnavailable

NAME = ".host"
_BEAT_S, _WATCH_S, _LOOK_S, _SETTLE_S = 2.0, 7.0, 0.1, 1.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_host() -> str:
    """Return the name of this host until its next boot."""
    with contextlib.suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return platform.node() or "unknown"


class HostMark:
    """See the module; safe to use from many threads.

    Args:
        folder: it exists.
        host: this host.
        beat_s: seconds between two touches.
        watch_s: seconds for which the mark of another host is watched; longer than `beat_s`.
    """

    def __init__(
        self, folder: Path, host: str | None = None, beat_s: float = _BEAT_S, watch_s: float = _WATCH_S
    ) -> None:
        self._path = folder / NAME
        self._host = host or this_host()
        self._beat_s, self._watch_s = beat_s, watch_s
        self._touched = time.monotonic()
        self._lost = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def in_use(self) -> str:
        """The sentence for a folder that another host uses."""
        return (
            f"{self._path.parent} is used by a gateway on another host: give each host a folder of its own, or let "
            "them share GATEWAY_JOB_STORE=postgresql://… (docs/replicas.md)"
        )

    def take(self) -> bool:
        """Mark the folder as this host's; False if another host uses it. Lasts `watch_s` where a host's mark is left.

        Raises:
            OSError: the mark can't be read or written.
        """
        if self._create():
            return True
        if self._read() == self._host:
            self._touch()
            return True
        if self._is_touched():
            return self._read() == self._host  # another worker of this host was about to write it
        self._write()
        time.sleep(_SETTLE_S)  # another host may have waited for the same
        return self._read() == self._host

    def hold(self) -> None:
        """Touch the mark from now on, until `close`."""
        self._thread = threading.Thread(target=self._beat, name="host-mark", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that the mark is this host's; costs nothing while the mark is being touched in time.

        Raises:
            VideosUnavailable: another host has taken the folder.
        """
        if (
            not self._lost and time.monotonic() - self._touched > self._watch_s / 2
        ):  # this process was suspended
            self._renew()
        if self._lost:
            raise VideosUnavailable(self.in_use)

    def close(self, *, last: bool) -> None:
        """Stop touching the mark; the last worker of this host removes it, so that the next host needn't wait."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            if last and self._read() == self._host:
                self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._closing.wait(self._beat_s):
            self._renew()

    def _renew(self) -> None:
        """Touch the mark where it is this host's, or is missing."""
        with contextlib.suppress(OSError):  # a full disk, no descriptor: it passes
            text = self._host if self._create() else self._read()
            if text == "":  # the disk was full, or another worker is about to write it
                self._write()
            elif text not in (None, self._host):
                self._lost = True
                return
            self._touch()

    def _touch(self) -> None:
        os.utime(self._path)
        self._touched = time.monotonic()

    def _read(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None

    def _create(self) -> bool:
        """Write the mark if there is none; return False if there is one."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self._host)
        except OSError:  # a full disk
            self._path.unlink(missing_ok=True)
            raise
        return True

    def _write(self) -> None:
        new = self._path.with_name(f"{NAME}.{uuid.uuid4().hex}")
        try:
            new.write_text(self._host, encoding="utf-8")
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)

    def _is_touched(self) -> bool:
        """Watch a mark; True as soon as somebody touches it."""
        before, limit = self._seen(), time.monotonic() + self._watch_s
        while time.monotonic() < limit:
            time.sleep(_LOOK_S)
            if self._seen() != before:
                return True
        return False

    def _seen(self) -> tuple[str | None, int]:
        """Return what changes when the mark is touched or replaced; opening it asks a file server again."""
        text = self._read()
        try:
            return text, self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return text, 0
