"""API keys over HTTP: every route is shut until a rule opens it, and a refusal reads nothing and tells nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from support.models.engines import Arrays
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png, scene
from support.servers.listening import gateway as running
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.api.server import uvicorn_options
from app.api.server.access import OPEN, PROBES, rule_of, rules_of
from app.api.server.security_headers import cors
from app.engine.fake import FakeEngine
from app.families import FAMILIES
from app.keys.access import ApiKey, Rate, digest_of, entry, new_key
from app.main import create_app
from app.settings import Settings
from deploy.local.triton_server import free_ports

BODY = png(scene(320, 320, (1, 64, 96, 32)))
KEYS = {name: new_key() for name in ("infer", "operate", "both", "expired", "slow", "old")}


def _entry(name: str) -> str:
    scopes = {"operate": {"operate"}, "both": {"infer", "operate"}}.get(name, {"infer"})
    rate = Rate(0.01, 3) if name == "slow" else None
    return entry(
        ApiKey(
            name, digest_of(KEYS[name].encode()), frozenset(scopes), rate, 1.0 if name == "expired" else None
        )
    )


ENTRIES = ";".join(_entry(name) for name in KEYS)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.fixture(scope="module")
def guarded(repository: Path) -> Iterator[TestClient]:
    """A gateway that asks for keys."""
    with client(repository, api_keys=ENTRIES) as test_client:
        yield test_client


def _routes(routes: Iterable[Any]) -> Iterator[Route]:
    """All routes, those of included routers too; anything else that answers would be seen here and fail."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _routes(included.routes)
        else:
            assert isinstance(route, Route), route
            yield route


RULES = rules_of(FAMILIES.paths)
ROUTES = list(_routes(create_app(Settings()).routes))


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    """A new route fails here until it is decided who may use it."""
    assert {route.path for route in ROUTES} == set(RULES)
    assert len(ROUTES) > 20


def _method(route: Route) -> str:
    return min((route.methods or {"GET"}) - {"HEAD"})


def _call(gateway: TestClient, route: Route, headers: Mapping[str, str]) -> httpx2.Response:
    path = route.path.replace("{name:path}", "a/b").replace("{id}", "none")
    method = _method(route)
    return gateway.request(method, path, headers=headers, content=b"" if method == "POST" else None)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")
