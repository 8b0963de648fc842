"""`POST /v1/depth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi.families import depth as openapi
from app.api.openapi.operations import frame_operation
from app.api.response.answers import JPEG, NPY, PNG
from app.api.routes.family_routes import FamilyRoutes
from app.api.routes.frame_route import AnswerForms, FrameRoute, FramesQuery
from app.api.server.direct_route import DirectRoute
from app.pipelines.depth import DepthMap, DepthPipeline

router = APIRouter(tags=["depth"], route_class=DirectRoute)
ROUTES = FamilyRoutes(router, openapi.EXAMPLES)
_BYTES_PER_PIXEL = 12  # of a map in the picture's size, with what making the answer takes


class DepthQuery(FramesQuery):
    """Query parameters of `POST /v1/depth`."""

    render: Literal["gray16", "color"] = Field(
        "gray16",
        description="Content of image/png: numbers or a picture. image/jpeg is always a picture.",
    )
    size: Literal["source", "branch"] = Field(
        "source", description="Size of the map: the frame's or the branch's."
    )


def _body(found: DepthMap, query: DepthQuery) -> dict[str, Any]:
    del query
    height, width = found.values.shape
    with found.served.timings.stage("finish"):
        return {
            "depth": found.statistics(),
            "map": {"width": width, "height": height},
            "image": {"width": found.width, "height": found.height},
        }


def _png(found: DepthMap, query: DepthQuery) -> tuple[bytes, Mapping[str, str]]:
    if query.render == "color":
        return found.picture(), {}
    content, least, greatest = found.png16()
    return content, {"X-Depth-Min": repr(least), "X-Depth-Max": repr(greatest)}


_FORMS: AnswerForms[DepthMap, DepthQuery] = AnswerForms(
    _body,
    {
        NPY: lambda found, _: (found.npy(), {}),
        PNG: _png,
        JPEG: lambda found, _: (found.picture(jpeg=True), {}),
    },
)
_ROUTE: FrameRoute[DepthMap, DepthQuery] = FrameRoute(
    DepthPipeline.family,
    lambda gateway, query, data, deadline: gateway.pipelines.of(DepthPipeline)(
        data, query.wishes(), deadline, query.size, query.analysis()
    ),
    lambda gateway, query, frame, framed: gateway.pipelines.of(DepthPipeline).on_frame(
        frame.rgb, framed, query.size
    ),
    _FORMS,
    lambda query: _BYTES_PER_PIXEL if query.size == "source" else 0,
)


@router.post(
    "/v1/depth",
    summary="Relative inverse depth of a frame",
    **frame_operation(
        "depth",
        openapi.DepthAnswer | openapi.DepthBatch,
        _FORMS.encoders,
        openapi.SAMPLES,
        video=True,
        headers=openapi.HEADERS,
    ),
)
async def depth(
    request: Request,
    query: Annotated[DepthQuery, Query()],
    gateway: Annotated[Gateway, Depends(gateway_of)],
) -> Response:
    """MiDaS / DPT: greater is nearer, without unit.

    JSON has statistics; `application/x-npy` the map as float32 `[H, W]`; `image/png` 16-bit grey, where
    `value = X-Depth-Min + level / 65535 * (X-Depth-Max - X-Depth-Min)`, or with `render=color` a picture to look at;
    `image/jpeg` always a picture to look at.
    """
    return await _ROUTE.answer(request, query, gateway)
