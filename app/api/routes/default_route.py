"""`POST /v1/<family>` of a family that has no route module of its own, made from what its pipeline declares."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, create_model

from app.api.gateway import Gateway, gateway_of
from app.api.openapi.examples import served
from app.api.openapi.operations import PHOTO, URL, frame_operation
from app.api.openapi.schemas import Batch, FrameAnswer, FrameError
from app.api.response.answers import NPY
from app.api.routes.family_routes import FamilyRoutes
from app.api.routes.frame_route import AnswerForms, FrameRoute, FramesQuery
from app.api.server.direct_route import DirectRoute
from app.media.encodings import npy_bytes
from app.pipelines.pipeline_set import FramePipeline, FrameResult


def default_routes(kind: type[FramePipeline]) -> FamilyRoutes:
    """Return a route that takes a picture, a batch or a video, and answers JSON or the model's output as npy."""
    name, title = kind.family, "".join(word.capitalize() for word in kind.family.split("_"))
    fields = dataclasses.fields(kind.Parameters)
    query_type = _query_type(title, kind.Parameters)

    def parameters(query: FramesQuery) -> Any:
        return kind.Parameters(**{field.name: getattr(query, field.name) for field in fields})

    forms: AnswerForms[FrameResult, FramesQuery] = AnswerForms(
        lambda found, _: found.body(), {NPY: lambda found, _: (npy_bytes(found.values), {})}
    )
    route: FrameRoute[FrameResult, FramesQuery] = FrameRoute(
        name,
        lambda gateway, query, data, deadline: gateway.pipelines.of(kind)(
            data, query.wishes(), deadline, parameters(query), query.analysis()
        ),
        lambda gateway, query, frame, framed: gateway.pipelines.of(kind).on_frame(
            frame.rgb, framed, parameters(query)
        ),
        forms,
    )

    async def answer(request: Request, query: FramesQuery, gateway: Gateway) -> Response:
        return await route.answer(request, query, gateway)

    answer.__annotations__ |= {
        "request": Request,
        "query": Annotated[query_type, Query()],
        "gateway": Annotated[Gateway, Depends(gateway_of)],
        "return": Response,
    }
    answer.__name__, answer.__doc__ = name, kind.__doc__
    router = APIRouter(tags=[name], route_class=DirectRoute)
    operation = frame_operation(
        name, _answer_type(title, kind), forms.encoders, (f"curl {PHOTO} {URL}/{name}'",), video=True
    )
    router.add_api_route(f"/v1/{name}", answer, methods=["POST"], summary=kind.title, **operation)
    example = {**kind.EXAMPLE, **served(name, f"{name}_small", name, 224)}
    return FamilyRoutes(router, {name: example})


def _query_type(title: str, parameters: type[Any]) -> type[FramesQuery]:
    hints = typing.get_type_hints(parameters)
    described: dict[str, Any] = {
        field.name: (hints[field.name], Field(field.default, **field.metadata))
        for field in dataclasses.fields(parameters)
    }
    return create_model(f"{title}Query", __base__=FramesQuery, **described)


def _answer_type(title: str, kind: type[FramePipeline]) -> Any:
    described: dict[str, Any] = {
        field: (hint, ...) for field, hint in typing.get_type_hints(kind.Answer).items()
    }
    one = create_model(f"{title}Answer", __base__=FrameAnswer, **described)
    several = create_model(f"{title}Batch", __base__=Batch, results=(list[one | FrameError], ...))
    return one | several
