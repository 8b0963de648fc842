"""Status routes: branches, repository and probes."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.models.repository import CATALOGUE, build
from support.paths import ROOT
from support.servers.gateway import client, png, scene

from app.api.openapi import schemas
from app.main import create_app
from app.settings import Settings


def test_branches_show_the_whole_catalogue(gateway: TestClient) -> None:
    """Every family and branch with contract, thresholds, readiness and weights."""
    document = gateway.get("/v1/branches").json()
    schemas.Branches.model_validate(document)
    assert [family["name"] for family in document["families"]] == list(CATALOGUE.families)
    rows = {row["name"]: row for family in document["families"] for row in family["branches"]}
    assert set(rows) == set(CATALOGUE.branches)
    assert rows["yolo11n_320"]["readiness"] == "ready"
    assert rows["yolo11n_320"]["weights"] == "random"
    assert rows["yolo11n_320"]["weights_digest"].startswith("sha256:")
    assert rows["midas_512"]["readiness"] == "weights_missing"
    assert rows["midas_512"]["reason"]
    assert rows["clip_image_336"]["model_size"] == 320
    assert all("route" not in family for family in document["families"])


def test_branches_say_what_a_frame_would_take(gateway: TestClient) -> None:
    """With a size, each family's decision or the reason why there is none."""
    document = gateway.get("/v1/branches?width=300&height=200").json()
    schemas.Branches.model_validate(document)
    routes = {family["name"]: family["route"] for family in document["families"]}
    assert routes["detect"]["branch"] == "yolo11n_320"
    assert routes["detect"]["warnings"]
    assert routes["depth"]["branch"] == "midas_256"
    assert routes["flow"]["error"]["code"] == "weights_missing"
    large = gateway.get("/v1/branches?width=1920&height=1080&fallback=true").json()
    routes = {family["name"]: family["route"] for family in large["families"]}
    assert routes["detect"]["branch"] == "yolo11n_640"
    assert not routes["detect"]["degraded"]
    assert routes["depth"] | {"why": ""} == {
        "branch": "midas_256",
        "kind": "fallback",
        "why": "",
        "passed_over": [
            {"branch": "midas_512", "reason": "its weights are missing"},
            {"branch": "midas_384", "reason": "its weights are missing"},
        ],
        "degraded": True,
        "warnings": [],
    }


@pytest.mark.parametrize(
    "query", ["?width=3", "?width=0&height=1", "?width=a&height=1", "?w=1", "?variant=q"]
)
def test_a_size_that_is_none_is_refused(gateway: TestClient, query: str) -> None:
    """Half a size, zero and unknown names are problems."""
    assert gateway.get(f"/v1/branches{query}").status_code in (400, 422)


def test_the_repository_stands_beside_the_checklist(gateway: TestClient) -> None:
    """Required, optional, missing; what is ready beyond the list shows too."""
    document = gateway.get("/v1/repository").json()
    schemas.Repository.model_validate(document)
    required = {row["name"] for row in document["required"]}
    assert required == set(CATALOGUE.ready_checklist(required=True, variant="n"))
    assert not document["checklist_ready"]
    assert set(document["missing"]) == required - {"midas_256", "midas_256_onnx", "preprocess_midas_256"}
    optional = {row["name"]: row["readiness"] for row in document["optional"]}
    assert optional["yolo11n_320"] == "ready"
    assert optional["yolo11n_960"] == "weights_missing"


def test_required_is_what_readyz_waits_for(repository: Path) -> None:
    """In the repository's rows, in the branches' and in the metrics alike; the checklist is a column of its own."""
    with client(repository, require_ready="yolo11n_320,midas_256") as gateway:
        rows = gateway.get("/v1/repository").json()["models"]
        families = gateway.get("/v1/branches").json()["families"]
        metrics = {f.name: f for f in text_string_to_metric_families(gateway.get("/metrics").text)}
    models = {"yolo11n_320", "midas_256", "preprocess_midas_256", "midas_256_onnx"}
    assert {row["name"] for row in rows if row["required"]} == models
    branches = [branch for family in families for branch in family["branches"]]
    assert {branch["name"] for branch in branches if branch["required"]} == {"yolo11n_320", "midas_256"}
    samples = metrics["gateway_model_ready"].samples
    assert {s.labels["model"] for s in samples if s.labels["required"] == "true"} == models
    lists = {
        key: CATALOGUE.ready_checklist(required=key == "required", variant="n")
        for key in ("required", "optional")
    }
    on_list = {name: key for key, names in lists.items() for name in names}
    assert {row["name"]: row["checklist"] for row in rows if row["checklist"]} == on_list
    assert {s.labels["model"]: s.labels["checklist"] for s in samples if s.labels["checklist"]} == on_list


