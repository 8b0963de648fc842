"""`POST /v1/flow?variant=`, and what the operating routes say of variants: detection's and flow's keep apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.models.repository import CATALOGUE, build
from support.servers.gateway import client, png, scene

from app.api.openapi import schemas
from app.api.openapi.families.flow import FlowAnswer
from app.cli import main

FRAME = png(scene(300, 200, (0, 20, 20, 60)))
PAIR = {"frame0": ("0", FRAME), "frame1": ("1", FRAME)}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Both flow networks at 256, detection set to n."""
    folder = build(tmp_path_factory.mktemp("flows"), ("yolo11n_320", "raft_256", "raft_large_256"))
    with client(folder, variant="n", models="*") as test_client:
        yield test_client


@pytest.mark.parametrize(
    ("query", "branch", "variant"),
    [
        ("", "raft_256", "small"),
        ("?variant=small", "raft_256", "small"),
        ("?variant=large", "raft_large_256", "large"),
        ("?variant=large&branch=small", "raft_large_256", "large"),
        ("?variant=large&branch=256", "raft_large_256", "large"),
        ("?branch=raft_large_256", "raft_large_256", "large"),
        ("?variant=large&analysis_width=1920&analysis_height=1080", "raft_large_256", "large"),
    ],
)
def test_a_variant_is_chosen(gateway: TestClient, query: str, branch: str, variant: str) -> None:
    """Small serves unless large is asked for, and the answer says which network made it."""
    response = gateway.post(f"/v1/flow{query}", files=PAIR)
    assert response.status_code == 200, response.text
    document = response.json()
    FlowAnswer.model_validate(document)
    assert (document["branch"]["name"], document["branch"]["variant"]) == (branch, variant)
    assert document["resolved_model_mapping"] == {"core_optical_flow": branch}
    assert [used["model_name"] for used in document["models_used"]] == [branch]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/flow?variant=n", 400, "invalid_parameter"),
        ("/v1/flow?variant=large&branch=raft_256", 400, "invalid_parameter"),
        ("/v1/flow?variant=large&branch=512", 503, "weights_missing"),
        ("/v1/flow?branch=raft_large_640", 404, "model_not_found"),
    ],
)
def test_what_there_is_not_is_refused(gateway: TestClient, path: str, status: int, code: str) -> None:
    """Another family's variant, a contradiction, a branch without weights and one of no catalogue."""
    response = gateway.post(path, files=PAIR)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_small_never_stands_in_for_large(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without the large variant, requests for it are refused by its name, with a fallback allowed or not."""
    folder = build(tmp_path_factory.mktemp("small"), ("raft_256",))
    with client(folder) as gateway:
        for query in ("", "&fallback=true"):
            response = gateway.post(f"/v1/flow?variant=large{query}", files=PAIR)
            assert (response.status_code, response.json()["code"]) == (503, "weights_missing")
            assert "raft_large_256" in response.json()["detail"]


def _routes(gateway: TestClient, query: str = "") -> dict[str, Any]:
    document = gateway.get(f"/v1/branches?width=300&height=200{query}").json()
    schemas.Branches.model_validate(document)
    return {family["name"]: family["route"].get("branch") for family in document["families"]}


def test_branches_tell_both_variants_apart(gateway: TestClient) -> None:
    """A variant asks about the family that has it; the others answer as if nothing had been asked."""
    assert _routes(gateway)["detect"] == "yolo11n_320"
    assert _routes(gateway)["flow"] == "raft_256"
    large = _routes(gateway, "&variant=large")
    assert (large["detect"], large["flow"]) == ("yolo11n_320", "raft_large_256")
    n = _routes(gateway, "&variant=n")
    assert (n["detect"], n["flow"]) == ("yolo11n_320", "raft_256")


def test_branches_list_flow_s_variants(gateway: TestClient) -> None:
    """Names, variants and the default stand in the catalogue's answer."""
    families = {row["name"]: row for row in gateway.get("/v1/branches").json()["families"]}
    assert (families["flow"]["variants"], families["flow"]["default_variant"]) == (
        ["small", "large"],
        "small",
    )
    assert families["detect"]["default_variant"] == "n"
    variants = {row["name"]: row["variant"] for row in families["flow"]["branches"]}
    assert variants == {
        **{f"raft_{size}": "small" for size in (256, 384, 512)},
        **{f"raft_large_{size}": "large" for size in (256, 384, 512)},
    }


def test_large_is_on_no_checklist(gateway: TestClient) -> None:
    """Ready, it shows beyond the list; the list itself is that of small flow and of detection's variant."""
    document = gateway.get("/v1/repository").json()
    for key, required in (("required", True), ("optional", False)):
        names = {row["name"] for row in document[key]}
        assert names == set(CATALOGUE.ready_checklist(required=required, variant="n"))
        assert not [name for name in names if "raft_large" in name]
    others = {row["name"] for row in document["others_ready"]}
    assert {"raft_large_256", "raft_large_256_onnx", "preprocess_raft_large_256"} <= others


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--family", "flow", "300", "1920x1080"], ["raft_256", "raft_512"]),
        (
            ["--family", "flow", "--variant", "large", "300", "1920x1080"],
            ["raft_large_256", "raft_large_512"],
        ),
        (["--variant", "n", "300"], ["yolo11n_320"]),
        (["--variant", "large", "300"], ["invalid_parameter:"]),
        (["--family", "flow", "--variant", "n", "300"], ["invalid_parameter:"]),
    ],
)
def test_the_routing_table_knows_variants(
    capsys: pytest.CaptureFixture[str], arguments: list[str], printed: list[str]
) -> None:
    """`gateway routes` prints the branch of the variant, or that the family hasn't got it."""
    assert main(["routes", *arguments]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == printed
