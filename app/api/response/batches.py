"""Several frames in one request: each one's own answer or its own error, in the order of the parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from app.api.gateway import Gateway
from app.api.response.answers import JSON, describe, json_answer, total
from app.api.response.problems import problem, request_id_of
from app.deadline import Deadline
from app.errors import GatewayError, InvalidParameter
from app.pipelines.base import Served, provenance


@dataclass(frozen=True, slots=True)
class BatchItem:
    """The answer to one frame of a batch, and the branch that served it."""

    body: dict[str, Any]
    served: Served


Answered = Callable[[bytes, Deadline], BatchItem]


async def answer_batch(
    request: Request,
    gateway: Gateway,
    family: str,
    run: Answered,
    frames: Sequence[bytes],
    deadline: Deadline,
    form: str,
    answer: int = 0,
) -> Response:
    """Run all frames side by side, as many as there are places, and answer them under `results`.

    `answer` as for `Gateway.run`.

    Raises:
        InvalidParameter: `form` is for one frame.
        GatewayError: the first, where no frame could be used.
    """
    if form != JSON:
        raise InvalidParameter(f"{form} answers one frame; send one part, or ask for {JSON}")
    calls = [functools.partial(run, data) for data in frames]
    items = await gateway.run_all(request, family, calls, deadline, frames, answer)
    return batch_answer(items, request_id_of(request))


def batch_answer(items: Sequence[BatchItem | GatewayError], request_id: str) -> Response:
    """Each frame's own answer or its own error, in order.

    Raises:
        GatewayError: the first, where no frame could be used.
    """
    served = [item.served for item in items if isinstance(item, BatchItem)]
    if not served:
        raise next(item for item in items if isinstance(item, GatewayError))
    body = {
        "results": [
            {**item.body, **describe(item.served)}
            if isinstance(item, BatchItem)
            else {"error": problem(item, request_id)}
            for item in items
        ],
        "errors": len(items) - len(served),
        **provenance(served),
        "degraded": any(one.decision.degraded for one in served),
    }
    return json_answer(body, total([one.timings for one in served]))