def test_each_route_asks_for_its_scope(guarded: TestClient, route: Route) -> None:
    """Without a key 401, with a key of the other scope 403, with the right one the route itself answers."""
    rule = rule_of(RULES, route.path, _method(route))
    assert rule is not None
    if rule == OPEN:
        assert _call(guarded, route, {}).status_code not in (401, 403)
        return
    assert _call(guarded, route, {}).status_code == 401
    for scope in ("infer", "operate"):
        answer = _call(guarded, route, bearer(scope))
        if scope in rule:
            assert answer.status_code not in (401, 403)
        else:
            document = answer.json()  # OpenAI's form has the code one level down
            assert (answer.status_code, document.get("error", document)["code"]) == (403, "forbidden")
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_a_route_that_is_forgotten_is_shut_for_everybody() -> None:
    """A path without a rule answers nobody, whoever wrote its route; without a key nobody learns that there is none."""
    app = create_app(Settings(api_keys=ENTRIES))

    @app.get("/v1/forgotten")
    async def forgotten() -> str:
        return "open"

    reached = TestClient(app)
    assert reached.get("/v1/forgotten").status_code == 401
    assert reached.get("/v1/forgotten", headers=bearer("both")).status_code == 404
    assert reached.get("/v1/nothing").status_code == 401
    assert reached.get("/v1/detect/", headers=bearer("both")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer KEY"}, 200),
        ({"Authorization": "bearer  KEY"}, 200),
        ({"X-API-Key": "KEY"}, 200),
        ({"Authorization": "Bearer KEY", "X-API-Key": "KEY"}, 200),
        ({"Authorization": "Basic dTpw", "X-API-Key": "KEY"}, 200),
        ({"Authorization": "Bearer KEY", "X-API-Key": "OTHER"}, 401),
        ({"Authorization": "KEY"}, 401),
        ({"Authorization": "Basic KEY"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer KEYx"}, 401),
        ({"X-API-Key": "gw_wrong"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "\xff\xfe"}, 401),
        ({"Cookie": "api_key=KEY"}, 401),
    ],
)
def test_a_key_comes_in_one_of_two_headers(guarded: TestClient, headers: dict[str, str], status: int) -> None:
    """A bearer token or X-API-Key, one key per request; the refusal is a problem that says what to send."""
    said = {n: v.replace("KEY", KEYS["both"]).replace("OTHER", KEYS["infer"]) for n, v in headers.items()}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
    answer = guarded.get("/v1/repository", headers=encoded)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unauthorized"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert KEYS["both"] not in answer.text


def test_a_key_in_the_url_is_none(guarded: TestClient) -> None:
    """URLs end in logs and histories, so a key there opens nothing."""
    assert guarded.get(f"/v1/repository?api_key={KEYS['both']}&key={KEYS['both']}").status_code == 401


def test_an_expired_key_is_refused(guarded: TestClient) -> None:
    """Its holder is told so."""
    answer = guarded.post("/v1/detect", content=BODY, headers=bearer("expired"))
    assert (answer.status_code, answer.json()["detail"]) == (401, "the API key expired has expired")


def test_a_rate_limit_is_its_key_s_own(guarded: TestClient) -> None:
    """Three at once, then 429 with the seconds until the next; other keys go on."""
    answers = [guarded.get("/v1/branches", headers=bearer("slow")) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].json()["code"] == "rate_limited"
    assert 90 <= int(answers[3].headers["retry-after"]) <= 100
    assert guarded.get("/v1/branches", headers=bearer("infer")).status_code == 200


def test_gateways_with_one_redis_share_the_limit_of_a_key(
    repository: Path, redis_server: RedisServer
) -> None:
    """Requests that one has admitted count at the other; GATEWAY_RATE_LIMIT_STORE=local counts on its own."""
    shared = {"api_keys": ENTRIES, "rate_limit_store": redis_server.url}
    with (
        client(repository, **shared) as one,
        client(repository, **shared) as other,
        client(repository, **{**shared, "rate_limit_store": "local"}) as alone,
    ):
        both = [
            gateway.get("/v1/branches", headers=bearer("slow")) for _ in range(3) for gateway in (one, other)
        ]
        assert [answer.status_code for answer in both] == [200, 200, 200, 429, 429, 429]
        assert all(90 <= int(answer.headers["retry-after"]) <= 100 for answer in both[3:])
        assert alone.get("/v1/branches", headers=bearer("slow")).status_code == 200
        redis_server.kill()
        answers = [one.get("/v1/branches", headers=bearer("slow")) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        text = one.get("/metrics", headers=bearer("operate")).text
        assert "gateway_rate_limit_fallbacks_total 4.0" in text


def test_requests_are_counted_by_the_name_of_their_key(guarded: TestClient) -> None:
    """Metrics name the keys as the configuration does; unknown keys make no new series."""
    for name in ("old", "old", "expired"):
        guarded.get("/v1/branches", headers=bearer(name))
    guarded.get("/metrics", headers=bearer("old"))
    guarded.get("/v1/branches", headers={"X-API-Key": "gw_stranger"})
    text = guarded.get("/metrics", headers=bearer("operate")).text
    counted = {
        (sample.labels["key_name"], sample.labels["judgement"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "gateway_key_requests_total"
    }
    assert counted["old", "forbidden"] >= 1
    assert counted["old", "admitted"] >= 2
    assert counted["expired", "expired"] >= 1
    assert {name for name, _ in counted} <= KEYS.keys()


def test_readiness_says_why_only_to_operators(repository: Path) -> None:
    """Probes without a key see the status; the reasons, which name addresses, take the scope operate."""
    app = create_app(
        Settings(
            api_keys=ENTRIES,
            require_ready="nothing_*",
            repository=repository,
            manifest=None,
            videos_folder=None,
        )
    )
    with TestClient(app) as unready:
        for headers in ({}, bearer("infer"), {"X-API-Key": "gw_wrong"}):
            answer = unready.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()["failing"]) == (503, [])
        assert unready.get("/readyz", headers=bearer("operate")).json()["failing"] != []


def _asgi(app: ASGIApp, headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[dict[str, Any]]:
    """One request straight to the app, with a body that fails the test when it is asked for."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind, "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect", "query_string": b"",
        "headers": [(b"host", b"testserver"), *headers], "http_version": "1.1", "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_refused_body_is_never_read() -> None:
    """No key, or the wrong one: the answer is there before the first byte of the body is asked for."""
    app = create_app(Settings(api_keys=ENTRIES))
    for name, value in (
        (b"x-none", b""),
        (b"x-api-key", b"gw_wrong"),
        (b"x-api-key", KEYS["operate"].encode()),
    ):
        for length, closed in (
            (b"1000000", False),
            (b"2000000", True),
        ):  # a short one is thrown away on arrival
            start = _asgi(app, [(b"content-length", length), (name, value)])[0]
            assert start["status"] in (401, 403)
            assert ((b"connection", b"close") in start["headers"]) == closed


def test_a_websocket_is_refused() -> None:
    """There are none, so none is accepted, with keys or without."""
    for settings in (Settings(), Settings(api_keys=ENTRIES)):
        assert _asgi(create_app(settings), [], "websocket") == [{"type": "websocket.close", "code": 1008}]


def test_without_keys_everything_is_open(gateway: TestClient) -> None:
    """Keys are asked for only where some are set; a key that isn't asked for does no harm."""
    assert gateway.get("/metrics").status_code == 200
    assert gateway.get("/v1/repository", headers={"X-API-Key": "gw_any"}).status_code == 200


def test_an_empty_list_of_keys_shuts_all(repository: Path, tmp_path: Path) -> None:
    """A file that names nobody lets nobody in: revoking the last key doesn't open the door."""
    (tmp_path / "keys").write_text("# nobody\n")
    with client(repository, api_keys_file=tmp_path / "keys") as shut:
        assert shut.get("/v1/branches", headers=bearer("both")).status_code == 401


def test_openapi_says_which_key_each_operation_takes(guarded: TestClient, gateway: TestClient) -> None:
    """Operations require keys when keys are configured; open paths take none; refusals are described."""
    for document, needed in (
        (guarded.get("/openapi.json").json(), True),
        (gateway.get("/openapi.json").json(), False),
    ):
        assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}
        either = [{"bearer": []}, {"api_key": []}]
        assert document["paths"]["/v1/detect"]["post"]["security"] == (either if needed else [{}, *either])
        assert document["paths"]["/metrics"]["get"]["x-scopes"] == ["operate"]
        assert document["paths"]["/v1/videos/{id}/artifacts/{name}"]["get"]["x-scopes"] == [
            "infer",
            "operate",
        ]
        assert document["paths"]["/v1/videos"]["post"]["x-scopes"] == ["infer"]
        assert "security" not in document["paths"]["/livez"]["get"]
        for operations in document["paths"].values():
            for operation in operations.values():
                if "security" in operation:
                    assert {"401", "403", "429"} <= set(operation["responses"])


# --- headers -------------------------------------------------------------------------------------------------------


def test_every_answer_says_what_a_browser_may_do_with_it(repository: Path) -> None:
    """Good ones, refusals, unknown paths and defects alike; what isn't a page may run nothing."""

    def break_(inputs: Arrays, outputs: Arrays) -> None:
        raise RuntimeError("a defect")

    engine = FakeEngine(CATALOGUE, {"yolo11n_320": break_}, 2, 64)
    with client(repository, lambda *_: engine, api_keys=ENTRIES) as guarded:
        answers = {
            200: guarded.get("/v1/branches", headers=bearer("infer")),
            401: guarded.get("/v1/branches"),
            404: guarded.get("/v1/none", headers=bearer("infer")),
            405: guarded.put("/v1/detect", headers=bearer("infer")),
            422: guarded.get("/v1/branches?width=x", headers=bearer("infer")),
            500: guarded.post("/v1/detect", content=BODY, headers=bearer("infer")),
        }
        page = guarded.get("/docs")
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "access-control-allow-origin" not in answer.headers
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].endswith("; frame-ancestors 'none'")


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def test_cors_is_off_unless_origins_are_named(repository: Path, guarded: TestClient) -> None:
    """Named origins may send a key and read answers, refusals too; others, and all others' cookies, get nothing."""
    here, there = {"Origin": "https://app.example"}, {"Origin": "https://evil.example"}
    assert guarded.options("/v1/detect", headers=here | PREFLIGHT).status_code == 401
    with client(
        repository, api_keys=ENTRIES, cors_origins="https://app.example, http://localhost:3000"
    ) as opened:
        asked = opened.options("/v1/detect", headers=here | PREFLIGHT)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, here["Origin"])
        assert "access-control-allow-credentials" not in asked.headers
        assert opened.options("/v1/detect", headers=there | PREFLIGHT).status_code == 400
        refused = opened.post("/v1/detect", content=BODY, headers=here)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, here["Origin"])
        answer = opened.get("/v1/branches", headers=bearer("infer") | there)
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (200, None)


