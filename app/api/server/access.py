"""The scope of each route, and the middleware that checks it before a byte of the body is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app import context
from app.api.request.headers import HEADERS
from app.api.response import problems
from app.api.server.middleware import Templates
from app.errors import GatewayError, Unauthorized
from app.keys import access
from app.keys.access import Access

OPEN: frozenset[access.Scope] = frozenset()
_INFER = frozenset[access.Scope]({"infer"})
_OPERATE = frozenset[access.Scope]({"operate"})
_ANY = _INFER | _OPERATE
Rules = Mapping[str, frozenset[access.Scope]]
# Route template -> scopes, one of which a key must have. A path that isn't here is refused, so a new route is shut
# until it is written down; a test walks every route of the app.
_OWN_RULES: Rules = {
    "/v1/videos": _ANY,  # reading and deleting; see `_POST`
    "/v1/videos/{id}": _ANY,
    "/v1/videos/{id}/events": _ANY,
    "/v1/videos/{id}/artifacts/{name:path}": _ANY,
    "/v1/sessions/{id}": _ANY,
    "/v1/embeddings": _INFER,
    "/v1/branches": _ANY,  # who sends frames has to know what is served
    "/v1/repository": _OPERATE,
    "/metrics": _OPERATE,
    # Kubernetes' probes can't send keys; without one, /readyz says whether, not why not.
    "/livez": OPEN,
    "/readyz": OPEN,
    # A browser that opens a page can't send a key either; these pages contain only what is in the public source.
    "/": OPEN,
    "/page/{name}": OPEN,
    "/docs": OPEN,
    "/docs/{name}": OPEN,
    "/openapi.json": OPEN,
}
# Templates that need another scope for POST than for reading: whoever operates sees all jobs, but runs none.
_POST: Mapping[str, frozenset[access.Scope]] = {"/v1/videos": _INFER}
# What goes to the port for operation, where there is one, and is then nowhere else.
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
# Keys of the ASGI scope.
OPERATE_PORT, DETAILS, CALLER = "gateway.operate_port", "gateway.details", "gateway.caller"
_ANYBODY = access.Caller()
_KEY_HEADERS = frozenset({b"authorization", b"x-api-key"})
_CHALLENGE = 'Bearer realm="gateway"'
_NOT_FOUND = HTTPException(404, "Not Found")


class Guard:
    """ASGI middleware that refuses before it reads the body, so that a caller without a key costs at most one hash.

    Args:
        app: what is guarded.
        rules: of the routes; see `rules_of`.
        keys: None: every route is open.
        apart: whether probes and metrics have a port of their own.
    """

    def __init__(self, app: ASGIApp, keys: Access | None, rules: Rules, *, apart: bool) -> None:
        self._app = app
        self._keys = keys
        self._apart = apart
        self._rules = rules
        self._templates = Templates(rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except (GatewayError, HTTPException) as error:
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        template = self._templates.of(scope["path"])
        if self._apart and scope.get(OPERATE_PORT, False) != (template in PROBES):
            raise _NOT_FOUND
        if self._keys is None:
            return
        rule = rule_of(self._rules, template, scope["method"])
        if rule is None:
            self._keys.identify(presented(scope))  # who has no key isn't told which paths there are
            raise _NOT_FOUND
        if rule == OPEN:
            scope[DETAILS] = template == "/readyz" and self._may_operate(scope)
        else:
            scope[CALLER] = caller = self._keys.caller(await self._keys.admit(presented(scope), rule))
            context.note_key(caller.name or "")
        # No code behind this middleware needs the key, so the key is removed and can't be logged.
        scope.pop(HEADERS, None)
        scope["headers"] = [header for header in scope["headers"] if header[0] not in _KEY_HEADERS]

    def _may_operate(self, scope: Scope) -> bool:
        try:
            return self._keys is not None and "operate" in self._keys.identify(presented(scope)).scopes
        except Unauthorized:
            return False


def rules_of(inference: Iterable[str]) -> Rules:
    """Return the rules of the service's own routes, and of those that run models.

    Args:
        inference: templates of the families' routes.
    """
    return {**dict.fromkeys(inference, _INFER), **_OWN_RULES}


def rule_of(rules: Rules, template: str, method: str) -> frozenset[access.Scope] | None:
    """Scopes, one of which a key must have; None: nobody may."""
    rule = rules.get(template)
    return _POST.get(template, rule) if method == "POST" else rule


def caller_of(request: Request) -> access.Caller:
    """Return the caller, whose sessions and jobs the request may see."""
    found: access.Caller = request.scope.get(CALLER, _ANYBODY)
    return found


def presented(scope: Scope) -> bytes | None:
    """The key of a request: a bearer token, or X-API-Key; never a part of the URL, which ends in logs.

    Raises:
        Unauthorized: several different ones.
    """
    found: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":  # what else is there may be a proxy's
                found.add(token.strip())
    if len(found) > 1:
        raise Unauthorized("the request has several API keys; send one")
    return next(iter(found), None)


async def _refuse(error: GatewayError | HTTPException, scope: Scope, receive: Receive, send: Send) -> None:
    response = await problems.refusal(scope, error)
    if response.status_code == 401:  # no error code where there was no token (RFC 6750, 3.1)
        bearer = Request(scope).headers.get("authorization", "").lower().startswith("bearer ")
        response.headers["WWW-Authenticate"] = _CHALLENGE + (', error="invalid_token"' if bearer else "")
    elif response.status_code == 403:
        response.headers["WWW-Authenticate"] = f'{_CHALLENGE}, error="insufficient_scope"'
    await response(scope, receive, send)
