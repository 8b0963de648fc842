"""Takes away what only Linux has, in any Python that finds this file on its path: as close to a Mac as Linux gets.

Python imports it at its start; the decoder's process, which imports no such file, is given it on its command line.
Answers of this file to what isn't there are those of the real systems: AttributeError, FileNotFoundError, an errno.
"""

import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys

_NAMES = {
    os: (
        "memfd_create eventfd eventfd_read eventfd_write sched_getaffinity sched_setaffinity splice posix_fadvise "
        "posix_fallocate copy_file_range pidfd_open waitid P_PID P_PIDFD getrandom setns unshare getxattr O_TMPFILE "
        "timerfd_create O_PATH MFD_CLOEXEC MFD_ALLOW_SEALING"
    ),
    select: "epoll EPOLLIN EPOLLOUT",
    signal: "pidfd_send_signal sigtimedwait sigwaitinfo SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT",
    resource: "prlimit RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_SIGPENDING RLIMIT_OFILE",
    fcntl: "F_ADD_SEALS F_GET_SEALS F_SEAL_SHRINK F_SEAL_GROW F_SEAL_WRITE F_OFD_SETLK F_SETPIPE_SZ F_NOTIFY",
    socket: (
        "TCP_INFO TCP_USER_TIMEOUT TCP_QUICKACK TCP_CORK TCP_DEFER_ACCEPT SO_PEERCRED SO_BINDTODEVICE SO_MARK "
        "SO_DOMAIN SO_PROTOCOL SO_PASSCRED AF_NETLINK AF_PACKET MSG_MORE MSG_CMSG_CLOEXEC SOCK_CLOEXEC SOCK_NONBLOCK"
    ),
    mmap: "MAP_POPULATE MAP_STACK MADV_HUGEPAGE MADV_DONTFORK MADV_REMOVE",
}
for _module, _names in _NAMES.items():
    for _name in _names.split():
        if hasattr(_module, _name):
            delattr(_module, _name)

_PLACES = ("/proc", "/sys", "/dev/shm")
_FUNCTIONS = {"prctl", "mallopt", "malloc_trim", "memfd_create", "gettid", "sched_getaffinity"}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"open", "os.scandir", "os.listdir", "os.mkdir"}:
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if path.startswith(_PLACES):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    elif event == "ctypes.dlsym" and arguments[1] in _FUNCTIONS:
        raise AttributeError(arguments[1])


_limit, _pair, _Popen = resource.setrlimit, socket.socketpair, subprocess.Popen


def _setrlimit(what: int, limits: tuple[int, int]) -> None:
    if what == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")  # macOS, of most values
    _limit(what, limits)


def _socketpair(family=socket.AF_UNIX, kind=socket.SOCK_STREAM, protocol=0):
    if kind == socket.SOCK_SEQPACKET:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    return _pair(family, kind, protocol)


class _Process(_Popen):
    """Starts the decoder, which reads neither PYTHONPATH nor this file, without the same things."""

    def __init__(self, command, *others, **named):
        with open(__file__, encoding="utf-8") as file:  # noqa: PTH123  # pathlib would cost every process its import
            here = f"exec(compile({file.read()!r}, {__file__!r}, 'exec'), {{'__file__': {__file__!r}}})\n"
        if not isinstance(command, str):
            command = [here + one if "video.process" in str(one) else one for one in command]
        super().__init__(command, *others, **named)


resource.setrlimit, socket.socketpair, subprocess.Popen = _setrlimit, _socketpair, _Process
sys.addaudithook(_audit)
