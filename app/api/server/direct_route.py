"""Routes that FastAPI describes and that are called without its machinery.

The declared signature is shown in OpenAPI. Resolving it again for each request (which fields a model has, what
each is called, whether it is a list; a hop to a thread for every dependency that is a plain function) takes longer than
everything else between socket and pipeline: 0.6 ms of a request's 1.0.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from fastapi import Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.gateway import Gateway, gateway_of
from app.api.request.query_text import check_query, decoded, with_hint
from app.api.response import problems
from app.errors import InvalidParameter

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """Calls an endpoint of `(request, query, gateway)`, or less, straight away; any other as FastAPI does."""

    def get_route_handler(self) -> Handler:
        return _direct(self.endpoint) or super().get_route_handler()


class Shortcut:
    """Direct dispatch to routes without path parameters: one table lookup instead of FastAPI's ten layers.

    Plain ASGI, the innermost middleware. Everything else, other methods too, goes the usual way.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._handlers: dict[tuple[str, str], Handler] = {}
        for route in routes:
            handler = _direct(route.endpoint) if isinstance(route, DirectRoute) else None
            if handler is not None and isinstance(route, DirectRoute) and "{" not in route.path:
                self._handlers |= {(method, route.path): handler for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query: bytes = scope["query_string"]
        if len(query) > _LONGEST:
            try:
                check_query(query)
            except InvalidParameter as error:
                await (await problems.refusal(scope, error))(scope, receive, send)
                return
        handler = self._handlers.get((scope["method"], scope["path"]))
        if handler is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except problems.EXPECTED as error:
            response = await problems.expected(request, error)
        await response(scope, receive, send)


def _direct(endpoint: Callable[..., Any]) -> Handler | None:
    hints = typing.get_type_hints(endpoint, include_extras=True)
    sources = {name: _source(hints.get(name)) for name in inspect.signature(endpoint).parameters}
    known = {name: source for name, source in sources.items() if source is not None}
    if len(known) < len(sources):
        return None

    async def handle(request: Request) -> Response:
        given = {}
        for name, source in known.items():
            given[name] = request if source is _itself else source(request)
        response: Response = await endpoint(**given)
        return response

    return handle


def _source(hint: Any) -> Callable[[Request], Any] | None:
    """The source of a parameter's value; None: only FastAPI knows it."""
    if hint is Request:
        return _itself
    kind, *notes = typing.get_args(hint) or (None,)
    if kind is Gateway:
        return gateway_of
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(notes[0], params.Query):
        return functools.partial(query_of, model=kind)
    return None


def _itself(request: Request) -> Request:
    return request


Q = typing.TypeVar("Q", bound=BaseModel)
# Callers ask for the same again and again; a longer query is checked each time.
_REMEMBERED, _LONGEST = 1024, 256


def query_of(request: Request, model: type[Q]) -> Q:
    """Return the query parameters as `model`. A parameter sent at its default counts as not sent.

    Several requests may get the same object.

    Raises:
        InvalidParameter: a parameter that takes one value is given more than once.
        RequestValidationError: as FastAPI words it.
    """
    text: bytes = request.scope["query_string"]
    return (_known if len(text) <= _LONGEST else _checked)(text, model)  # type: ignore[return-value]  # a Q


def with_fields(request: Request, query: Q, fields: Mapping[str, Sequence[str]]) -> Q:
    """Return the query parameters together with those that came as fields of the body's form; empty ones are none.

    Raises:
        InvalidParameter: a name stands in the query and in the form; see also `query_of`.
        RequestValidationError: as FastAPI words it.
    """
    fields = {
        name: values for name, values in fields.items() if any(values)
    }  # browsers send empty inputs too
    if not fields:
        return query
    asked = QueryParams(decoded(request.scope["query_string"])).multi_items()
    names = {name for name, _ in asked}
    both = [name for name in fields if name in names]
    if both:
        raise InvalidParameter(f"{', '.join(both)}: given in the query and in the form; send it once")
    pairs = [(name, value) for name, values in fields.items() for value in values]
    return _validated([*asked, *pairs], type(query), frozenset(fields))


def _checked(text: bytes, model: type[BaseModel]) -> BaseModel:
    return _validated(QueryParams(decoded(text)).multi_items(), model)


_known = functools.lru_cache(_REMEMBERED)(_checked)


def _validated(pairs: Sequence[tuple[str, str]], model: type[Q], in_form: frozenset[str] = frozenset()) -> Q:
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    lists = _lists(model)
    values = {name: found if name in lists else found[-1] for name, found in given.items()}
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError(
            [
                {
                    **with_hint(dict(fault), model.model_fields),
                    "loc": ("form" if fault["loc"][0] in in_form else "query", *fault["loc"]),
                }
                for fault in faults
            ]
        ) from error
    for name, found in given.items():
        if len(found) > 1 and name not in lists:
            raise InvalidParameter(f"{name} is given {len(found)} times; it takes one value")
    for name in tuple(checked.model_fields_set):
        if getattr(checked, name) == model.model_fields[name].get_default(call_default_factory=True):
            checked.model_fields_set.discard(name)
    return checked


@functools.cache
def _lists(model: type[BaseModel]) -> frozenset[str]:
    """The parameters that take several values."""
    return frozenset(name for name, field in model.model_fields.items() if _takes_list(field.annotation))


def _takes_list(annotation: Any) -> bool:
    """`list[...]`, or a union with one."""
    return any(typing.get_origin(part) is list for part in (annotation, *typing.get_args(annotation)))
