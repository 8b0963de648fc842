"""Versions of stores: any minor version works, another major version is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from app.errors import VideosUnavailable
from app.state.jobs import Job, JobIndex
from app.state.schema_version import JOBS, SchemaVersion


def test_versions_survive_as_one_number() -> None:
    """And later ones are greater; a store without a number is 1.0."""
    versions = [SchemaVersion(1, 0), SchemaVersion(1, 7), SchemaVersion(2, 0), SchemaVersion(2, 3)]
    assert [SchemaVersion.of(version.number) for version in versions] == versions
    assert sorted(versions, key=lambda version: version.number) == versions
    assert SchemaVersion.of(0) == SchemaVersion(1, 0)


@pytest.mark.parametrize("minor", [0, 1, 9])
def test_any_minor_version_is_used(minor: int) -> None:
    assert SchemaVersion(2, 1).fault(SchemaVersion(2, minor)) is None


@pytest.mark.parametrize(("found", "words"), [((3, 0), "newer release"), ((1, 9), "one release at a time")])
def test_another_major_version_is_refused(found: tuple[int, int], words: str) -> None:
    assert words in str(SchemaVersion(2, 1).fault(SchemaVersion(*found)))


def _version(folder: Path, number: int | None = None) -> int:
    connection = sqlite3.connect(folder / "jobs.sqlite3")
    if number is not None:
        connection.execute(f"PRAGMA user_version = {number}")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def test_the_index_of_the_jobs_has_its_version(tmp_path: Path) -> None:
    JobIndex.in_folder(tmp_path).close()
    assert SchemaVersion.of(_version(tmp_path)) == JOBS


def test_a_newer_minor_version_of_the_index_works_and_stays(tmp_path: Path) -> None:
    """With a column that this release doesn't know."""
    JobIndex.in_folder(tmp_path).close()
    newer = SchemaVersion(JOBS.major, JOBS.minor + 1).number
    _version(tmp_path, newer)
    connection = sqlite3.connect(tmp_path / "jobs.sqlite3")
    connection.execute("ALTER TABLE jobs ADD COLUMN later TEXT NOT NULL DEFAULT 'x'")
    connection.close()
    index = JobIndex.in_folder(tmp_path)
    assert index.add(Job("a", "queued", "v", "p", 1, "00", 0.0), 9)
    assert index.claim(1.0) is not None
    index.close()
    assert _version(tmp_path) == newer


def test_a_newer_major_version_of_the_index_is_refused(tmp_path: Path) -> None:
    """Nothing of it is changed."""
    JobIndex.in_folder(tmp_path).close()
    newer = SchemaVersion(JOBS.major + 1, 0)
    _version(tmp_path, newer.number)
    with pytest.raises(VideosUnavailable, match=str(newer)):
        JobIndex.in_folder(tmp_path)
    assert _version(tmp_path) == newer.number
    assert list((tmp_path / ".owners").iterdir()) == []
