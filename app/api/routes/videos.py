"""`/v1/videos`: a whole video through a profile; progress, artefacts, removal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import videos as openapi
from app.api.request.file_names import clean_name, file_name
from app.api.request.headers import headers_of, length_of
from app.api.request.requests import deadline_of, timeout_of
from app.api.request.uploads import Upload, named_file, read_upload
from app.api.response.answers import JSON, fresh_json
from app.api.response.files import OpenedFile
from app.api.routes.video_sources import is_json, source_of
from app.api.server.access import caller_of
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import InvalidParameter, UnsupportedMediaType, VideoNotFound, VideosUnavailable
from app.media.containers import sniff_container
from app.outgoing import LONGEST_URL
from app.settings import environment
from app.state.jobs import Job
from app.state.moments import moment_text
from app.videos import profile_documents
from app.videos.jobs import VideoJobs
from app.videos.profile import Profile
from app.videos.sources.routes import name_of

router = APIRouter(tags=["videos"], route_class=DirectRoute)
Parts = Annotated[Gateway, Depends(gateway_of)]
VideoId = Annotated[str, PathParameter(description="Id that `POST /v1/videos` returned.", alias="id")]
_PARQUET = "application/vnd.apache.parquet"
_TYPES = {".npz": "application/zip", ".json": JSON, ".parquet": _PARQUET, ".mp4": "video/mp4"}
_LOOK_S = 0.3
_NAME_BYTES = 1000
_SEND_A_VIDEO = (
    "Send one complete MP4, MOV, Matroska, WebM or AVI file; the type is detected from the content. "
    'Or send JSON: {"source": "https://…", "profile": "…"}.'
)


class VideoQuery(BaseModel):
    """Query parameters of `POST /v1/videos`; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    profile: str | None = Field(
        None,
        description="Name of one of the service's profiles; a multipart part `profile` takes a name or a YAML profile.",
        examples=["baseline_gpu_local"],
    )
    name: str | None = Field(None, max_length=200, description="Name of the video in its manifest.")
    callback_url: str | None = Field(
        None,
        max_length=LONGEST_URL,
        description="URL that receives a signed POST when the job is over; its host must be in GATEWAY_WEBHOOK_HOSTS. "
        "A multipart part `callback_url` is the same.",
        examples=["https://hooks.example.com/videos"],
    )


