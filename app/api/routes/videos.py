"""`/v1/videos`: a whole video through a profile; progress, artefacts, removal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import videos as openapi
from app.api.request.headers import headers_of, length_of
from app.api.request.requests import deadline_of, timeout_of
from app.api.request.uploads import Upload, named_file, read_upload
from app.api.request.videos.pages import ListQuery, cursor_of
from app.api.request.videos.submissions import Discarded, Submission, VideoQuery, key_of, submission_of
from app.api.response.answers import JSON, fresh_json
from app.api.response.files import OpenedFile
from app.api.routes.video_sources import is_json, source_of
from app.api.server.access import caller_of
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import (
    IdempotencyKeyReused,
    InvalidParameter,
    UnsupportedMediaType,
    VideoNotFound,
    VideosUnavailable,
)
from app.media.containers import sniff_container
from app.settings import environment
from app.state.idempotency import Held
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
_SEND_A_VIDEO = (
    "Send one complete MP4, MOV, Matroska, WebM or AVI file; the type is detected from the content. "
    'Or send JSON: {"source": "https://…", "profile": "…"}.'
)


@router.post("/v1/videos", status_code=202, summary="A video as a job", **openapi.SUBMIT)
async def submit(request: Request, query: Annotated[VideoQuery, Query()], gateway: Parts) -> Response:
    """Raw body or multipart `file`; runs through a profile of components, and leaves artefacts (npz) and a manifest.

    Answered as soon as the video is kept and its container, its profile and its branches have been looked at. With a
    JSON body, the service fetches the video from `source` after its answer. A retry with the same `Idempotency-Key`
    returns the job of the first request.
    """
    jobs, settings, caller = _jobs(gateway), gateway.settings, caller_of(request)
    seconds = timeout_of(request, settings.video_timeout_s)
    async with _held(jobs, caller.name, key_of(request.scope), seconds) as held:
        retry = held is not None and held.digest is not None
        if not retry:
            length = length_of(headers_of(request.scope).get(b"content-length"))
            with _stored():
                await gateway.work(lambda: jobs.admit(int(length) if length < math.inf else 0))
            if query.callback_url is not None:  # before the video is read, which may take long
                await _check_callback(jobs, query.callback_url)
        upload = await read_upload(
            request,
            settings,
            deadline_of(request, settings),
            Deadline.after(seconds),
            {"file": 1, "profile": 1, "name": 1, "callback_url": 1},
            Discarded if retry else lambda: named_file(jobs.incoming, jobs.admit),
        )
        if is_json(upload):
            job_id = await _from_source(upload, query, gateway, caller.name, held)
        else:
            job_id = await _from_upload(upload, query, gateway, caller.name, held)
    headers = {"Location": f"/v1/videos/{job_id}"} | ({"Idempotency-Replayed": "true"} if retry else {})
    return fresh_json(await _view(jobs, job_id), 202, headers)


@contextlib.asynccontextmanager
async def _held(
    jobs: VideoJobs, made_by: str | None, key: str | None, seconds: float
) -> AsyncIterator[Held | None]:
    """Hold an Idempotency-Key while its request is received; one whose request fails is free again."""
    held = None if key is None else await _hold(jobs, made_by, key, seconds)
    try:
        yield held
    except BaseException:
        if held is not None and held.digest is None:
            with contextlib.suppress(VideosUnavailable):  # the key is freed once the index is back
                await asyncio.to_thread(jobs.release_key, held)
        raise


async def _hold(jobs: VideoJobs, made_by: str | None, key: str, seconds: float) -> Held:
    """Hold a key; one whose caller disconnects meanwhile is free again."""
    holding = asyncio.create_task(asyncio.to_thread(jobs.hold_key, made_by, key, seconds))
    try:
        return await asyncio.shield(holding)
    except asyncio.CancelledError:
        holding.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else jobs.leave_key(done.result())
        )
        raise


def _same(held: Held | None, asked: Submission) -> Held | None:
    """Return the key with the digest of the submission.

    Raises:
        IdempotencyKeyReused: the key's job was asked for in another way.
    """
    if held is None:
        return None
    digest = asked.digest()
    if held.digest not in (None, digest):
        raise IdempotencyKeyReused(
            "the job of this Idempotency-Key has another video, source, profile, name or callback_url"
        )
    return replace(held, digest=digest)


async def _from_upload(
    upload: Upload, query: VideoQuery, gateway: Gateway, made_by: str | None, held: Held | None
) -> str:
    """Make the job of a video that was sent; return its id."""
    jobs, video = _jobs(gateway), upload.video
    if video is None:
        for head in upload.parts.get("file", ()):
            if head:
                sniff_container(head[:4096])  # says what it is instead
        raise UnsupportedMediaType("the body is no MP4, MOV, Matroska, WebM or AVI video", hint=_SEND_A_VIDEO)
    try:
        asked = submission_of(upload, query, video.name, sha256=video.sha256)
        key = _same(held, asked)
        if held is not None and held.digest is not None:
            return held.job_id
        with _stored():
            profile = await gateway.work(lambda: _profile(asked, gateway))
            await _check_form_callback(jobs, asked, query)
            await gateway.work(lambda: jobs.check(video.file, profile))
            job = await gateway.work(
                lambda: jobs.submit(
                    video.file,
                    asked.name,
                    video.nbytes,
                    video.sha256,
                    profile,
                    made_by,
                    asked.callback_url,
                    key,
                )
            )
        return job.id
    finally:
        with contextlib.suppress(OSError):  # what is buffered finds no room
            video.file.close()
        if isinstance(video.file.name, str):
            await asyncio.to_thread(Path(video.file.name).unlink, missing_ok=True)


async def _from_source(
    upload: Upload, query: VideoQuery, gateway: Gateway, made_by: str | None, held: Held | None
) -> str:
    """Make the job of a video that is fetched; return its id."""
    jobs = _jobs(gateway)
    url, body = await gateway.work(lambda: source_of(upload, gateway.settings.max_json_bytes))
    asked = submission_of(body, query, name_of(url), source=url)
    key = _same(held, asked)
    if held is not None and held.digest is not None:
        return held.job_id
    await asyncio.to_thread(jobs.check_source, url)  # as `_check_callback`
    with _stored():
        profile = await gateway.work(lambda: _profile(asked, gateway))
        await _check_form_callback(jobs, asked, query)
        job = await gateway.work(
            lambda: jobs.submit_source(url, asked.name, profile, made_by, asked.callback_url, key)
        )
    return job.id


@router.get("/v1/videos", summary="The newest videos", **openapi.LIST)
async def newest(request: Request, query: Annotated[ListQuery, Query()], gateway: Parts) -> Response:
    """A page of the jobs that the caller may see, the newest first; `next` leads to the page after it."""
    jobs, only = _jobs(gateway), caller_of(request).only
    rows, end = await asyncio.to_thread(jobs.newest, query.limit, only, query.state, query.position())
    cursor = None if end is None else cursor_of(end)
    videos = [row | {"created": moment_text(row["created"])} for row in rows]
    headers = {} if cursor is None else {"Link": f'<{query.url_after(cursor)}>; rel="next"'}
    return fresh_json({"videos": videos, "next": cursor}, headers=headers)


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
    opened = await asyncio.to_thread(_jobs(gateway).artifact, video_id, name, caller_of(request).only)
    filename = f"{video_id[:12]}-{name.replace('/', '-')}"
    kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
    with _stored():
        return await asyncio.to_thread(OpenedFile, opened, filename, media_type=kind, filename=filename)


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


def _profile(asked: Submission, gateway: Gateway) -> Profile:
    settings, text = gateway.settings, asked.profile
    if not text:
        known = ", ".join(profile_documents.names(settings.profiles_folder)) or "none"
        raise InvalidParameter(f"name a profile (there are {known}), or send one as the part 'profile'")
    if re.fullmatch(r"[A-Za-z0-9._-]+", text):
        return gateway.profiles.named(settings.profiles_folder, text, environment(), settings.max_prompts)
    return gateway.profiles.parse(text, settings.max_prompts)


async def _check_form_callback(jobs: VideoJobs, asked: Submission, query: VideoQuery) -> None:
    """Check the URL of a body; that of the query has been checked."""
    if asked.callback_url is not None and query.callback_url is None:
        await _check_callback(jobs, asked.callback_url)


async def _check_callback(jobs: VideoJobs, url: str) -> None:
    """Check a URL; a name server that doesn't answer delays no thread of the service's own pool."""
    await asyncio.to_thread(jobs.check_callback, url)


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
