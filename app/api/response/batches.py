"""Several frames in one request: each one's own answer or its own error, in the order of the parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from fastapi import Request, Response

from app.api.gateway import Gateway
from app.api.response.answers import JSON, describe, json_answer, total
from app.api.response.ndjson import Line
from app.api.response.problems import problem, request_id_of
from app.deadline import Deadline
from app.errors import GatewayError, InvalidParameter
from app.pipelines.base import provenance

Answered = Callable[[bytes, Deadline], Line]


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
    lines = await gateway.run_all(request, family, calls, deadline, frames, answer)
    return batch_answer(lines, request_id_of(request))


def batch_answer(lines: Sequence[Line | GatewayError], request_id: str) -> Response:
    """Each frame's own answer or its own error, in order.

    Raises:
        GatewayError: the first, where no frame could be used.
    """
    served = [line.served for line in lines if isinstance(line, Line)]
    if not served:
        raise next(line for line in lines if isinstance(line, GatewayError))
    body = {
        "results": [
            {**line.body, **describe(line.served)}
            if isinstance(line, Line)
            else {"error": problem(line, request_id)}
            for line in lines
        ],
        "errors": len(lines) - len(served),
        **provenance(served),
        "degraded": any(one.decision.degraded for one in served),
    }
    return json_answer(body, total([one.timings for one in served]))