class ListQuery(BaseModel):
    """Query parameters of `GET /v1/videos`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Most videos in the list, newest first.")


@router.post("/v1/videos", status_code=202, summary="A video as a job", **openapi.SUBMIT)
async def submit(request: Request, query: Annotated[VideoQuery, Query()], gateway: Parts) -> Response:
    """Raw body or multipart `file`; runs through a profile of components, and leaves artefacts (npz) and a manifest.

    Answered as soon as the video is kept and its container, its profile and its branches have been looked at. With a
    JSON body, the service fetches the video from `source` after its answer.
    """
    jobs, settings, caller = _jobs(gateway), gateway.settings, caller_of(request)
    length = length_of(headers_of(request.scope).get(b"content-length"))
    with _stored():
        await gateway.work(lambda: jobs.admit(int(length) if length < math.inf else 0))
    if query.callback_url is not None:  # before the video is read, which may take long
        await _check_callback(jobs, query.callback_url)
    deadline = Deadline.after(timeout_of(request, settings.video_timeout_s))
    upload = await read_upload(
        request,
        settings,
        deadline_of(request, settings),
        deadline,
        {"file": 1, "profile": 1, "name": 1, "callback_url": 1},
        lambda: named_file(jobs.incoming, jobs.admit),
    )
    if is_json(upload):
        job = await _from_source(upload, query, gateway, caller.name)
    else:
        job = await _from_upload(upload, query, gateway, caller.name)
    location = f"/v1/videos/{job.id}"
    return fresh_json(await _view(jobs, job.id), 202, {"Location": location})


async def _from_upload(upload: Upload, query: VideoQuery, gateway: Gateway, made_by: str | None) -> Job:
    """Make the job of a video that was sent."""
    jobs, video = _jobs(gateway), upload.video
    if video is None:
        for head in upload.parts.get("file", ()):
            if head:
                sniff_container(head[:4096])  # says what it is instead
        raise UnsupportedMediaType("the body is no MP4, MOV, Matroska, WebM or AVI video", hint=_SEND_A_VIDEO)
    try:
        with _stored():
            profile = await gateway.work(lambda: _profile(upload, query, gateway))
            name = _name(upload, query, video.name)
            callback_url = await _callback_url(upload, query, jobs)
            await gateway.work(lambda: jobs.check(video.file, profile))
            return await gateway.work(
                lambda: jobs.submit(
                    video.file, name, video.nbytes, video.sha256, profile, made_by, callback_url
                )
            )
    finally:
        with contextlib.suppress(OSError):  # what is buffered finds no room
            video.file.close()
        await asyncio.to_thread(Path(video.file.name).unlink, missing_ok=True)


async def _from_source(upload: Upload, query: VideoQuery, gateway: Gateway, made_by: str | None) -> Job:
    """Make the job of a video that is fetched."""
    jobs = _jobs(gateway)
    url, body = await gateway.work(lambda: source_of(upload, gateway.settings.max_json_bytes))
    await asyncio.to_thread(jobs.check_source, url)  # as `_check_callback`
    with _stored():
        profile = await gateway.work(lambda: _profile(body, query, gateway))
        name = _name(body, query, name_of(url))
        callback_url = await _callback_url(body, query, jobs)
        return await gateway.work(lambda: jobs.submit_source(url, name, profile, made_by, callback_url))


@router.get("/v1/videos", summary="The newest videos", **openapi.LIST)
async def newest(request: Request, query: Annotated[ListQuery, Query()], gateway: Parts) -> Response:
    """Id, state, name and time of the newest jobs that the caller may see."""
    rows = await asyncio.to_thread(_jobs(gateway).newest, query.limit, caller_of(request).only)
    return fresh_json({"videos": [row | {"created": moment_text(row["created"])} for row in rows]})


@router.get("/v1/videos/{id}", summary="How far a video is", **openapi.GET)
async def get(request: Request, video_id: VideoId, gateway: Parts) -> Response:
    """State (`queued`, `running`, `done`, `failed`), progress, the error if there was one, the manifest once done."""
    return fresh_json(await _view(_jobs(gateway), video_id, caller_of(request).only))


@router.get("/v1/videos/{id}/events", summary="Progress as events", **openapi.EVENTS)
async def events(request: Request, video_id: VideoId, gateway: Parts) -> Response:
    """Server-sent events: `progress` whenever something changes, then one `done`, `failed` or `removed`."""
    jobs = _jobs(gateway)
    await _view(jobs, video_id, caller_of(request).only)
    return EventSourceResponse(_events(jobs, video_id), ping=15)


@router.get("/v1/videos/{id}/artifacts/{name:path}", summary="One artefact", **openapi.ARTIFACT)
async def artifact(request: Request, video_id: VideoId, name: str, gateway: Parts) -> Response:
    """A file that the manifest lists, such as `core_clip/embeddings.npz`, or `manifest.json`.

    `core_object_detections/detections.coco.json`, and with the extra `tables` a `.parquet` beside each `.npz`, are made
    when they are first asked for.
    """
    path = await asyncio.to_thread(_jobs(gateway).artifact, video_id, name, caller_of(request).only)
    filename = f"{video_id[:12]}-{name.replace('/', '-')}"
    kind = _TYPES.get(path.suffix, "application/octet-stream")
    with _stored():
        return await asyncio.to_thread(OpenedFile, path, media_type=kind, filename=filename)


@router.delete("/v1/videos/{id}", status_code=204, summary="Cancel and remove", **openapi.DELETE)
async def delete(request: Request, video_id: VideoId, gateway: Parts) -> Response:
    """The job stops if it runs, and all its files go."""
    await asyncio.to_thread(_jobs(gateway).delete, video_id, caller_of(request).only)
    return Response(status_code=204)


@contextlib.contextmanager
def _stored() -> Iterator[None]:
    """Raise VideosUnavailable for file errors inside: no space, no descriptor, a failing disk."""
    try:
        yield
    except OSError as error:
        raise VideosUnavailable("the files of videos can't be read or written now", retry_after=10) from error


def _jobs(gateway: Gateway) -> VideoJobs:
    if gateway.jobs is None:
        raise VideosUnavailable("this service keeps no videos: GATEWAY_VIDEOS_FOLDER is not set")
    return gateway.jobs


def _text(upload: Upload, name: str, most_bytes: int) -> str | None:
    for part in upload.parts.get(name, ()):
        if len(part) > most_bytes:
            raise InvalidParameter(f"the part {name!r} has {len(part)} bytes; the limit is {most_bytes}")
        try:
            return part.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidParameter(f"the part {name!r} is not UTF-8") from error
    return None


def _profile(upload: Upload, query: VideoQuery, gateway: Gateway) -> Profile:
    settings = gateway.settings
    text = _text(upload, "profile", profile_documents.MAX_BYTES)
    if text is not None and query.profile is not None:
        raise InvalidParameter("profile: given in the query and in the body; send it once")
    asked = text if text is not None else query.profile
    if not asked:
        known = ", ".join(profile_documents.names(settings.profiles_folder)) or "none"
        raise InvalidParameter(f"name a profile (there are {known}), or send one as the part 'profile'")
    if re.fullmatch(r"[A-Za-z0-9._-]+", asked):
        return gateway.profiles.named(settings.profiles_folder, asked, environment(), settings.max_prompts)
    return gateway.profiles.parse(asked, settings.max_prompts)


async def _callback_url(upload: Upload, query: VideoQuery, jobs: VideoJobs) -> str | None:
    """Return the URL of the query, or that of the form once it is checked."""
    text = _text(upload, "callback_url", LONGEST_URL)
    if text is None:
        return query.callback_url
    if query.callback_url is not None:
        raise InvalidParameter("callback_url: given in the query and in the body; send it once")
    await _check_callback(jobs, text)
    return text


async def _check_callback(jobs: VideoJobs, url: str) -> None:
    """Check a URL; a name server that doesn't answer delays no thread of the service's own pool."""
    await asyncio.to_thread(jobs.check_callback, url)


def _name(upload: Upload, query: VideoQuery, file: str | None) -> str:
    """Return the caller's name for the video, or the name of its file."""
    text = _text(upload, "name", _NAME_BYTES)
    if text is not None and query.name is not None:
        raise InvalidParameter("name: given in the query and in the body; send it once")
    asked = query.name if text is None else text
    return clean_name(asked or "") or file_name(file) or "video"


