"""`POST /v1/places`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi.families import places as openapi
from app.api.openapi.operations import frame_operation
from app.api.routes.family_routes import FamilyRoutes
from app.api.routes.frame_route import AnswerForms, FrameRoute, FramesQuery
from app.api.server.direct_route import DirectRoute
from app.pipelines.places import PlacesPipeline, Scenes

# Generated clients name a module after the first tag: it stays as it was.
router = APIRouter(tags=["clip", "places"], route_class=DirectRoute)
ROUTES = FamilyRoutes(router, openapi.EXAMPLES)


class PlacesQuery(FramesQuery):
    """Query parameters of `POST /v1/places`."""

    fit: Literal["crop", "stretch"] | None = Field(
        None, description="Crop the middle of the picture, or stretch all of it."
    )
    k: int = Field(5, ge=1, le=365, description="Number of categories.")


def _body(found: Scenes, query: PlacesQuery) -> dict[str, Any]:
    return {
        "places": [
            {"category_id": index, "category": name, "probability": probability}
            for index, name, probability in found.best(query.k)
        ],
        "image": {"width": found.width, "height": found.height},
    }


_FORMS: AnswerForms[Scenes, PlacesQuery] = AnswerForms(_body)
_ROUTE: FrameRoute[Scenes, PlacesQuery] = FrameRoute(
    PlacesPipeline.family,
    lambda gateway, query, data, deadline: gateway.pipelines.of(PlacesPipeline)(
        data, query.wishes(), deadline, query.fit, query.analysis()
    ),
    lambda gateway, query, frame, framed: gateway.pipelines.of(PlacesPipeline).on_frame(
        frame.rgb, framed, query.fit
    ),
    _FORMS,
)


@router.post(
    "/v1/places",
    summary="Scene categories of a frame",
    **frame_operation(
        "places",
        openapi.PlacesAnswer | openapi.PlacesBatch,
        _FORMS.encoders,
        openapi.SAMPLES,
        video=True,
    ),
)
async def places(
    request: Request,
    query: Annotated[PlacesQuery, Query()],
    gateway: Annotated[Gateway, Depends(gateway_of)],
) -> Response:
    """Places365: the `k` most probable of 365 categories; of a video, of each sampled frame."""
    return await _ROUTE.answer(request, query, gateway)
