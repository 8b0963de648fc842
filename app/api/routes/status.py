"""State of the service: `/v1/branches`, `/v1/repository`, `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import operations
from app.api.response.answers import fresh_json
from app.api.server.access import DETAILS
from app.api.server.direct_route import DirectRoute
from app.errors import InvalidParameter
from app.pipelines import inventory
from app.pipelines.base import wishes_of

router = APIRouter(tags=["operation"], route_class=DirectRoute)
Parts = Annotated[Gateway, Depends(gateway_of)]


class BranchesQuery(BaseModel):
    """Query parameters of `GET /v1/branches`; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    width: int | None = Field(
        None, ge=1, le=1 << 16, description="Width of a frame, to list the branches that would serve it."
    )
    height: int | None = Field(None, ge=1, le=1 << 16, description="Height of the frame.")
    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant: n to x for detection, small or large for flow, or one of your own.",
    )
    version: str | None = Field(None, max_length=20, description="Version of the branch that would serve.")
    fallback: bool = Field(False, description="Allow a smaller branch as a fallback.")


@router.get("/v1/branches", summary="The catalogue, and what routing would decide", **operations.BRANCHES)
async def branches(query: Annotated[BranchesQuery, Query()], gateway: Parts) -> Response:
    """Thresholds, contracts, readiness and weights; with `width` and `height`, the branch each family would take."""
    if (query.width is None) != (query.height is None):
        raise InvalidParameter("width and height go together")
    size = None if query.width is None or query.height is None else (query.width, query.height)
    known = gateway.router.catalogue.variants
    if query.variant is not None and query.variant not in known:
        raise InvalidParameter(
            f"no family has a variant {query.variant[:100]!r}; there are {', '.join(known)}"
        )
    wishes = wishes_of(None, query.variant, fallback=query.fallback, version=query.version)
    return fresh_json(inventory.branches(gateway.router, size, wishes, gateway.probe.required))


@router.get("/v1/repository", summary="The repository beside the READY checklist", **operations.REPOSITORY)
async def repository(gateway: Parts) -> Response:
    """`models`: which are READY, which `/readyz` waits for, and each one's place on the READY checklist.

    `required`, `optional`, `missing` and `checklist_ready` are the checklist's own.
    """
    required = inventory.patterns(gateway.settings.require_ready)
    return fresh_json(inventory.repository(gateway.router, required))


@router.get("/livez", summary="Is the process alive?", **operations.LIVEZ)
async def livez() -> Response:
    """Touches nothing outside the process."""
    return fresh_json({"status": "ok"})


_STOPPING = {
    "name": "gateway",
    "readiness": "unavailable",
    "reason": "it was told to stop; requests are served until it does",
}


@router.get("/readyz", summary="Can it serve?", **operations.READYZ)
async def readyz(request: Request, gateway: Parts) -> Response:
    """503 names what fails: the backend, models still loading, branches that `require_ready` names, or a stop.

    Where the gateway has API keys, that takes one with the scope `operate`; the status doesn't.
    """
    faults = gateway.probe.faults()
    if gateway.drain.begun:
        faults = [_STOPPING, *faults]
    gateway.drain.probed(green=not faults)
    told = faults if request.scope.get(DETAILS, True) else []
    return fresh_json({"status": "not ready" if faults else "ok", "failing": told}, 503 if faults else 200)


@router.get("/metrics", summary="Prometheus metrics", **operations.METRICS)
async def metrics(request: Request, gateway: Parts) -> Response:
    """Text exposition format, or OpenMetrics with exemplars where `Accept` asks for it."""
    content, media_type = await asyncio.to_thread(_scraped, gateway, request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type})


def _scraped(gateway: Gateway, accept: str) -> tuple[bytes, str]:
    gateway.gauges.look()
    return gateway.metrics.negotiated(accept)
