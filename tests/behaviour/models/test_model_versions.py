"""Two versions of a branch side by side: who gets which, what answers say of it, and that each serves by itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from support.models.repository import DEPTH, DETECTORS, OTHERS, build, build_version
from support.paths import ROOT
from support.servers.gateway import client, png, scene
from support.servers.redis_server import RedisServer
from support.waiting import eventually

from app import cli
from deploy.local.triton_server import TritonServer
from export import __main__ as export
from routing.rollout import position
from routing.versions import served_folder

VIDEO = ROOT / "docs/astronaut.mp4"
PICTURE = png(scene(320, 320, (0, 64, 64, 32), (1, 192, 64, 32)))
ENGINES = ("embedded", pytest.param("triton", marks=pytest.mark.triton))
PAIR = [(name, ("a.png", PICTURE, "image/png")) for name in ("frame0", "frame1")]
POSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "yolo11n_320": ("/v1/detect", {"content": PICTURE}),
    "midas_256": ("/v1/depth", {"content": PICTURE}),
    "raft_256": ("/v1/flow", {"files": PAIR}),
    "clip_image_224": ("/v1/clip/image", {"content": PICTURE}),
    "clip_text": ("/v1/clip/text", {"json": {"prompts": ["a cat"]}}),
    "places365_resnet50_224": ("/v1/places", {"content": PICTURE}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a second version of a branch of every family, and a third one of depth that is broken."""
    root = build(tmp_path_factory.mktemp("versions"), (*DETECTORS, "yolo11n_320_uint8", *DEPTH, *OTHERS))
    for name in POSTS:
        build_version(root, name, "2")
    broken = build_version(root, "midas_256", "3")
    (root / f"{broken}_onnx/3/model.onnx").write_bytes(b"no model")
    return root