def test_nothing_is_required_unless_it_is_named(gateway: TestClient) -> None:
    """A gateway with the starter models is green, and no model is required that could alarm."""
    assert gateway.get("/readyz").status_code == 200
    assert not any(row["required"] for row in gateway.get("/v1/repository").json()["models"])
    assert 'required="true"' not in gateway.get("/metrics").text


def test_liveness_needs_nothing(gateway: TestClient) -> None:
    """The process answers."""
    assert gateway.get("/livez").json() == {"status": "ok"}


def test_readiness_is_green_when_something_serves(gateway: TestClient) -> None:
    """The starter set is enough unless more is asked for."""
    assert gateway.get("/readyz").json() == {"status": "ok", "failing": []}


@pytest.mark.parametrize(
    ("required", "failing"),
    [
        ("yolo11n_320,midas_256", set()),
        ("yolo11n_*", {"yolo11n_960"}),
        ("yolo11n_320,yolo12n_640, midas_9*", {"yolo12n_640", "midas_9*"}),
        ("checklist", {b.name for b in CATALOGUE.branches.values() if b.required} - {"midas_256"}),
    ],
)
def test_readiness_names_what_fails(repository: Path, required: str, failing: set[str]) -> None:
    """Branches that must be READY keep it red by name."""
    settings = Settings(repository=repository, manifest=None, require_ready=required)
    with TestClient(create_app(settings)) as gateway:
        while any(row["readiness"] == "loading" for row in gateway.get("/readyz").json()["failing"]):
            pass
        answer = gateway.get("/readyz")
        schemas.Ready.model_validate(answer.json())
        assert {row["name"] for row in answer.json()["failing"]} == failing
        assert answer.status_code == (503 if failing else 200)


def test_an_empty_repository_is_not_ready_and_says_what_to_do(tmp_path: Path) -> None:
    """No model at all: red, and every call an error of the contract."""
    settings = Settings(repository=build(tmp_path, []), manifest=None)
    with TestClient(create_app(settings)) as gateway:
        while any(row["readiness"] == "loading" for row in gateway.get("/readyz").json()["failing"]):
            pass
        answer = gateway.get("/readyz")
        assert answer.status_code == 503
        assert "make models" in answer.json()["failing"][0]["reason"]
        refused = gateway.post("/v1/detect", content=png(scene(64, 64)))
        assert (refused.status_code, refused.json()["code"]) == (503, "weights_missing")


def test_a_triton_that_is_away_is_named(tmp_path: Path) -> None:
    """Engine triton, nobody listening: alive, not ready, and every call a 503."""
    settings = Settings(engine="triton", triton_url="127.0.0.1:9", repository=tmp_path, manifest=None)
    with TestClient(create_app(settings)) as gateway:
        assert gateway.get("/livez").status_code == 200
        answer = gateway.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["failing"][0]["readiness"] == "unreachable"
        refused = gateway.post("/v1/detect", content=png(scene(64, 64)))
        assert (refused.status_code, refused.json()["code"]) == (503, "triton_unavailable")
        assert refused.headers["retry-after"] == "1"


def test_metrics_count_what_was_answered(repository: Path) -> None:
    """Prometheus' own parser reads them; labels are routes and codes of ours."""
    with client(repository) as gateway:
        gateway.post("/v1/detect", content=png(scene(320, 320)))
        gateway.post("/v1/detect", content=b"text")
        gateway.get("/nowhere/secret")
        families = {f.name: f for f in text_string_to_metric_families(gateway.get("/metrics").text)}
    requests = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["gateway_requests"].samples
        if sample.name.endswith("_total")
    }
    assert requests["/v1/detect", "200"] == 1
    assert requests["/v1/detect", "415"] == 1
    assert requests["none", "404"] == 1
    assert not any("secret" in value for labels in requests for value in labels)
    samples = families["gateway_stage_duration_seconds"].samples
    stages = {sample.labels["stage"] for sample in samples if sample.name.endswith("_count")}
    assert stages == {"decode", "queue", "prepare", "infer", "finish", "encode"}
    ready = {s.labels["model"]: s.value for s in families["gateway_model_ready"].samples}
    assert ready["yolo11n_320"] == 1
    assert ready["midas_512"] == 0


