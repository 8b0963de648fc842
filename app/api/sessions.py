"""`GET` and `DELETE /v1/sessions/{id}`: what a tracking session holds, and its end."""

from __future__ import annotations

import functools
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path, Response

from app.api import openapi
from app.api.answers import JSON
from app.api.gateway import Gateway, gateway_of
from app.api.route import DirectRoute

router = APIRouter(tags=["sessions"], route_class=DirectRoute)
Parts = Annotated[Gateway, Depends(gateway_of)]
SessionId = Annotated[
    str, Path(description="As in `session` of POST /v1/detect.", examples=["cam1"], alias="id")
]


@router.get("/v1/sessions/{id}", summary="A tracking session's state", **openapi.SESSION)
async def export(session_id: SessionId, gateway: Parts) -> Response:
    """Its parameters, its tracks, and the tracker's state to keep. Looking at a session doesn't prolong its life."""
    document = await gateway.work(functools.partial(gateway.sessions.export, session_id))
    return Response(orjson.dumps(document), media_type=JSON, headers={"Cache-Control": "no-store"})


@router.delete(
    "/v1/sessions/{id}", summary="End a tracking session", status_code=204, **openapi.SESSION_DELETE
)
async def delete(session_id: SessionId, gateway: Parts) -> Response:
    """The next frame that names it begins anew: other parameters, earlier timestamps and ids from 1."""
    await gateway.work(functools.partial(gateway.sessions.delete, session_id))
    return Response(status_code=204)