@pytest.fixture(scope="module", params=ENGINES)
def gateway(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A gateway that gives a part of the keys the second version of three branches."""
    with ExitStack() as stack:
        settings: dict[str, Any] = {
            "rollout": "yolo11n_320=2:30%, midas_256=3:100%, places365_resnet50_224=2:0%"
        }
        if request.param == "triton":
            server = TritonServer(folder, tmp_path_factory.mktemp("triton") / "triton.log")
            stack.enter_context(server)
            settings |= {"engine": "triton", "triton_url": server.grpc_url}
        names = ",".join(one for name in POSTS for one in (name, f"{name}_v2"))
        yield stack.enter_context(client(folder, require_ready=names, **settings))


def _json(response: Any, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text
    document: dict[str, Any] = response.json()
    return document


@pytest.mark.parametrize("branch", POSTS)
def test_every_family_answers_by_the_version_that_is_asked_for(gateway: TestClient, branch: str) -> None:
    """Name, version and digest tell the versions apart, and so does the signature."""
    path, request = POSTS[branch]
    answers = {
        number: _json(gateway.post(path, params={"version": number}, **request)) for number in ("1", "2")
    }
    used = {number: answer["models_used"][0] for number, answer in answers.items()}
    assert {number: one["model_version"] for number, one in used.items()} == {"1": "1", "2": "2"}
    assert used["2"]["model_name"].removesuffix("_uint8") == f"{branch}_v2"
    assert used["1"]["weights_digest"] != used["2"]["weights_digest"]
    assert "unknown" not in (used["1"]["weights_digest"], used["2"]["weights_digest"])
    assert answers["1"]["model_signature"] != answers["2"]["model_signature"]
    assert answers["1"]["branch"]["name"].removesuffix("_uint8") == branch
    missing = _json(gateway.post(path, params={"version": "9"}, **request), 404)
    assert missing["code"] == "model_not_found"
    assert "has no version '9'; it has 1, 2" in missing["detail"]


def test_texts_and_pictures_have_the_version_that_is_asked_for(gateway: TestClient) -> None:
    """Similarity and embeddings in OpenAI's form take both models of CLIP in it."""
    files = [("file", ("a.png", PICTURE, "image/png")), ("prompt", (None, b"a cat"))]
    answers = [
        gateway.post("/v1/clip/similarity?version=2", files=files),
        gateway.post("/v1/clip/similarity?branch=clip_image_224_v2", files=files),
    ]
    for answer in answers:
        assert {one["model_version"] for one in _json(answer)["models_used"]} == {"2"}
    for path, name in (("/v1/embeddings?version=2", "clip"), ("/v1/embeddings", "clip_text_v2")):
        found = _json(gateway.post(path, json={"model": name, "input": "a cat"}))
        assert found["model"] == "clip_text_v2"


def test_a_key_always_gets_one_version(gateway: TestClient) -> None:
    """Position and percentage decide; the answer says why, and a named version wins."""
    for key in map(str, range(20)):
        inside = position("core_object_detections", key) < 3000
        answers = [
            _json(gateway.post("/v1/detect", content=PICTURE, headers={"X-Rollout-Key": key}))
            for _ in range(2)
        ]
        names = {answer["branch"]["name"].removesuffix("_uint8") for answer in answers}
        assert names == {"yolo11n_320_v2" if inside else "yolo11n_320"}
        why = answers[0]["branch"]["why"]
        assert why.startswith("rollout: version 2 serves 30% of keys (rule:") is inside
        pinned = gateway.post("/v1/detect?version=1", content=PICTURE, headers={"X-Rollout-Key": key})
        assert _json(pinned)["models_used"][0]["model_version"] == "1"


def test_a_session_stays_with_its_version(gateway: TestClient) -> None:
    """The id is the key; a header that comes later changes nothing, and a version that comes later is a conflict."""
    keys = [f"camera{number}" for number in range(40)]
    (inside, *_), (outside, *_) = (
        [key for key in keys if (position("core_object_detections", key) < 3000) is wanted]
        for wanted in (True, False)
    )
    for session, version, other in ((inside, "2", outside), (outside, "1", inside)):
        for headers in ({}, {"X-Rollout-Key": other}):
            answer = _json(gateway.post(f"/v1/detect?session={session}", content=PICTURE, headers=headers))
            assert answer["models_used"][0]["model_version"] == version
        refused = _json(gateway.post(f"/v1/detect?session={session}&version=2", content=PICTURE), 409)
        assert refused["code"] == "session_conflict"


def test_a_broken_version_leaves_the_default_one_alone(gateway: TestClient) -> None:
    """Its rollout of 100 percent gets the default version, which says that it stood in; who names it is refused."""
    eventually(lambda: _versions(gateway, "midas_256")["3"]["readiness"] not in ("loading", "unreachable"))
    answer = _json(gateway.post("/v1/depth", content=PICTURE))
    assert answer["branch"]["name"] == "midas_256"
    assert [passed["branch"] for passed in answer["branch"]["passed_over"]] == ["midas_256_v3"]
    assert not answer["degraded"]
    refused = _json(gateway.post("/v1/depth?version=3", content=PICTURE), 503)
    assert refused["code"] == "model_not_ready"
    instead = _json(gateway.post("/v1/depth?version=3&fallback=true", content=PICTURE))
    assert (instead["branch"]["name"], instead["degraded"]) == ("midas_256", True)


def _versions(gateway: TestClient, branch: str) -> dict[str, dict[str, Any]]:
    families = _json(gateway.get("/v1/branches"))["families"]
    rows = {row["name"]: row for family in families for row in family["branches"]}
    return {row["version"]: row for row in rows[branch]["versions"]}


def test_branches_list_their_versions(gateway: TestClient) -> None:
    """Each with state, digest and share; the default one comes first."""
    found = _versions(gateway, "yolo11n_320")
    assert [(row["version"], row["default"], row["rollout"]) for row in found.values()] == [
        ("1", True, None),
        ("2", False, "30%"),
    ]
    assert found["1"]["weights_digest"] != found["2"]["weights_digest"]
    assert _versions(gateway, "places365_resnet50_224")["2"]["rollout"] == "0%"
    assert list(_versions(gateway, "midas_256")) == ["1", "2", "3"]
    assert list(_versions(gateway, "yolo11n_640")) == ["1"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_promotion_under_requests_fails_none(engine: str, tmp_path: Path) -> None:
    """The default version changes from one answer to the next, each with its own digest; both are there afterwards."""
    root = build(tmp_path / "repository", DEPTH)
    build_version(root, "midas_256", "2")
    digests = {number: _noted(root, f"midas_256{end}_onnx") for number, end in (("1", ""), ("2", "_v2"))}
    with ExitStack() as stack:
        settings: dict[str, Any] = {"rescan_s": 0.05, "require_ready": "midas_256,midas_256_v2"}
        if engine == "triton":
            server = stack.enter_context(TritonServer(root, tmp_path / "triton.log"))
            settings = {**settings, "engine": "triton", "triton_url": server.grpc_url}
        with client(root, **settings) as gateway:
            answers: list[dict[str, Any]] = []

            def version() -> str:
                answers.append(_json(gateway.post("/v1/depth", content=PICTURE))["models_used"][0])
                return str(answers[-1]["model_version"])

            assert version() == "1"
            arguments = ["--repository", str(root), "--models", str(tmp_path / "models")]
            assert export.main(["promote", "midas_256", "2", *arguments]) == 0
            if engine == "triton":
                for name in ("midas_256", "midas_256_v1"):
                    httpx2.post(f"{server.http_url}/v2/repository/models/{name}/load").raise_for_status()
            eventually(lambda: version() == "2")
            eventually(lambda: version() == "2" and answers[-1]["weights_digest"] == digests["2"])
            numbers = [answer["model_version"] for answer in answers]
            assert numbers == sorted(numbers)
            for answer in answers:
                assert answer["weights_digest"] in (digests[answer["model_version"]], "unknown")
            assert (
                _json(gateway.post("/v1/depth?version=2", content=PICTURE))["branch"]["name"] == "midas_256"
            )
            assert [row["version"] for row in _versions(gateway, "midas_256").values()] == ["2"]
        settings["require_ready"] = "midas_256,midas_256_v1"
        with client(root, **settings) as gateway:
            for number, name in (("1", "midas_256_v1"), ("2", "midas_256")):
                answer = _json(gateway.post(f"/v1/depth?version={number}", content=PICTURE))
                assert answer["branch"]["name"] == name
                assert answer["models_used"][0]["weights_digest"] == digests[number]


def _noted(root: Path, model: str) -> str:
    return str(json.loads((served_folder(root / model) / "weights.json").read_bytes())["digest"])


def test_a_session_keeps_its_version_while_the_share_grows(folder: Path, tmp_path: Path) -> None:
    """Sessions that began on the default version stay there, in the store that replicas share too; new ones don't."""
    outside = next(
        key for key in map(str, range(99)) if 1000 <= position("core_object_detections", key) < 9000
    )
    with RedisServer(tmp_path / "redis") as redis:
        for share, expected in (("10%", {"old": "1"}), ("90%", {"old": "1", "new": "2"})):
            with client(folder, rollout=f"yolo11n_320=2:{share}", session_store=redis.url) as gateway:
                for name, version in expected.items():
                    headers = {"X-Rollout-Key": outside}
                    found = gateway.post(f"/v1/detect?session={name}", content=PICTURE, headers=headers)
                    assert _json(found)["models_used"][0]["model_version"] == version, (share, name)


def test_half_written_rollouts_and_unknown_branches_end_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with the setting and the word."""
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(folder))
    monkeypatch.setenv("GATEWAY_ENGINE", "embedded")
    for text, why in (
        ("yolo11n_320=2", "'yolo11n_320=2' isn't branch=version:percent%"),
        ("yolo11n_321=2:10%", "yolo11n_321: there is no such branch"),
    ):
        monkeypatch.setenv("GATEWAY_ROLLOUT", text)
        assert cli.main(["serve"]) == 2
        assert f"GATEWAY_ROLLOUT: {why}" in capsys.readouterr().err


def test_a_video_has_one_version(folder: Path, tmp_path: Path) -> None:
    """A streamed one is in the rollout as a whole; a job is in none, and its profile may name a version."""
    settings: dict[str, Any] = {"videos_folder": tmp_path / "videos", "rollout": "yolo11n_320=2:100%"}
    with client(folder, require_ready="yolo11n_320,yolo11n_320_v2", **settings) as gateway:
        path, headers = "/v1/detect?every=30&branch=yolo11n_320", {"Content-Type": "video/mp4"}
        streamed = gateway.post(path, content=VIDEO.read_bytes(), headers=headers)
        lines = [json.loads(line) for line in streamed.text.splitlines()]
        assert {line["models_used"][0]["model_version"] for line in lines[:-1]} == {"2"}
        for branch in ("yolo11n_320", "yolo11n_320_v2"):
            profile = (
                f"sampling: {{every: 60}}\ncomponents: {{core_object_detections: {{branch: {branch}}}}}\n"
            )
            files = {"file": ("v.mp4", VIDEO.read_bytes())}
            job = gateway.post("/v1/videos", files=files, data={"profile": profile}).json()
            view = _ended(gateway, job["id"])
            assert view["state"] == "done", view
            assert [used["model_name"] for used in view["manifest"]["models_used"]] == [branch]


def _ended(gateway: TestClient, job: str) -> dict[str, Any]:
    eventually(lambda: _json(gateway.get(f"/v1/videos/{job}"))["state"] in ("done", "failed"))
    return _json(gateway.get(f"/v1/videos/{job}"))


def test_the_name_of_a_key_stands_for_its_requests(folder: Path) -> None:
    """All requests of an API key get one version where there is no header and no session."""
    names = [f"team{number}" for number in range(6)]
    entries = ";".join(
        f"{name} sha256:{hashlib.sha256(name.encode()).hexdigest()} scopes=infer" for name in names
    )
    settings = {
        "require_ready": "yolo11n_320,yolo11n_320_v2",
        "rollout": "yolo11n_320=2:50%",
        "api_keys": entries,
    }
    with client(folder, **settings) as gateway:
        for name in names:
            expected = "2" if position("core_object_detections", name) < 5000 else "1"
            for _ in range(2):
                answer = _json(gateway.post("/v1/detect", content=PICTURE, headers={"X-API-Key": name}))
                assert answer["models_used"][0]["model_version"] == expected
