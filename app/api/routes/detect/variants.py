"""One picture by several variants of the detector."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from fastapi import Request, Response

from app.api.gateway import Gateway
from app.api.request.frame_query import words_of
from app.api.response.answers import JSON
from app.api.response.detections import all_answers
from app.api.response.problems import request_id_of
from app.api.routes.detect.query import DetectQuery
from app.deadline import Deadline
from app.errors import GatewayError, InvalidParameter
from app.pipelines.base import wishes_of
from app.pipelines.detect import Detections, DetectParameters, DetectPipeline
from app.videos.components.detect import class_ids
from routing.policy import Wishes


def queries(gateway: Gateway, query: DetectQuery) -> list[DetectQuery]:
    """Return the query of each variant: its `classes` are those that the variant knows.

    Raises:
        InvalidParameter: there is no such variant, or a class that none of them knows.
    """
    words = words_of(query.classes)
    known: set[str] = set()
    faults: list[InvalidParameter] = []
    found = []
    for variant in query.variants():
        labels = gateway.pipelines.of(DetectPipeline).labels(wishes_of(query.branch, variant))
        mine = []
        for word in words:
            try:
                class_ids([word], labels)
            except InvalidParameter as error:
                faults.append(error)
            else:
                mine.append(word)
        known |= set(mine)
        found.append(query.model_copy(update={"variant": variant, "classes": mine}))
    if known != set(words):
        raise faults[0]
    return found


async def answer(
    request: Request,
    gateway: Gateway,
    frames: list[bytes],
    wished: Sequence[tuple[DetectParameters, Wishes]],
    deadline: Deadline,
) -> Response:
    """Each picture by each variant, picture after picture, each decoded once."""
    if not frames:
        raise InvalidParameter("the form has no part named 'file'")

    def call(data: bytes, deadline: Deadline) -> list[Detections | GatewayError]:
        return gateway.pipelines.of(DetectPipeline).several(data, wished, deadline)

    calls = [functools.partial(call, data) for data in frames]
    outcomes = await gateway.run_all(request, DetectPipeline.family, calls, deadline, frames)
    lines = [
        one
        for outcome in outcomes
        for one in (outcome if isinstance(outcome, list) else [outcome] * len(wished))
    ]
    return all_answers(lines, JSON, (), request_id_of(request))
