"""A gateway over two real Tritons with different weights: what callers and operators see of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.commands import run_command
from support.models.two_tritons import TwoTritons, two_tritons
from support.servers.gateway import client, png, scene
from support.waiting import eventually
from support.witness import STEADY

pytestmark = [pytest.mark.long, pytest.mark.triton]
BODY = png(scene(320, 320, (1, 64, 96, 32)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoTritons]:
    with two_tritons(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(pair: TwoTritons) -> Iterator[TestClient]:
    with client(pair.repositories[0], **pair.settings) as made:
        eventually(lambda: _detector(made.get("/v1/repository").json())["weights_differ"])
        yield made


def _detector(document: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = next(one for one in document["models"] if one["name"] == STEADY)
    return row


def test_each_triton_is_listed(pair: TwoTritons, gateway: TestClient) -> None:
    """/v1/repository and /v1/branches have each server, and the version and digest of each model there."""
    addresses = [server.grpc_url for server in pair.servers]
    repository, branches = gateway.get("/v1/repository").json(), gateway.get("/v1/branches").json()
    branch = next(one for one in branches["families"][0]["branches"] if one["name"] == STEADY)
    for document, model in ((repository, _detector(repository)), (branches, branch)):
        assert [(one["endpoint"], one["connected"]) for one in document["endpoints"]] == [
            (address, True) for address in addresses
        ]
        assert model["weights_differ"]
        assert [(one["endpoint"], one["version"], one["weights_digest"]) for one in model["endpoints"]] == [
            (addresses[0], "1", pair.truth[1]), (addresses[1], "2", pair.truth[2]),
        ]  # fmt: skip
    assert gateway.get("/readyz").status_code == 200


def test_answers_name_their_triton_and_a_batch_has_one_kind(pair: TwoTritons, gateway: TestClient) -> None:
    """Single frames go to both, `branch.endpoint` says to which; frames of a batch and of a session have one digest."""
    seen = set()
    for _ in range(6):
        answer = gateway.post(f"/v1/detect?branch={STEADY}", content=BODY).json()
        seen.add((answer["branch"]["endpoint"], answer["models_used"][0]["weights_digest"]))
    assert seen == {(server.grpc_url, pair.truth[1 + n]) for n, server in enumerate(pair.servers)}
    for _ in range(3):
        files = [("file", (f"{n}.png", BODY, "image/png")) for n in range(6)]
        assert len(gateway.post(f"/v1/detect?branch={STEADY}", files=files).json()["models_used"]) == 1
    session = [
        gateway.post(f"/v1/detect?branch={STEADY}&session=gate", content=BODY).json() for _ in range(6)
    ]
    assert {frame["models_used"][0]["weights_digest"] for frame in session} == {pair.truth[1]}
    assert [frame["session"]["frame"] for frame in session] == [1, 2, 3, 4, 5, 6]


def test_metrics_have_each_triton(pair: TwoTritons, gateway: TestClient) -> None:
    """Connection, leases and moved runs stand by endpoint, and both digests are served ones."""
    text = gateway.get("/metrics").text
    for number, server in enumerate(pair.servers):
        assert f'gateway_triton_endpoint_away{{endpoint="{server.grpc_url}"}} 0.0' in text
        assert f'gateway_triton_endpoint_in_flight{{endpoint="{server.grpc_url}"}} 0.0' in text
        assert f'gateway_triton_endpoint_moved_runs_total{{endpoint="{server.grpc_url}"}} 0.0' in text
        assert pair.truth[1 + number] in text


def test_smoke_checks_each_triton(pair: TwoTritons, capsys: pytest.CaptureFixture[str]) -> None:
    """One report per server, by itself."""
    urls = pair.settings["triton_url"]
    arguments = ["--triton-url", urls, "--variant", "n", "--branches", STEADY, "--json"]
    code, out, _ = run_command(capsys, "smoke", *arguments)
    report = json.loads(out)
    assert code == report["exit_code"] == 0
    for server, one in zip(pair.servers, report["endpoints"], strict=True):
        assert server.grpc_url in one["target"]
        (inference,) = [check for check in one["checks"] if check["kind"] == "inference"]
        assert (inference["name"], inference["status"]) == (STEADY, "ok")
