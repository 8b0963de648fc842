"""The client for asyncio. See `client` for what the methods do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from triton_vision_gateway_client.answers.detections import Detections
from triton_vision_gateway_client.answers.families import (
    DepthMap,
    DepthSummary,
    Drawing,
    Embedding,
    FlowField,
    FlowSummary,
    MixedEmbeddings,
    Places,
    Similarity,
    TextEmbeddings,
)
from triton_vision_gateway_client.answers.jobs import JobPage
from triton_vision_gateway_client.answers.provenance import Batch
from triton_vision_gateway_client.answers.status import (
    Branches,
    Readiness,
    Repository,
    Session,
    Versions,
)
from triton_vision_gateway_client.async_jobs import AsyncJobHandle
from triton_vision_gateway_client.calls import frames, jobs, status, texts
from triton_vision_gateway_client.calls.jobs import ProfileLike
from triton_vision_gateway_client.client import DEFAULT_URL
from triton_vision_gateway_client.errors import ConnectionFailed, ServerError
from triton_vision_gateway_client.media import PictureLike, VideoLike
from triton_vision_gateway_client.options import (
    BranchesOptions,
    CallOptions,
    DenseOptions,
    DenseVideoOptions,
    DetectOptions,
    DetectTrackOptions,
    DetectVideoOptions,
    ImageOptions,
    ImageVideoOptions,
    PictureForm,
    PlacesOptions,
    PlacesVideoOptions,
    SimilarityOptions,
    TextOptions,
)
from triton_vision_gateway_client.retries import Deadline
from triton_vision_gateway_client.streams import AsyncVideoFrames, Parse
from triton_vision_gateway_client.transports.asynchronous import AsyncTransport
from triton_vision_gateway_client.transports.wire import Settings

T = TypeVar("T")
_LOOK_S = 0.2


class AsyncClient:
    """A client of one gateway, for asyncio; it belongs to one event loop. Close it, or use it with `async with`.

    See `Client` for the arguments and methods. Pictures are read and encoded, and videos read, on other threads.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        retries: int = 3,
        silence_timeout: float = 120.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        settings = Settings.of(url, api_key, timeout, retries, silence_timeout)
        self.url = settings.url
        self._transport = AsyncTransport(settings, http)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    # --- detection ---

    async def detect(
        self,
        picture: PictureLike,
        *,
        session: str | None = None,
        timestamp: float | None = None,
        **options: Unpack[DetectTrackOptions],
    ) -> Detections:
        """Find objects in a picture.

        With `session`, the picture continues a tracker, and objects have a `track_id`; `timestamp` is its time in
        seconds. Such a call isn't sent again once the service may have counted the frame.
        """
        return await self._transport.run(lambda: frames.detect(picture, session, timestamp, options))

    async def detect_batch(
        self,
        pictures: Sequence[PictureLike],
        *,
        session: str | None = None,
        timestamps: Sequence[float] | None = None,
        **options: Unpack[DetectTrackOptions],
    ) -> Batch[Detections]:
        """Find objects in several pictures; one that can't be used has an error in its place."""
        return await self._transport.run(lambda: frames.detect_batch(pictures, session, timestamps, options))

    async def detect_variants(
        self, picture: PictureLike, variants: Sequence[str], **options: Unpack[DetectOptions]
    ) -> Batch[Detections]:
        """Find objects in one picture by several variants, in their order."""
        return await self._transport.run(lambda: frames.detect_variants(picture, variants, options))

    def detect_video(
        self, video: VideoLike, **options: Unpack[DetectVideoOptions]
    ) -> AsyncVideoFrames[Detections]:
        """Find and track objects in a video; iterate for its frames."""
        return self._video(frames.DETECT, video, options, frames.detections)

    async def detect_coco(
        self, pictures: Sequence[PictureLike], **options: Unpack[DetectOptions]
    ) -> dict[str, Any]:
        """Return the service's COCO dataset of pictures, with all categories of the model."""
        return await self._transport.run(lambda: frames.detect_coco(pictures, options))

    async def detect_csv(self, pictures: Sequence[PictureLike], **options: Unpack[DetectOptions]) -> str:
        """Return the service's CSV of pictures, a row per box."""
        return await self._transport.run(lambda: frames.detect_csv(pictures, options))

    async def draw_boxes(
        self, picture: PictureLike, form: PictureForm = "png", **options: Unpack[DetectOptions]
    ) -> Drawing:
        """Return the picture with its boxes drawn."""
        return await self._transport.run(lambda: frames.drawing(frames.DETECT, (picture,), form, options))

    # --- depth and flow ---

    async def depth(self, picture: PictureLike, **options: Unpack[DenseOptions]) -> DepthMap:
        """Return the depth map of a picture."""
        return await self._transport.run(lambda: frames.depth(picture, options))

    async def depth_summary(self, picture: PictureLike, **options: Unpack[DenseOptions]) -> DepthSummary:
        """Return statistics of the depth map."""
        return await self._transport.run(lambda: frames.depth_summary(picture, options))

    async def depth_batch(
        self, pictures: Sequence[PictureLike], **options: Unpack[DenseOptions]
    ) -> Batch[DepthSummary]:
        """Return statistics of several pictures' depth maps."""
        return await self._transport.run(lambda: frames.depth_batch(pictures, options))

    def depth_video(
        self, video: VideoLike, **options: Unpack[DenseVideoOptions]
    ) -> AsyncVideoFrames[DepthSummary]:
        """Return depth statistics of a video; iterate for its frames."""
        return self._video(frames.DEPTH, video, options, frames.depth_numbers)

    async def draw_depth(
        self, picture: PictureLike, form: PictureForm = "png", **options: Unpack[DenseOptions]
    ) -> Drawing:
        """Return the depth map in colours."""
        return await self._transport.run(lambda: frames.drawing(frames.DEPTH, (picture,), form, options))

    async def flow(
        self, first: PictureLike, second: PictureLike, **options: Unpack[DenseOptions]
    ) -> FlowField:
        """Return the optical flow from the first picture to the second."""
        return await self._transport.run(lambda: frames.flow(first, second, options))

    async def flow_summary(
        self, first: PictureLike, second: PictureLike, **options: Unpack[DenseOptions]
    ) -> FlowSummary:
        """Return statistics of the flow."""
        return await self._transport.run(lambda: frames.flow_summary(first, second, options))

    def flow_video(
        self, video: VideoLike, **options: Unpack[DenseVideoOptions]
    ) -> AsyncVideoFrames[FlowSummary]:
        """Return flow statistics between the sampled frames of a video; iterate for them."""
        return self._video(frames.FLOW, video, options, frames.flow_numbers)

    async def draw_flow(
        self,
        first: PictureLike,
        second: PictureLike,
        form: PictureForm = "png",
        **options: Unpack[DenseOptions],
    ) -> Drawing:
        """Return the flow in the colours of the Middlebury wheel."""
        return await self._transport.run(lambda: frames.drawing(frames.FLOW, (first, second), form, options))

    # --- CLIP and scenes ---

    async def embed_image(self, picture: PictureLike, **options: Unpack[ImageOptions]) -> Embedding:
        """Return the CLIP embedding of a picture."""
        return await self._transport.run(lambda: frames.embed_image(picture, options))

    async def embed_images(
        self, pictures: Sequence[PictureLike], **options: Unpack[ImageOptions]
    ) -> Batch[Embedding]:
        """Return the CLIP embeddings of several pictures."""
        return await self._transport.run(lambda: frames.embed_images(pictures, options))

    def embed_video(
        self, video: VideoLike, **options: Unpack[ImageVideoOptions]
    ) -> AsyncVideoFrames[Embedding]:
        """Return the CLIP embeddings of a video's frames; iterate for them."""
        return self._video(frames.IMAGE, video, options, frames.embedding)

    async def embed_text(self, prompts: Sequence[str], **options: Unpack[TextOptions]) -> TextEmbeddings:
        """Return the CLIP embeddings of prompts."""
        return await self._transport.run(lambda: texts.embed_text(prompts, options))

    async def similarity(
        self,
        pictures: Sequence[PictureLike],
        prompts: Sequence[str],
        **options: Unpack[SimilarityOptions],
    ) -> Similarity:
        """Compare pictures with prompts (zero-shot)."""
        return await self._transport.run(lambda: texts.similarity(pictures, prompts, options))

    async def embeddings(
        self,
        inputs: Sequence[str | PictureLike],
        *,
        model: str = "clip",
        **options: Unpack[CallOptions],
    ) -> MixedEmbeddings:
        """Embed texts and pictures into one space, as `POST /v1/embeddings` does. A `str` is a text, never a path."""
        return await self._transport.run(lambda: texts.embeddings(inputs, model, options))

    async def places(self, picture: PictureLike, **options: Unpack[PlacesOptions]) -> Places:
        """Return the most probable scene categories of a picture."""
        return await self._transport.run(lambda: frames.places(picture, options))

    async def places_batch(
        self, pictures: Sequence[PictureLike], **options: Unpack[PlacesOptions]
    ) -> Batch[Places]:
        """Return the scene categories of several pictures."""
        return await self._transport.run(lambda: frames.places_batch(pictures, options))

    def places_video(
        self, video: VideoLike, **options: Unpack[PlacesVideoOptions]
    ) -> AsyncVideoFrames[Places]:
        """Return the scene categories of a video's frames; iterate for them."""
        return self._video(frames.PLACES, video, options, frames.scenes)

    # --- jobs ---

    async def submit(
        self,
        video: VideoLike,
        profile: ProfileLike,
        *,
        name: str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncJobHandle:
        """Run a whole video through a profile, in the background.

        Args:
            video: sent piece by piece.
            profile: a name in the service, YAML text, a `Path` of a YAML file, or a dictionary.
            name: of the video in its manifest; default: the name of the file.
            callback_url: receives a signed POST when the job is over (docs/webhooks.md).
            idempotency_key: names the submission, so that it makes one job however often it is sent, also by another
                process; default: a new key for each call, which makes the call's own retries safe.
            options: see `CallOptions`.
        """
        job = await self._transport.run(
            lambda: jobs.submit(video, profile, name, callback_url, idempotency_key, options)
        )
        return AsyncJobHandle(self._transport, job)

    async def submit_source(
        self,
        source: str,
        profile: ProfileLike,
        *,
        name: str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncJobHandle:
        """Run a whole video through a profile, in the background; the service fetches the video itself.

        Args:
            source: `https://…`, `http://…` or `s3://bucket/key`, in a place that the service may fetch from
                (docs/sources.md).
            profile: see `submit`.
            name: of the video in its manifest; default: the last part of the URL's path.
            callback_url: see `submit`.
            idempotency_key: see `submit`.
            options: see `CallOptions`.

        Raises:
            InvalidRequest: the service may not fetch it. A fetch that fails later fails the job.
        """
        job = await self._transport.run(
            lambda: jobs.submit_source(source, profile, name, callback_url, idempotency_key, options)
        )
        return AsyncJobHandle(self._transport, job)

    async def job(self, job_id: str, **options: Unpack[CallOptions]) -> AsyncJobHandle:
        """Return a job by its id.

        Raises:
            NotFound: there is none, or it belongs to another key.
        """
        return AsyncJobHandle(self._transport, await self._transport.run(lambda: jobs.get(job_id, options)))

    async def jobs(
        self,
        limit: int = 100,
        *,
        state: str | Sequence[str] | None = None,
        after: str | None = None,
        **options: Unpack[CallOptions],
    ) -> JobPage:
        """Return a page of the jobs, the newest first.

        Args:
            limit: most jobs on it, 1 to 1000.
            state: only jobs in this state, or in one of these: fetching, queued, running, done, failed.
            after: `next` of the page before; default: the first page.
            options: see `CallOptions`.
        """
        return await self._transport.run(lambda: jobs.listing(limit, state, after, options))

    # --- sessions and the service itself ---

    async def session(
        self, session_id: str, *, owner: str | None = None, **options: Unpack[CallOptions]
    ) -> Session:
        """Return the state of a tracking session. `owner`: the name of its key, for keys that see all."""
        return await self._transport.run(lambda: status.session(session_id, owner, options))

    async def delete_session(
        self, session_id: str, *, owner: str | None = None, **options: Unpack[CallOptions]
    ) -> None:
        """End a tracking session; the next frame that names it begins again."""
        await self._transport.run(lambda: status.delete_session(session_id, owner, options))

    async def branches(self, **options: Unpack[BranchesOptions]) -> Branches:
        """Return the catalogue, with what is ready; with a size, also the branch that each family would take."""
        return await self._transport.run(lambda: status.branches(options))

    async def repository(self, **options: Unpack[CallOptions]) -> Repository:
        """Return the models beside the READY checklist."""
        return await self._transport.run(lambda: status.repository(options))

    async def alive(self, **options: Unpack[CallOptions]) -> bool:
        """Return whether the service answers."""
        try:
            await self._transport.run(lambda: status.livez(options))
        except ConnectionFailed:
            return False
        return True

    async def readiness(self, **options: Unpack[CallOptions]) -> Readiness:
        """Return whether the service can serve, and what fails."""
        return await self._transport.run(lambda: status.readyz(options))

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the service can serve, for example after its start.

        Raises:
            DeadlineExceeded: it isn't ready in time.
        """
        deadline = Deadline(timeout)
        while True:
            with contextlib.suppress(ConnectionFailed, ServerError):  # it isn't listening yet
                if (await self.readiness(timeout=deadline.share())).ready:
                    return
            await asyncio.sleep(_LOOK_S)

    async def metrics(self, **options: Unpack[CallOptions]) -> str:
        """Return the metrics of the service, in Prometheus's text format."""
        return await self._transport.run(lambda: status.metrics(options))

    async def version(self, **options: Unpack[CallOptions]) -> Versions:
        """Return the versions of the service and of this client."""
        return await self._transport.run(lambda: status.versions(options))

    async def openapi(self, **options: Unpack[CallOptions]) -> dict[str, Any]:
        """Return the service's description of itself."""
        return await self._transport.run(lambda: status.openapi(options))

    def _video(
        self, path: str, video: VideoLike, options: Mapping[str, object], parse: Parse[T]
    ) -> AsyncVideoFrames[T]:
        return AsyncVideoFrames(self._transport, lambda: frames.video(path, video, options), parse)