def test_a_page_may_read_every_header_that_is_documented(guarded: TestClient) -> None:
    """Headers that OpenAPI declares, a depth map's scale too, are exposed by CORS: else scripts can't see them."""
    paths = guarded.app.openapi()["paths"].values()  # type: ignore[attr-defined]  # it is a FastAPI
    answers = [
        one for path in paths for operation in path.values() for one in operation["responses"].values()
    ]
    declared = {name for one in answers for name in one.get("headers", {})}
    assert {"X-Depth-Min", "X-Depth-Max", "X-Provenance", "Server-Timing"} <= declared
    assert declared <= set(cors("*")["expose_headers"])


# --- real servers --------------------------------------------------------------------------------------------------


def _ready(http: httpx2.Client) -> bool:
    return http.get("/readyz").status_code == 200


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_real_server_refuses_before_the_body_and_writes_no_key_down(
    repository: Path, tmp_path: Path
) -> None:
    """A gigabyte that is announced is answered with 401 and a closed connection; keys, good or wrong, are in no log
    line and no metric, even at debug.
    """
    port, log = free_ports(1)[0], tmp_path / "log"
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http,
        running(repository, log, lambda: _ready(http), port=port, api_keys=ENTRIES, log_level="debug"),
    ):
        wrong = new_key()
        assert http.post("/v1/detect", content=BODY, headers=bearer("infer")).status_code == 200
        assert http.post("/v1/detect", content=BODY, headers={"X-API-Key": wrong}).status_code == 401
        metrics = http.get("/metrics", headers=bearer("operate")).text
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            raw.sendall(
                b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n"
            )
            answer = b"".join(iter(lambda: raw.recv(65536), b""))  # to the end: the server closes
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer
    assert b"server:" not in answer.lower()
    written = log.read_text() + metrics
    assert "route=/v1/detect status=401" in written
    for secret in (wrong, *KEYS.values(), digest_of(KEYS["infer"].encode()).hex()):
        assert secret not in written


