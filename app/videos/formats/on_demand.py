"""Files of a finished job that are made when somebody asks for them: those that need no video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.media.video.reader import VideoLimits
from app.videos.formats.base import Finished, Format, kinds_of
from app.videos.formats.derived import FORMATS
from app.videos.profile import Profile
from app.videos.stores.base import ArtifactStore


def finished_job(output: ArtifactStore, manifest: Mapping[str, Any], profile: Profile) -> Finished:
    """Return a finished job, whose video is gone."""
    return Finished(output, manifest, kinds_of(profile), None, profile.sampling, VideoLimits())


def offered(finished: Finished) -> dict[str, Format]:
    """Return the files that can be made, by name, with the format of each."""
    forms = [form for form in FORMATS.values() if not form.needs_video and form.available()]
    return {name: form for form in forms for name in form.files(finished)}


def make(finished: Finished, name: str, form: Format) -> None:
    """Make the files of a format unless this one is there.

    Raises:
        OSError: they can't be written.
    """
    if finished.output.size(name) is None:
        form.make(finished)