@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/nowhere", 404, "not_found"),
    ("GET", "/v1/detect", 405, "method_not_allowed"),
    ("DELETE", "/livez", 405, "method_not_allowed"),
])  # fmt: skip
def test_paths_and_methods_that_are_none_are_problems(
    gateway: TestClient, method: str, path: str, status: int, code: str
) -> None:
    """Even these have a code and a request id."""
    answer = gateway.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    document = schemas.Problem.model_validate(answer.json())
    assert document.code == code


@pytest.mark.parametrize(("path", "methods"), [
    ("/v1/videos", "GET, HEAD, POST"),
    ("/v1/videos/some", "DELETE, GET, HEAD"),
    ("/v1/sessions/some", "DELETE, GET, HEAD"),
    ("/v1/detect", "POST"),
    ("/livez", "GET, HEAD"),
])  # fmt: skip
def test_a_refused_method_is_answered_with_all_that_the_path_has(
    gateway: TestClient, path: str, methods: str
) -> None:
    """Allow lists the methods of every route of the path, and HEAD wherever GET is."""
    answer = gateway.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)


SERVED = {
    ("POST", "/v1/detect"),
    ("POST", "/v1/depth"),
    ("POST", "/v1/flow"),
    ("POST", "/v1/clip/text"),
    ("POST", "/v1/clip/image"),
    ("POST", "/v1/clip/similarity"),
    ("POST", "/v1/places"),
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos"),
    ("GET", "/v1/videos/{id}"),
    ("DELETE", "/v1/videos/{id}"),
    ("GET", "/v1/videos/{id}/events"),
    ("GET", "/v1/videos/{id}/artifacts/{name}"),
    ("GET", "/v1/sessions/{id}"),
    ("DELETE", "/v1/sessions/{id}"),
    ("GET", "/v1/branches"),
    ("GET", "/v1/repository"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/v1/embeddings"),
}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in _references(value)]
    if isinstance(node, list):
        return [r for value in node for r in _references(value)]
    return []


def test_openapi_describes_every_route(gateway: TestClient) -> None:
    """Each path is the contract's, with its forms and problems; every reference resolves."""
    document = gateway.get("/openapi.json").json()
    described = {(method.upper(), path) for path, row in document["paths"].items() for method in row}
    assert described == SERVED
    for reference in _references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    detect = document["paths"]["/v1/detect"]["post"]
    assert {"image/jpeg", "multipart/form-data"} <= set(detect["requestBody"]["content"])
    assert {"application/json", "image/png"} <= set(detect["responses"]["200"]["content"])
    assert {"400", "404", "413", "415", "422", "429", "503", "504"} <= set(detect["responses"])
    names = {parameter["name"] for parameter in detect["parameters"]}
    assert {"conf", "iou", "max_det", "classes", "agnostic", "variant", "branch"} <= names
    assert {"analysis_width", "analysis_height", "X-Request-Timeout"} <= names


def test_every_documented_form_takes_the_real_answer(gateway: TestClient) -> None:
    """The forms that OpenAPI lists for each route have exactly the fields that the route answers with."""
    document = gateway.get("/openapi.json").json()
    body = png(scene(320, 320))
    parts = [("file", ("a", body)), ("file", ("b", b"broken"))]
    answers = [
        ("/v1/detect", "post", gateway.post("/v1/detect", content=body)),
        ("/v1/detect", "post", gateway.post("/v1/detect", files=parts)),
        ("/v1/branches", "get", gateway.get("/v1/branches")),
        ("/v1/repository", "get", gateway.get("/v1/repository")),
        ("/livez", "get", gateway.get("/livez")),
        ("/readyz", "get", gateway.get("/readyz")),
    ]
    for path, method, answered in answers:
        described = document["paths"][path][method]["responses"][str(answered.status_code)]
        schema = _resolve(document, described["content"]["application/json"]["schema"])
        forms = [_resolve(document, form) for form in schema.get("anyOf", [schema])]
        keys = set(answered.json())
        assert any(set(form["required"]) <= keys <= set(form["properties"]) for form in forms), path


