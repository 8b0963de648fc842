"""A client of the Triton vision gateway.

    from triton_vision_gateway_client import Client

    with Client("http://127.0.0.1:8080") as client:
        print(client.detect("photo.jpg").detections)

`Client` is synchronous, `AsyncClient` is for asyncio; their methods are the same.
"""

from triton_vision_gateway_client.answers.detections import Detection, Detections, SessionFrame
from triton_vision_gateway_client.answers.exports import to_coco
from triton_vision_gateway_client.answers.families import (
    DepthMap,
    DepthSummary,
    Drawing,
    Embedding,
    FlowField,
    FlowSummary,
    MixedEmbeddings,
    Place,
    Places,
    Similarity,
    TextEmbeddings,
)
from triton_vision_gateway_client.answers.jobs import Job, JobError, JobEvent, JobPage, JobRow
from triton_vision_gateway_client.answers.provenance import Batch, Branch, ModelUsed, Outcome
from triton_vision_gateway_client.answers.status import (
    Branches,
    Readiness,
    Repository,
    Session,
    Versions,
)
from triton_vision_gateway_client.answers.videos import Frame, VideoSummary
from triton_vision_gateway_client.async_client import AsyncClient
from triton_vision_gateway_client.async_jobs import AsyncJobHandle
from triton_vision_gateway_client.client import Client
from triton_vision_gateway_client.errors import (
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    GatewayError,
    InvalidRequest,
    JobFailed,
    NotFound,
    Overloaded,
    RateLimited,
    ServerError,
    StreamInterrupted,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    UnsupportedMedia,
    VideoIncomplete,
)
from triton_vision_gateway_client.jobs import JobHandle
from triton_vision_gateway_client.streams import AsyncVideoFrames, VideoFrames
from triton_vision_gateway_client.version import __version__

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "AsyncVideoFrames",
    "Batch",
    "Branch",
    "Branches",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DepthMap",
    "DepthSummary",
    "Detection",
    "Detections",
    "Drawing",
    "Embedding",
    "FlowField",
    "FlowSummary",
    "Forbidden",
    "Frame",
    "GatewayError",
    "InvalidRequest",
    "Job",
    "JobError",
    "JobEvent",
    "JobFailed",
    "JobHandle",
    "JobPage",
    "JobRow",
    "MixedEmbeddings",
    "ModelUsed",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Place",
    "Places",
    "RateLimited",
    "Readiness",
    "Repository",
    "ServerError",
    "Session",
    "SessionFrame",
    "Similarity",
    "StreamInterrupted",
    "TextEmbeddings",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnsupportedMedia",
    "Versions",
    "VideoFrames",
    "VideoIncomplete",
    "VideoSummary",
    "__version__",
    "to_coco",
]
