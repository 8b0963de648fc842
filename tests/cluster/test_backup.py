"""The commands of docs/backups.md for PostgreSQL: a dump while jobs run, and an empty database that continues."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.databases.indexes import in_postgres
from support.databases.postgres import PostgresServer, program

from app.state.jobs import Job


def _run(name: str, *arguments: str) -> None:
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dump_of_the_database_is_continued(tmp_path: Path) -> None:
    """Finished, running and waiting jobs and the keys of submissions are there; what ran is claimed again."""
    with PostgresServer() as server:
        url, empty = server.database(), server.database()
        index = in_postgres(url)
        held = index.keys.hold("camera", "k", 0.0, 1e12)
        for number, name in enumerate("abc"):
            index.add(Job(name * 32, "queued", name, "p", 1, "00", float(number), made_by="camera"), 99)
        waiting = Job(held.job_id, "queued", "d", "p", 1, "00", 9.0, made_by="camera")
        assert index.add(waiting, 99, "https://hooks.example.com/d", digest="d")
        claimed = [index.claim(10.0) for _ in range(2)]
        assert [job.id if job else None for job in claimed] == ["a" * 32, "b" * 32]
        dump = str(tmp_path / "jobs.dump")
        _run("pg_dump", "--format=custom", f"--file={dump}", url)
        index.mark_deleted("c" * 32)  # after the copy
        index.close()
        _run("pg_restore", "--no-owner", f"--dbname={empty}", dump)
        restored = in_postgres(empty, lease_s=600.0)
        assert {job.id: job.state for job in restored.newest(99)} == {
            held.job_id: "queued", "c" * 32: "queued", "b" * 32: "running", "a" * 32: "running",
        }  # fmt: skip
        assert restored.keys.hold("camera", "k", 0.0, 1e12).job_id == held.job_id
        callback = restored.callbacks.get(held.job_id)
        assert callback is not None
        assert callback.url == "https://hooks.example.com/d"
        taken = restored.claim(20.0)
        assert taken is not None
        restored.close()
