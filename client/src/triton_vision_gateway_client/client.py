"""The synchronous client."""

from __future__ import annotations

import contextlib
import time
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
from triton_vision_gateway_client.calls import frames, jobs, status, texts
from triton_vision_gateway_client.calls.jobs import ProfileLike
from triton_vision_gateway_client.errors import ConnectionFailed, ServerError
from triton_vision_gateway_client.jobs import JobHandle
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
from triton_vision_gateway_client.streams import Parse, VideoFrames
from triton_vision_gateway_client.transports.sync import Transport
from triton_vision_gateway_client.transports.wire import Settings

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8080"
_LOOK_S = 0.2


class Client:
    """A client of one gateway. It may be shared by threads; close it, or use it with `with`.

    All methods raise exceptions of `errors`; the keyword arguments of each are described in `options`.

    Args:
        url: address of the gateway, with a path before `/v1` if a proxy needs one.
        api_key: default: the environment variable GATEWAY_KEY, if it is set.
        timeout: seconds for a whole call, attempts and waits included; None: no limit. Videos and jobs have no limit
            but `silence_timeout` unless a call gives one.
        retries: attempts after the first one, where sending again is safe.
        silence_timeout: seconds without a byte after which a stream counts as broken.
        http: an `httpx.Client` of your own, for proxies or certificates; you close it.

    Raises:
        ValueError: an argument can't be used.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        retries: int = 3,
        silence_timeout: float = 120.0,
        http: httpx.Client | None = None,
    ) -> None:
        settings = Settings.of(url, api_key, timeout, retries, silence_timeout)
        self.url = settings.url
        self._transport = Transport(settings, http)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # --- detection ---

    def detect(
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
        return self._transport.run(frames.detect(picture, session, timestamp, options))

    def detect_batch(
        self,
        pictures: Sequence[PictureLike],
        *,
        session: str | None = None,
        timestamps: Sequence[float] | None = None,
        **options: Unpack[DetectTrackOptions],
    ) -> Batch[Detections]:
        """Find objects in several pictures; one that can't be used has an error in its place."""
        return self._transport.run(frames.detect_batch(pictures, session, timestamps, options))

    def detect_variants(
        self, picture: PictureLike, variants: Sequence[str], **options: Unpack[DetectOptions]
    ) -> Batch[Detections]:
        """Find objects in one picture by several variants, in their order."""
        return self._transport.run(frames.detect_variants(picture, variants, options))

    def detect_video(
        self, video: VideoLike, **options: Unpack[DetectVideoOptions]
    ) -> VideoFrames[Detections]:
        """Find and track objects in a video; iterate for its frames."""
        return self._video(frames.DETECT, video, options, frames.detections)

    def detect_coco(
        self, pictures: Sequence[PictureLike], **options: Unpack[DetectOptions]
    ) -> dict[str, Any]:
        """Return the service's COCO dataset of pictures, with all categories of the model."""
        return self._transport.run(frames.detect_coco(pictures, options))

    def detect_csv(self, pictures: Sequence[PictureLike], **options: Unpack[DetectOptions]) -> str:
        """Return the service's CSV of pictures, a row per box."""
        return self._transport.run(frames.detect_csv(pictures, options))

    def draw_boxes(
        self, picture: PictureLike, form: PictureForm = "png", **options: Unpack[DetectOptions]
    ) -> Drawing:
        """Return the picture with its boxes drawn."""
        return self._transport.run(frames.drawing(frames.DETECT, (picture,), form, options))

    # --- depth and flow ---

    def depth(self, picture: PictureLike, **options: Unpack[DenseOptions]) -> DepthMap:
        """Return the depth map of a picture."""
        return self._transport.run(frames.depth(picture, options))

    def depth_summary(self, picture: PictureLike, **options: Unpack[DenseOptions]) -> DepthSummary:
        """Return statistics of the depth map."""
        return self._transport.run(frames.depth_summary(picture, options))

    def depth_batch(
        self, pictures: Sequence[PictureLike], **options: Unpack[DenseOptions]
    ) -> Batch[DepthSummary]:
        """Return statistics of several pictures' depth maps."""
        return self._transport.run(frames.depth_batch(pictures, options))

    def depth_video(
        self, video: VideoLike, **options: Unpack[DenseVideoOptions]
    ) -> VideoFrames[DepthSummary]:
        """Return depth statistics of a video; iterate for its frames."""
        return self._video(frames.DEPTH, video, options, frames.depth_numbers)

    def draw_depth(
        self, picture: PictureLike, form: PictureForm = "png", **options: Unpack[DenseOptions]
    ) -> Drawing:
        """Return the depth map in colours."""
        return self._transport.run(frames.drawing(frames.DEPTH, (picture,), form, options))

    def flow(self, first: PictureLike, second: PictureLike, **options: Unpack[DenseOptions]) -> FlowField:
        """Return the optical flow from the first picture to the second."""
        return self._transport.run(frames.flow(first, second, options))

    def flow_summary(
        self, first: PictureLike, second: PictureLike, **options: Unpack[DenseOptions]
    ) -> FlowSummary:
        """Return statistics of the flow."""
        return self._transport.run(frames.flow_summary(first, second, options))

    def flow_video(self, video: VideoLike, **options: Unpack[DenseVideoOptions]) -> VideoFrames[FlowSummary]:
        """Return flow statistics between the sampled frames of a video; iterate for them."""
        return self._video(frames.FLOW, video, options, frames.flow_numbers)

    def draw_flow(
        self,
        first: PictureLike,
        second: PictureLike,
        form: PictureForm = "png",
        **options: Unpack[DenseOptions],
    ) -> Drawing:
        """Return the flow in the colours of the Middlebury wheel."""
        return self._transport.run(frames.drawing(frames.FLOW, (first, second), form, options))

    # --- CLIP and scenes ---

    def embed_image(self, picture: PictureLike, **options: Unpack[ImageOptions]) -> Embedding:
        """Return the CLIP embedding of a picture."""
        return self._transport.run(frames.embed_image(picture, options))

    def embed_images(
        self, pictures: Sequence[PictureLike], **options: Unpack[ImageOptions]
    ) -> Batch[Embedding]:
        """Return the CLIP embeddings of several pictures."""
        return self._transport.run(frames.embed_images(pictures, options))

    def embed_video(self, video: VideoLike, **options: Unpack[ImageVideoOptions]) -> VideoFrames[Embedding]:
        """Return the CLIP embeddings of a video's frames; iterate for them."""
        return self._video(frames.IMAGE, video, options, frames.embedding)

    def embed_text(self, prompts: Sequence[str], **options: Unpack[TextOptions]) -> TextEmbeddings:
        """Return the CLIP embeddings of prompts."""
        return self._transport.run(texts.embed_text(prompts, options))

    def similarity(
        self,
        pictures: Sequence[PictureLike],
        prompts: Sequence[str],
        **options: Unpack[SimilarityOptions],
    ) -> Similarity:
        """Compare pictures with prompts (zero-shot)."""
        return self._transport.run(texts.similarity(pictures, prompts, options))

    def embeddings(
        self,
        inputs: Sequence[str | PictureLike],
        *,
        model: str = "clip",
        **options: Unpack[CallOptions],
    ) -> MixedEmbeddings:
        """Embed texts and pictures into one space, as `POST /v1/embeddings` does. A `str` is a text, never a path."""
        return self._transport.run(texts.embeddings(inputs, model, options))

    def places(self, picture: PictureLike, **options: Unpack[PlacesOptions]) -> Places:
        """Return the most probable scene categories of a picture."""
        return self._transport.run(frames.places(picture, options))

    def places_batch(
        self, pictures: Sequence[PictureLike], **options: Unpack[PlacesOptions]
    ) -> Batch[Places]:
        """Return the scene categories of several pictures."""
        return self._transport.run(frames.places_batch(pictures, options))

    def places_video(self, video: VideoLike, **options: Unpack[PlacesVideoOptions]) -> VideoFrames[Places]:
        """Return the scene categories of a video's frames; iterate for them."""
        return self._video(frames.PLACES, video, options, frames.scenes)

    # --- jobs ---

    def submit(
        self,
        video: VideoLike,
        profile: ProfileLike,
        *,
        name: str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> JobHandle:
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
        job = self._transport.run(jobs.submit(video, profile, name, callback_url, idempotency_key, options))
        return JobHandle(self._transport, job)

    def submit_source(
        self,
        source: str,
        profile: ProfileLike,
        *,
        name: str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> JobHandle:
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
        job = self._transport.run(
            jobs.submit_source(source, profile, name, callback_url, idempotency_key, options)
        )
        return JobHandle(self._transport, job)

    def job(self, job_id: str, **options: Unpack[CallOptions]) -> JobHandle:
        """Return a job by its id.

        Raises:
            NotFound: there is none, or it belongs to another key.
        """
        return JobHandle(self._transport, self._transport.run(jobs.get(job_id, options)))

    def jobs(
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
        return self._transport.run(jobs.listing(limit, state, after, options))

    # --- sessions and the service itself ---

    def session(
        self, session_id: str, *, owner: str | None = None, **options: Unpack[CallOptions]
    ) -> Session:
        """Return the state of a tracking session. `owner`: the name of its key, for keys that see all."""
        return self._transport.run(status.session(session_id, owner, options))

    def delete_session(
        self, session_id: str, *, owner: str | None = None, **options: Unpack[CallOptions]
    ) -> None:
        """End a tracking session; the next frame that names it begins again."""
        self._transport.run(status.delete_session(session_id, owner, options))

    def branches(self, **options: Unpack[BranchesOptions]) -> Branches:
        """Return the catalogue, with what is ready; with a size, also the branch that each family would take."""
        return self._transport.run(status.branches(options))

    def repository(self, **options: Unpack[CallOptions]) -> Repository:
        """Return the models beside the READY checklist."""
        return self._transport.run(status.repository(options))

    def alive(self, **options: Unpack[CallOptions]) -> bool:
        """Return whether the service answers."""
        try:
            self._transport.run(status.livez(options))
        except ConnectionFailed:
            return False
        return True

    def readiness(self, **options: Unpack[CallOptions]) -> Readiness:
        """Return whether the service can serve, and what fails."""
        return self._transport.run(status.readyz(options))

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the service can serve, for example after its start.

        Raises:
            DeadlineExceeded: it isn't ready in time.
        """
        deadline = Deadline(timeout)
        while True:
            with contextlib.suppress(ConnectionFailed, ServerError):  # it isn't listening yet
                if self.readiness(timeout=deadline.share()).ready:
                    return
            time.sleep(_LOOK_S)

    def metrics(self, **options: Unpack[CallOptions]) -> str:
        """Return the metrics of the service, in Prometheus's text format."""
        return self._transport.run(status.metrics(options))

    def version(self, **options: Unpack[CallOptions]) -> Versions:
        """Return the versions of the service and of this client."""
        return self._transport.run(status.versions(options))

    def openapi(self, **options: Unpack[CallOptions]) -> dict[str, Any]:
        """Return the service's description of itself."""
        return self._transport.run(status.openapi(options))

    def _video(
        self, path: str, video: VideoLike, options: Mapping[str, object], parse: Parse[T]
    ) -> VideoFrames[T]:
        return VideoFrames(self._transport.open(frames.video(path, video, options)), parse)
