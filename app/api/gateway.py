"""What the routes find in `app.state.gateway`: built once by `app.main`, passed to every route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from app.api.turns import Turns
from app.metrics import Metrics
from app.pipelines.base import Router
from app.pipelines.clip import ImagePipeline, TextPipeline
from app.pipelines.depth import DepthPipeline
from app.pipelines.detect import DetectPipeline
from app.pipelines.flow import FlowPipeline
from app.pipelines.places import PlacesPipeline
from app.pipelines.sessions import Sessions
from app.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service's parts."""

    settings: Settings
    router: Router
    detect: DetectPipeline
    depth: DepthPipeline
    flow: FlowPipeline
    clip_image: ImagePipeline
    clip_text: TextPipeline
    places: PlacesPipeline
    sessions: Sessions
    turns: Turns
    metrics: Metrics
    workers: ThreadPoolExecutor

    async def work(self, function: Callable[[], T]) -> T:
        """Run `function` on a worker thread: one hop a frame."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, function)


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
