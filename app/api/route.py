"""Routes that FastAPI describes and that are called without its machinery for parameters.

The declared signature stays what OpenAPI shows. But resolving it anew for each request (which fields a model has, what
each is called, whether it is a list; a hop to a thread for every dependency that is a plain function) takes longer than
everything else between socket and pipeline: 0.6 ms of a request's 1.0.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from app.api.gateway import Gateway, gateway_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """Calls an endpoint of `(request, query, gateway)`, or less, straight away; any other as FastAPI does."""

    def get_route_handler(self) -> Handler:
        return _direct(self.endpoint) or super().get_route_handler()


def _direct(endpoint: Callable[..., Any]) -> Handler | None:
    hints = typing.get_type_hints(endpoint, include_extras=True)
    sources = {name: _source(hints.get(name)) for name in inspect.signature(endpoint).parameters}
    known = {name: source for name, source in sources.items() if source is not None}
    if len(known) < len(sources):
        return None

    async def handle(request: Request) -> Response:
        response: Response = await endpoint(**{name: source(request) for name, source in known.items()})
        return response

    return handle


def _source(hint: Any) -> Callable[[Request], Any] | None:
    """Where a parameter's value comes from; None: only FastAPI knows."""
    if hint is Request:
        return lambda request: request
    kind, *notes = typing.get_args(hint) or (None,)
    if kind is Gateway:
        return gateway_of
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(notes[0], params.Query):
        lists = frozenset(name for name, field in kind.model_fields.items() if _takes_list(field.annotation))
        return lambda request: query_of(request, kind, lists)
    return None


def _takes_list(annotation: Any) -> bool:
    """`list[...]`, or a union with one."""
    return any(typing.get_origin(part) is list for part in (annotation, *typing.get_args(annotation)))


Q = typing.TypeVar("Q", bound=BaseModel)


def query_of(request: Request, model: type[Q], lists: frozenset[str]) -> Q:
    """The query parameters as `model` has them; of a name that is given twice the last one counts, but for `lists`.

    Raises:
        RequestValidationError: as FastAPI words it.
    """
    given: dict[str, Any] = dict(request.query_params)
    for name in lists & given.keys():
        given[name] = request.query_params.getlist(name)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError(
            [{**fault, "loc": ("query", *fault["loc"])} for fault in faults]
        ) from error