@pytest.mark.parametrize(
    ("trusted", "scheme"), [("", "http"), ("127.0.0.0/8", "https"), ("10.0.0.0/8", "http")]
)
def test_proxies_are_believed_only_where_they_are_named(trusted: str, scheme: str) -> None:
    """A forwarding header counts for the application only when a trusted proxy sent it."""
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["scheme"])

    config = uvicorn.Config(app, **uvicorn_options.options(Settings(trusted_proxies=trusted)))
    config.load()
    _asgi(config.loaded_app, [(b"x-forwarded-proto", b"https")])
    assert seen == [scheme]


def test_workers_share_keys_limits_and_the_port_for_operation(repository: Path, tmp_path: Path) -> None:
    """One limit for two of them; a key that is taken out of the file is refused by both; probes and metrics are on
    a port of their own and nowhere else.
    """
    port, own = free_ports(2)
    keys = tmp_path / "keys"
    keys.write_text(ENTRIES.replace(";", "\n"))
    closing = {"Connection": "close"}
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, headers=closing) as public,
        httpx2.Client(base_url=f"http://127.0.0.1:{own}", timeout=PATIENCE_S, headers=closing) as operate,
        running(
            repository, tmp_path / "log", lambda: all(_ready(operate) for _ in range(20)),
            port=port, operate_port=own, workers=2, api_keys_file=keys,
        ),
    ):  # fmt: skip
        answers = [public.get("/v1/branches", headers=bearer("slow")).status_code for _ in range(30)]
        assert answers.count(200) == 3
        assert answers.count(429) == 27
        for path in sorted(PROBES):
            assert public.get(path, headers=bearer("both")).status_code == 404
        assert operate.get("/livez").status_code == 200
        assert operate.get("/metrics").status_code == 401
        counted = operate.get("/metrics", headers=bearer("operate"))
        assert "gateway_requests_total" in counted.text
        assert operate.post("/v1/detect", content=BODY, headers=bearer("infer")).status_code == 404
        assert operate.get("/v1/branches").status_code == 404
        assert public.get("/v1/branches", headers=bearer("old")).status_code == 200
        keys.write_text(_entry("both"))
        limit = time.monotonic() + PATIENCE_S
        while {public.get("/v1/branches", headers=bearer("old")).status_code for _ in range(10)} != {401}:
            assert time.monotonic() < limit
            time.sleep(0.2)
        assert public.get("/v1/branches", headers=bearer("both")).status_code == 200


def test_one_process_has_two_ports(repository: Path, tmp_path: Path) -> None:
    """The port for operation opens with the service and ends with it; one that is taken is refused at the start."""
    port, own = free_ports(2)
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as public,
        httpx2.Client(base_url=f"http://127.0.0.1:{own}", timeout=PATIENCE_S) as operate,
        running(
            repository,
            tmp_path / "log",
            lambda: _ready(operate) and _listens(port),
            port=port,
            operate_port=own,
        ),
    ):
        assert public.post("/v1/detect", content=BODY).status_code == 200
        assert public.get("/metrics").status_code == 404
        assert 'route="/v1/detect"' in operate.get("/metrics").text
        second = running(
            repository, tmp_path / "second", lambda: False, port=free_ports(1)[0], operate_port=own
        )
        with pytest.raises(RuntimeError, match=r"GATEWAY_OPERATE_PORT: .*in use"), second:
            pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", own)) != 0
    assert "Traceback" not in (tmp_path / "log").read_text()