def test_every_documented_problem_has_the_problem_s_fields(gateway: TestClient) -> None:
    """Each status that a route may fail with is described as application/problem+json."""
    document = gateway.get("/openapi.json").json()
    refused = gateway.post("/v1/detect", content=b"text").json()
    described = document["paths"]["/v1/detect"]["post"]["responses"]
    failures = {status: row["content"] for status, row in described.items() if status != "200"}
    for status, content in failures.items():
        form = _resolve(document, content["application/problem+json"]["schema"])
        assert set(form["required"]) == set(refused), status


def _resolve(document: Any, node: dict[str, Any]) -> dict[str, Any]:
    """The schema that a node is, or refers to."""
    if "$ref" not in node:
        return node
    found: dict[str, Any] = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_the_documented_examples_run(repository: Path, tmp_path: Path) -> None:
    """Every curl line of OpenAPI, carried out as curl would, answers in its form, or that only weights are missing."""
    with client(repository, videos_folder=tmp_path / "videos") as gateway:
        document = gateway.get("/openapi.json").json()
        lines = [
            sample["source"]
            for path in document["paths"].values()
            for operation in path.values()
            for sample in operation.get("x-codeSamples", ())
        ]
        assert len(lines) >= 20
        video = "none yet"
        for line in sorted(lines, key=_when):
            answered = _curl(gateway, shlex.split(line.replace("ID", video)))
            if answered.status_code == 202:
                video = answered.json()["id"]
            elif answered.status_code == 503:  # the test repository has detectors and one depth model
                assert "/v1/detect" not in line
                problem = answered.json()
                assert problem.get("error", problem)["code"] == "weights_missing", line
            elif "source" in line:  # as for callback_url
                assert (answered.status_code, answered.json()["code"]) == (422, "source_not_allowed"), line
            elif "callback_url" in line:  # no host may be called, unless the settings name it
                assert (answered.status_code, answered.json()["code"]) == (422, "url_refused"), line
            elif "-X DELETE" in line:
                assert answered.status_code == 204, line
            else:
                assert answered.status_code == 200, (line, answered.text)
                assert answered.headers["content-type"].partition(";")[0] == _form_of(line), line


def _when(line: str) -> int:
    """Artefacts are there once the events have ended, and nothing is once it was deleted."""
    return 2 if "-X DELETE" in line else 1 if "/artifacts/" in line else 0


def _form_of(line: str) -> str:
    for words, form in (
        ("image/png", "image/png"),
        ("coco+json", "application/vnd.coco+json"),
        ("text/csv", "text/csv"),
        ("/events", "text/event-stream"),
        (".npz", "application/zip"),
    ):
        if words in line:
            return form
    return "application/x-ndjson" if ".mp4" in line else "application/json"


def _curl(gateway: TestClient, words: list[str]) -> Any:
    """The few options of curl that the examples use; another one fails here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", dest="header", default="Accept: */*")
    parser.add_argument("--data-binary", "-d", dest="body")
    parser.add_argument("-F", dest="parts", action="append", default=[])
    parser.add_argument("-o", dest="output")
    parser.add_argument("-X", dest="method", default="GET")
    for flag in ("-N", "-O"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("url")
    assert words[0] == "curl"
    given = parser.parse_args(words[1:])
    url = given.url.removeprefix("http://127.0.0.1:8080")
    headers = dict([given.header.split(": ")])
    if given.parts:
        pairs = [part.split("=", maxsplit=1) for part in given.parts]
        files = [
            (name, ("a", _value(text)) if text.startswith("@") else (None, text)) for name, text in pairs
        ]
        return gateway.post(url, files=files, headers=headers)
    if given.body:
        form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl says of any --data
        return gateway.post(url, content=_value(given.body), headers={**form, **headers})
    return gateway.request(given.method, url, headers=headers)


def _value(text: str) -> bytes:
    """Return what curl sends for `@file`, or for the text itself."""
    return (ROOT / text[1:]).read_bytes() if text.startswith("@") else text.encode()
