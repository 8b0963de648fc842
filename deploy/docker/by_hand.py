"""The image without Docker: carries out the Dockerfile's own lines in clean folders, and runs what comes out.

    sudo python deploy/docker/by_hand.py build OUT [--build-arg NAME=VALUE]
    sudo python deploy/docker/by_hand.py run OUT [--env NAME=VALUE] [--volume HOST:INSIDE[:ro]] [-- COMMAND…]

Linux and root only (mount namespaces, overlayfs). The base image is this host's root file system, with its Python at
/usr/local, under a clean layer and with this project hidden: the lines are tried, not Debian's slim image. `run` is
`docker run --read-only --tmpfs /tmp`: everything is read-only but the volumes; the image's user, variables, folder,
entry point and command, as process 1. An instruction that isn't known here is an error: nothing is passed over.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"\$\{(\w+)\}|\$(\w+)")
# A build sees nothing of this host's environment but where pip finds its packages.
_KEPT = ("PIP_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "http_", "https_", "no_proxy")
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """A build stage: the lines since one FROM; its files are in `OUT/<name>`."""

    name: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        """`$NAME` and `${NAME}` replaced, as Docker does outside of RUN."""
        known = {**self.arguments, **self.environment}
        return _NAME.sub(lambda match: known.get(match[1] or match[2], ""), text)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Every (INSTRUCTION, rest) of a Dockerfile: without comments, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", " ", lines).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


class Builder:
    """Carries instructions out, one after another."""

    def __init__(self, out: Path, arguments: dict[str, str]) -> None:
        self.stage = Stage()
        self._out = out
        self._given = arguments
        self._before: dict[str, str] = {}
        self._ignored = _patterns((ROOT / ".dockerignore").read_text(encoding="utf-8"))

    def do(self, word: str, rest: str) -> None:
        """Carry one out.

        Raises:
            KeyError: it isn't known here.
        """
        print(f"{word} {rest[:100]}", flush=True)
        instructions: dict[str, Callable[[str], object]] = {
            "FROM": self._from, "ARG": self._arg, "ENV": self._env, "LABEL": self._label, "WORKDIR": self._workdir,
            "RUN": self._run, "COPY": self._copy, "USER": self._user, "VOLUME": self._volume,
            "EXPOSE": int, "HEALTHCHECK": self._healthcheck, "ENTRYPOINT": self._entrypoint,
            "CMD": self._cmd,
        }  # fmt: skip
        instructions[word](rest)

    def _from(self, rest: str) -> None:
        image, _, name = rest.partition(" AS ")
        if image != "${PYTHON_IMAGE}":
            raise KeyError(f"only Python's image has a stand-in here, not {image}")
        self.stage = Stage(name)
        (self._out / name).mkdir(parents=True)
        self._run("ldconfig")  # Python's image has its libpython in the loader's cache: so must the stand-in

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        value = self._given.get(name, self._before.get(name, default))
        (self.stage.arguments if self.stage.name else self._before)[name] = value

    def _env(self, rest: str) -> None:
        self.stage.environment |= _assignments(self.stage.expand(rest))

    def _label(self, rest: str) -> None:
        _assignments(rest)

    def _workdir(self, rest: str) -> None:
        self.stage.folder = rest
        self._inside(rest).mkdir(parents=True, exist_ok=True)

    def _user(self, rest: str) -> None:
        self.stage.user = rest

    def _volume(self, rest: str) -> None:
        self.stage.volumes += json.loads(rest)

    def _healthcheck(self, rest: str) -> None:
        self.stage.healthcheck = json.loads(rest.partition("CMD ")[2])

    def _entrypoint(self, rest: str) -> None:
        self.stage.entrypoint = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.stage.command = json.loads(rest)

    def _run(self, rest: str) -> None:
        stage = self.stage
        kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        environment = {"PATH": _PATH, "HOME": "/root", **kept, **stage.arguments, **stage.environment}
        root = mount(self._out, stage.name, writable=True)
        try:
            subprocess.run(enter(root, stage.folder, environment, ["sh", "-ec", rest]), check=True)
        finally:
            subprocess.run(["umount", "-R", root], check=True)

    def _copy(self, rest: str) -> None:
        words = shlex.split(self.stage.expand(rest))
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        to = self._inside(os.path.join(self.stage.folder, target))  # noqa: PTH118  # an absolute target stands alone
        for source in sources:
            if "from" in options:
                whole = self._out / options["from"] / source.lstrip("/")
            else:
                whole = ROOT / source
                if self._is_ignored(source):
                    raise KeyError(f".dockerignore keeps {source} out")
            folder = target.endswith("/") and whole.is_file()
            self._copy_one(whole, to / whole.name if folder else to, context="from" not in options)
        if "chown" in options:
            subprocess.run(["chown", "-R", options["chown"], to], check=True)

    def _copy_one(self, source: Path, target: Path, *, context: bool) -> None:
        def left_out(folder: str, names: list[str]) -> set[str]:
            here = Path(folder).relative_to(ROOT) if context else Path()
            return {name for name in names if context and self._is_ignored((here / name).as_posix())}

        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copy2(source, target)
        else:
            shutil.copytree(source, target, symlinks=True, ignore=left_out, dirs_exist_ok=True)

    def _inside(self, path: str) -> Path:
        return self._out / self.stage.name / path.lstrip("/")

    def _is_ignored(self, path: str) -> bool:
        """Decide as Docker does: the last pattern that matches the path, or a folder above it, wins."""
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        ignored = False
        for pattern, keeps in self._ignored:
            if any(pattern.fullmatch(part) for part in above):
                ignored = not keeps
        return ignored


def _patterns(text: str) -> list[tuple[re.Pattern[str], bool]]:
    """Return the rules of a .dockerignore: (pattern, whether it keeps). `*` stays within one folder, `**/` is any
    folders or none.
    """
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            parts = [
                fnmatch.translate(part)[4:-3] for part in line.lstrip("!").replace("**/", "\0").split("*")
            ]
            expression = "[^/]*".join(parts).replace("\0", "(?:.*/)?").replace("\\\0", "(?:.*/)?")
            found.append((re.compile(expression), line.startswith("!")))
    return found


def _assignments(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(text))


def mount(out: Path, name: str, *, writable: bool) -> Path:
    """A root file system: this host's below the stage's files, its Python at /usr/local, the project hidden."""
    root = out / "root"
    root.mkdir(exist_ok=True)
    _overlay(Path("/"), out / name, root, writable=writable)
    local = out / f"{name}.local"
    (local / "bin").mkdir(parents=True, exist_ok=True)
    if not (Path(sys.base_prefix) / "bin" / "python").exists():
        (local / "bin" / "python").symlink_to("python3")
    _overlay(Path(sys.base_prefix), local, root / "usr" / "local", writable=writable)
    for shared in ("proc", "dev"):
        subprocess.run(["mount", "--rbind", f"/{shared}", root / shared], check=True)
    for empty in (root / "tmp", root / str(ROOT).lstrip("/")):
        if empty.is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", empty], check=True)
    return root


def _overlay(below: Path, layer: Path, at: Path, *, writable: bool) -> None:
    work = layer.with_name(f"{layer.name}.work")
    work.mkdir(exist_ok=True)
    options = f"{'rw' if writable else 'ro'},lowerdir={below},upperdir={layer},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, at], check=True)


def enter(
    root: Path, folder: str, environment: dict[str, str], command: list[str], user: str = "0:0"
) -> list[str]:
    """The command line that runs `command` in there, with these variables and no others."""
    pairs = [f"{name}={value}" for name, value in environment.items()]
    uid, _, gid = user.partition(":")
    # As the last step: a change of the user would clear what ends the command with its parent.
    become = [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--no-new-privs",
        "--pdeathsig=KILL",
    ]
    return ["chroot", str(root), "env", "-i", "-C", folder, *pairs, *(become if uid != "0" else []), *command]


def build(out: Path, arguments: dict[str, str]) -> int:
    """Every line of the Dockerfile; the last stage is the image."""
    builder = Builder(out, arguments)
    for word, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        builder.do(word, rest)
    (out / "image.json").write_text(json.dumps(asdict(builder.stage)), encoding="utf-8")
    return 0


def run(out: Path, environment: dict[str, str], volumes: list[str], command: list[str]) -> int:
    """Become the container; only returns when it can't."""
    image = Stage(**json.loads((out / "image.json").read_text(encoding="utf-8")))
    root = mount(out, image.name, writable=False)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    named = [volume.split(":")[1] for volume in volumes]
    for path in image.volumes:  # one without a name begins with what the image has there
        if path not in named:
            fresh = out / "volumes" / path.strip("/").replace("/", "-")
            fresh.parent.mkdir(exist_ok=True)
            if not fresh.exists():
                subprocess.run(["cp", "-a", f"{out / image.name}{path}", fresh], check=True)
            volumes = [*volumes, f"{fresh}:{path}"]
    for volume in volumes:
        host, inside, *mode = volume.split(":")
        subprocess.run(["mount", "--bind", host, f"{root}{inside}"], check=True)
        if mode == ["ro"]:
            subprocess.run(["mount", "-o", "remount,bind,ro", f"{root}{inside}"], check=True)
    called = [*image.entrypoint, *(command or image.command)]
    line = enter(root, image.folder, image.environment | environment, called, image.user)
    os.execvp(line[0], line)  # noqa: S606  # this process becomes the container


def main() -> int:
    """Build or run; both first move into mount namespaces of their own, so that nothing stays mounted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--unshared", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("action", choices=("build", "run"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--volume", action="append", default=[], metavar="HOST:INSIDE[:ro]")
    before, mark, after = _split(sys.argv[1:])
    given = parser.parse_args(before)
    if not given.unshared:
        spaces = ["--mount", "--propagation", "private"]
        if given.action == "run":
            spaces += ["--pid", "--fork", "--kill-child"]
        line = ["unshare", *spaces, sys.executable, __file__, "--unshared", *before, *mark, *after]
        os.execvp(line[0], line)  # noqa: S606  # this process again, in namespaces of its own
    out = given.out.resolve()
    if given.action == "build":
        return build(out, dict(pair.split("=", 1) for pair in given.build_arg))
    return run(out, dict(pair.split("=", 1) for pair in given.env), given.volume, after)


def _split(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


if __name__ == "__main__":
    sys.exit(main())
