"""`GET` and `DELETE /v1/sessions/{id}`: what a tracking session holds, and its end."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import operations
from app.api.response.answers import fresh_json
from app.api.server.access import caller_of
from app.api.server.direct_route import DirectRoute
from app.errors import SessionNotFound

router = APIRouter(tags=["sessions"], route_class=DirectRoute)
Parts = Annotated[Gateway, Depends(gateway_of)]
SessionId = Annotated[
    str,
    Path(
        description="Name of the session, as in `session` of POST /v1/detect.", examples=["cam1"], alias="id"
    ),
]

Owner = Annotated[
    str | None,
    Query(
        description="Name of the API key that owns the session, for callers who may see all sessions. "
        "Unset: the caller's own."
    ),
]


@router.get("/v1/sessions/{id}", summary="A tracking session's state", **operations.SESSION)
async def export(request: Request, session_id: SessionId, gateway: Parts, owner: Owner = None) -> Response:
    """Its parameters, its tracks, and the tracker's state to keep. Looking at a session doesn't prolong its life."""
    owners = _owners(request, owner)
    document = await gateway.work(functools.partial(gateway.sessions.export, session_id, owners))
    return fresh_json(document)


@router.delete(
    "/v1/sessions/{id}", summary="End a tracking session", status_code=204, **operations.SESSION_DELETE
)
async def delete(request: Request, session_id: SessionId, gateway: Parts, owner: Owner = None) -> Response:
    """The next frame that names it begins again: other parameters, earlier timestamps and ids from 1."""
    owners = _owners(request, owner)
    await gateway.work(functools.partial(gateway.sessions.delete, session_id, owners))
    return Response(status_code=204)


def _owners(request: Request, owner: str | None) -> Sequence[str | None]:
    """Return the names of keys that may own the session; sessions of other keys count as missing."""
    owners = caller_of(request).owners
    if owner is None:
        return owners
    if caller_of(request).sees_all or owner in owners:
        return (owner,)
    raise SessionNotFound(f"{owner[:64]!r} has no such session")
