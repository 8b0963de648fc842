"""Map the folders of the repository into a wheel; the rest is in pyproject.toml. docs/install.md gives the reasons.

A wheel has one top-level package. `app`, `routing` and `export` lie in its folder `_code`, files that the program reads
from the checkout in `_data`. An editable install leaves everything where it is.
"""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
NAME = "triton_vision_gateway"
ROOMS = ("app", "routing", "export")
# What of these is no Python: the catalogue, labels, the vocabulary of CLIP, the pages, Swagger UI with its licence.
SUFFIXES = (
    "py.typed",
    "*.toml",
    "*.txt",
    "*.gz",
    "*.html",
    "*.css",
    "*.js",
    "*.svg",
    "*.md",
    "LICENSE",
    "NOTICE",
)
DATA = {
    "profiles": ("*.yaml", "prompts/*.txt"),
    "triton/models": ("*/config.pbtxt",),
    "docs": ("astronaut.jpg",),
}


def layout() -> dict[str, object]:
    """The packages of a wheel, their folders and files; without rooms that aren't there (the image has no `export`)."""
    folders = {NAME: NAME}
    files = {NAME: ["py.typed"]}
    for room in ROOMS:
        for package in find_packages(str(ROOT), include=[room, f"{room}.*"]):
            folders[f"{NAME}._code.{package}"] = package.replace(".", "/")
        files[f"{NAME}._code.{room}"] = [f"**/{suffix}" for suffix in SUFFIXES]
    for folder, patterns in DATA.items():
        if (ROOT / folder).is_dir():
            package = f"{NAME}._data.{folder.replace('/', '.')}"
            folders[package], files[package] = folder, list(patterns)
    return {"packages": list(folders), "package_dir": folders, "package_data": files}


class BuildPy(build_py):
    """Folders of data have no modules, whatever scripts lie in them."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        if package.startswith(f"{NAME}._data"):
            return []
        found: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return found


class Sdist(sdist):
    """An archive that has the same bytes each time, where SOURCE_DATE_EPOCH says what time it is."""

    def make_archive(self, base_name: str, format: str, *args: object, **options: object) -> str:  # noqa: A002
        archive: str = super().make_archive(base_name, format, *args, **options)
        if format == "gztar" and (epoch := os.environ.get("SOURCE_DATE_EPOCH")):
            _repack(Path(archive), int(epoch))
        return archive


def _repack(archive: Path, epoch: int) -> None:
    """Write the members again: in order, of nobody, with one time and one mode each for files and folders."""
    with tarfile.open(archive) as old:
        members = [(member, old.extractfile(member)) for member in sorted(old, key=lambda m: m.name)]
        fresh = archive.with_suffix(".tmp")
        with (
            fresh.open("wb") as file,
            gzip.GzipFile("", "wb", mtime=epoch, fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
        ):
            for member, content in members:
                member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
                member.mode = 0o755 if member.isdir() else 0o644
                member.pax_headers = {}
                new.addfile(member, content)
    fresh.replace(archive)


EDITABLE = {
    "packages": find_packages(
        str(ROOT), include=[f"{name}{rest}" for name in (NAME, *ROOMS) for rest in ("", ".*")]
    )
}

setup(
    **(EDITABLE if "editable_wheel" in sys.argv else layout()),
    include_package_data=False,
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
)