async def _view(jobs: VideoJobs, video_id: str, only: str | None = None) -> dict[str, Any]:
    """Return a job as the API shows it; `only` is the key to whose jobs the caller is limited."""
    view = await asyncio.to_thread(jobs.get, video_id, only)
    for moment in ("created", "started", "finished"):
        view[moment] = moment_text(view[moment])
    if view["callback"] is not None:
        for moment in ("attempted", "next_attempt"):
            view["callback"][moment] = moment_text(view["callback"][moment])
    here = f"/v1/videos/{view['id']}"
    further = view.pop("further")
    view["links"] = {"self": here, "events": f"{here}/events", "artifacts": []}
    if view["manifest"] is not None:
        names = [row["name"] for row in view["manifest"]["artifacts"]]
        view["links"]["artifacts"] = [
            f"{here}/artifacts/{name}" for name in (*names, *further, "manifest.json")
        ]
    return view


async def _events(jobs: VideoJobs, video_id: str) -> AsyncIterator[ServerSentEvent]:
    before = ""
    with contextlib.suppress(VideoNotFound):
        while True:
            try:
                view = await _view(jobs, video_id)
            except VideosUnavailable:  # busy or short of something: what changes is told afterwards
                await asyncio.sleep(_LOOK_S)
                continue
            over = view["state"] in ("done", "failed")
            now = json.dumps(view, sort_keys=True)
            if now != before:
                yield ServerSentEvent(now, event=view["state"] if over else "progress")
            if over:
                return
            before = now
            await asyncio.sleep(_LOOK_S)
    yield ServerSentEvent(json.dumps({"id": video_id}), event="removed")
