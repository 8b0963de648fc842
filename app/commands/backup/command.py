"""`gateway backup`: a copy of the video jobs from which another service can continue."""

from __future__ import annotations

import sys
from pathlib import Path

from app.commands.backup.copying import Unsettled, back_up
from app.settings import Settings
from app.state.job_schema import INDEX

_DATABASE = "GATEWAY_JOB_STORE is PostgreSQL: save it with pg_dump (docs/backups.md)"
_STORE = "GATEWAY_JOB_ARTIFACTS: videos and results lie there, and aren't copied"


def backup(target: Path, settings: Settings) -> int:
    """Run the command; answers the exit code."""
    folder = settings.videos_folder
    if settings.job_store != "sqlite":
        return _refuse(_DATABASE, 2)
    if folder is None or not (folder / INDEX).is_file():
        return _refuse(f"GATEWAY_VIDEOS_FOLDER: there are no video jobs in {folder}", 2)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        return _refuse(f"{target} isn't an empty folder", 2)
    elsewhere = settings.job_artifacts is not None
    try:
        jobs, nbytes = back_up(folder, target, files=not elsewhere)
    except (OSError, Unsettled) as error:
        return _refuse(str(error), 1)
    print(f"{jobs} jobs, {nbytes} bytes of files: {target}")
    if elsewhere:
        print(f"gateway backup: {_STORE}", file=sys.stderr)
    return 0


def _refuse(words: str, code: int) -> int:
    print(f"gateway backup: {words}", file=sys.stderr)
    return code
