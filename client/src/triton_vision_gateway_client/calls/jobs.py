"""Calls about video jobs."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from triton_vision_gateway_client.answers.decode import decode
from triton_vision_gateway_client.answers.jobs import Job, JobEvent, JobPage, JobRow
from triton_vision_gateway_client.calls.base import (
    JSON,
    Call,
    Raw,
    Received,
    Request,
    Streamed,
    query_of,
    timeout_in,
)
from triton_vision_gateway_client.calls.frames import Options
from triton_vision_gateway_client.errors import GatewayError, NotFound, UnexpectedAnswer
from triton_vision_gateway_client.lines import ServerEvent
from triton_vision_gateway_client.media import Upload, VideoLike

ProfileLike: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A profile: its name in the service, YAML text, the path of a YAML file, or a dictionary."""
JOBS = "/v1/videos"
_LONGEST_KEY = 255
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def submit(
    video: VideoLike,
    profile: ProfileLike,
    name: str | None,
    callback_url: str | None,
    key: str | None,
    options: Options,
) -> Call[Job]:
    """Build the call for a new job."""
    upload = Upload(video)
    text = _profile_text(profile)
    known = _NAME.fullmatch(text) is not None
    request = Request(
        method="POST",
        path=JOBS,
        query=query_of(
            {}, profile=text if known else None, name=name or upload.name, callback_url=callback_url
        ),
        body=Streamed(upload, {} if known else {"profile": text}),
        timeout=timeout_in(options),
        headers=_key_header(key),
        open_ended=True,
    )
    return Call(request=request, parse=_job)


def submit_source(
    source: str,
    profile: ProfileLike,
    name: str | None,
    callback_url: str | None,
    key: str | None,
    options: Options,
) -> Call[Job]:
    """Build the call for a job whose video the service fetches."""
    given = {"source": source, "profile": _profile_text(profile), "name": name, "callback_url": callback_url}
    body = json.dumps({key: value for key, value in given.items() if value is not None}).encode()
    request = Request(
        method="POST",
        path=JOBS,
        body=Raw(body, JSON),
        timeout=timeout_in(options),
        headers=_key_header(key),
    )
    return Call(request=request, parse=_job)


def _key_header(key: str | None) -> dict[str, str]:
    """Return the header by which the service knows a retry: with the caller's key, or else one of this call alone.

    Raises:
        ValueError: the key isn't 1 to 255 printable ASCII characters.
    """
    key = str(uuid.uuid4()) if key is None else key
    if not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise ValueError(
            f"idempotency_key is 1 to {_LONGEST_KEY} printable ASCII characters, not {key[:300]!r}"
        )
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return {"Idempotency-Key": f'"{escaped}"'}


def _profile_text(profile: ProfileLike) -> str:
    if isinstance(profile, Mapping):
        return json.dumps(dict(profile))  # JSON is YAML
    if isinstance(profile, os.PathLike):
        return Path(profile).read_text(encoding="utf-8")
    return profile


def get(job_id: str, options: Options) -> Call[Job]:
    """Build the call for a job's state."""
    request = Request(method="GET", path=path_of(job_id), timeout=timeout_in(options))
    return Call(request=request, parse=_job)


def listing(
    limit: int, state: str | Sequence[str] | None, after: str | None, options: Options
) -> Call[JobPage]:
    """Build the call for a page of the jobs."""
    query = query_of({}, limit=limit, state=state, after=after)
    return Call(
        request=Request(method="GET", path=JOBS, query=query, timeout=timeout_in(options)), parse=_page
    )


def _page(received: Received) -> JobPage:
    document = received.object()
    if not isinstance(document.get("videos"), list):
        raise UnexpectedAnswer("the answer is no list of jobs", received.status)
    return JobPage([decode(JobRow, row) for row in document["videos"]], document.get("next"))


def delete(job_id: str, options: Options) -> Call[None]:
    """Build the call that stops and removes a job."""
    request = Request(method="DELETE", path=path_of(job_id), timeout=timeout_in(options), gone_is_done=True)
    return Call(request=request, parse=lambda _: None)


def artifact(job_id: str, name: str, options: Options) -> Request:
    """Build the request for a file of the job's results."""
    return Request(
        method="GET",
        path=f"{path_of(job_id)}/artifacts/{quote(name)}",
        accept="*/*",
        timeout=timeout_in(options),
        open_ended=True,
    )


def events(job_id: str, options: Options) -> Request:
    """Build the request for a job's events."""
    return Request(
        method="GET",
        path=f"{path_of(job_id)}/events",
        accept="text/event-stream",
        timeout=timeout_in(options),
        open_ended=True,
    )


def path_of(job_id: str) -> str:
    """Return the path of a job."""
    return f"{JOBS}/{quote(job_id, safe='')}"


def event_of(event: ServerEvent) -> JobEvent:
    """Read an event."""
    if event.event == "removed":
        return JobEvent(event=event.event)
    try:
        document = json.loads(event.data)
    except ValueError as error:
        raise UnexpectedAnswer("an event is no JSON") from error
    return JobEvent(event=event.event, job=decode(Job, document))


def removed(job_id: str) -> GatewayError:
    """Return the exception for a job that somebody has removed."""
    return NotFound(f"job {job_id} has been removed", code="video_not_found", status=404)


def arrays_of(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file.

    Raises:
        UnexpectedAnswer: it is none, or would need pickle.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError) as error:
        raise UnexpectedAnswer("the artefact is no npz file") from error


def place_in(folder: Path, name: str) -> Path:
    """Return where an artefact goes below a folder.

    Raises:
        UnexpectedAnswer: its name leads out of it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or ":" in name:
        raise UnexpectedAnswer(f"the artefact's name {name!r} is no path below a folder")
    return folder.joinpath(*path.parts)


def _job(received: Received) -> Job:
    return decode(Job, received.json())
