"""Files of a finished job that are made when somebody asks for them: those that need no video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.media.video.reader import VideoLimits
from app.videos.components.base import Component
from app.videos.formats.base import Finished, Format
from app.videos.formats.derived import FORMATS
from app.videos.profile import Profile


def finished_job(output: Path, manifest: Mapping[str, Any], profile: Profile) -> Finished:
    """Return a finished job, whose video is gone."""
    kinds = [kind for kind, _ in profile.components.given()]
    components = {kind.name: kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Component)}
    return Finished(output, manifest, components, None, profile.sampling, VideoLimits())


def offered(finished: Finished) -> dict[str, Format]:
    """Return the files that can be made, by name, with the format of each."""
    forms = [form for form in FORMATS.values() if not form.needs_video and form.available()]
    return {name: form for form in forms for name in form.files(finished)}


def made(finished: Finished, name: str, form: Format) -> Path:
    """Make the files of a format unless this one is there.

    Raises:
        OSError: they can't be written.
    """
    path = finished.output / name
    if not path.is_file():
        form.make(finished)
    return path
