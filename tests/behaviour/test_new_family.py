"""A family is declared once: a catalogue entry, a pipeline, a component and its row are found by everything else."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.analysis import arrays, opened
from support.servers.gateway import png, scene, wait_ready
from support.toy.component import ToyComponent
from support.toy.pipeline import ToyPipeline
from support.videos import write

from app.api.routes.default_route import default_routes
from app.api.server.access import rules_of
from app.commands.parser import Parser
from app.commands.predict import inputs
from app.commands.predict.answers import Work
from app.commands.predict.asking import Asking
from app.commands.predict.families.table import COMMANDS, commands_of
from app.commands.predict.options import add_commands
from app.commands.predict.saving import Saver
from app.commands.smoke.command import _inferences
from app.commands.smoke.gateway import GatewayTarget
from app.commands.smoke.http import Reply
from app.commands.smoke.triton import Found
from app.engine.fake import Arrays, FakeEngine
from app.errors import InvalidParameter
from app.families import FAMILIES, Families, FamilyRow
from app.main import create_app, create_pipelines
from app.metrics import Metrics
from app.settings import Settings
from app.videos.analysis import VideoAnalysis
from app.videos.profile_documents import ProfileReader
from app.videos.stores.folder import FolderStore
from deploy.grafana.build import dashboards
from deploy.prometheus.objectives import objectives
from routing.catalogue import CATALOGUE_PATH, Catalogue, load

ENTRY = """
[[family]]
name = "toy"
title = "Brightness"
component = "toy_brightness"
folder = "toy"
ensemble = true
[family.prepare]
fit = "stretch"
interpolation = "linear"
scale = 255.0
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[[family.input]]
name = "INPUT__0"
datatype = "UINT8"
shape = [1, "S", "S", 3]
[[family.output]]
name = "OUTPUT__0"
datatype = "FP32"
shape = [1, 1]
[[family.branch]]
name = "toy_32"
tier = "small"
size = 32
required = false
"""
WITH_TOY = Families((*FAMILIES.rows, FamilyRow(ToyPipeline, default_routes(ToyPipeline), ToyComponent)))
GREY = png(scene(64, 48))


@dataclass(frozen=True, slots=True)
class Wire:
    """The connection of a command, without a socket."""

    client: TestClient
    title: str = "the gateway of this test"

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return self.request("POST", path, body, headers)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        answer = self.client.request(method, path, content=body, headers=dict(headers or {}))
        return Reply(answer.status_code, dict(answer.headers), answer.content)

    def lines(
        self, path: str, file: BinaryIO, nbytes: int, headers: Mapping[str, str] | None = None
    ) -> Reply | Iterator[bytes]:
        raise NotImplementedError

    def close(self) -> None:
        """The client isn't ours."""


def brightness(inputs: Arrays, outputs: Arrays) -> None:
    """Stand in for the model: the mean of the pixels, 0 to 1."""
    outputs["OUTPUT__0"][...] = inputs["INPUT__0"].mean() / 255


@pytest.fixture(scope="module")
def catalogue_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our catalogue and one family more."""
    folder = tmp_path_factory.mktemp("routing")
    shutil.copytree(CATALOGUE_PATH.parent / "labels", folder / "labels")
    path = folder / "branches.toml"
    path.write_text(CATALOGUE_PATH.read_text("utf-8") + ENTRY, "utf-8")
    return path


@pytest.fixture(scope="module")
def catalogue(catalogue_path: Path) -> Catalogue:
    return load(catalogue_path)


@pytest.fixture(scope="module")
def gateway(catalogue_path: Path) -> Iterator[TestClient]:
    """The service with that family alone ready."""
    app = create_app(
        Settings(videos_folder=None, manifest=None),
        lambda _, catalogue: FakeEngine(catalogue, {"toy_32": brightness}),
        WITH_TOY,
        catalogue_path,
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_ready(client.get)
        yield client


def test_its_route_answers_pictures_in_each_form(gateway: TestClient) -> None:
    """One picture as JSON with its provenance and as npy, and a batch; parameters are the dataclass's."""
    one = gateway.post("/v1/toy?scale=2", content=GREY)
    assert one.status_code == 200, one.text
    said = one.json()
    assert said["brightness"] == pytest.approx(2 * 114 / 255, abs=0.01)
    assert (said["branch"]["name"], said["branch"]["family"]) == ("toy_32", "toy")
    assert said["resolved_model_mapping"] == {"toy_brightness": "toy_32"}
    array = gateway.post("/v1/toy", content=GREY, headers={"Accept": "application/x-npy"})
    assert np.load(io.BytesIO(array.content)).shape == (1,)
    assert "models_used" in json.loads(array.headers["x-provenance"])
    batch = gateway.post("/v1/toy", files=[("file", GREY), ("file", b"no picture")])
    assert (len(batch.json()["results"]), batch.json()["errors"]) == (2, 1)
    assert gateway.post("/v1/toy?scale=11", content=GREY).status_code == 422
    assert gateway.post("/v1/toy?sale=1", content=GREY).status_code == 422
    assert gateway.post("/v1/toy", content=GREY, headers={"Accept": "image/png"}).status_code == 406


def test_its_route_answers_a_video(gateway: TestClient, tmp_path: Path) -> None:
    """A line per frame, and a summary."""
    video = write(tmp_path / "v.mp4", (scene(64, 48) for _ in range(3)))
    answer = gateway.post("/v1/toy", content=video.read_bytes(), headers={"Content-Type": "video/mp4"})
    *frames, last = [json.loads(line) for line in answer.text.splitlines()]
    assert [frame["branch"]["name"] for frame in frames] == ["toy_32"] * 3
    assert last["summary"]["frames"] == 3


def test_the_catalogue_s_routes_list_it(gateway: TestClient) -> None:
    """`GET /v1/branches` knows its branches."""
    rows = {row["name"]: row for row in gateway.get("/v1/branches").json()["families"]}
    assert [branch["name"] for branch in rows["toy"]["branches"]] == ["toy_32"]


def test_openapi_describes_it(gateway: TestClient) -> None:
    """Parameters, bodies, forms of the answer, an example that fits, and the scope that it asks for."""
    document = gateway.get("/openapi.json").json()
    operation = document["paths"]["/v1/toy"]["post"]
    assert (operation["operationId"], operation["summary"]) == ("toy", "Brightness of a frame")
    assert operation["x-scopes"] == ["infer"]
    assert {"scale", "branch", "fallback", "fps"} <= {row["name"] for row in operation["parameters"]}
    answer = operation["responses"]["200"]["content"]
    assert answer.keys() == {"application/json", "application/x-npy", "application/x-ndjson"}
    assert answer["application/json"]["example"]["brightness"] == 0.5
    schema = document["components"]["schemas"]["ToyAnswer"]
    assert schema["properties"]["brightness"]["type"] == "number"
    assert set(schema["required"]) == set(answer["application/json"]["example"])


def test_a_key_needs_the_scope_of_inference() -> None:
    """The rules of access are made from the table."""
    assert rules_of(WITH_TOY.paths)["/v1/toy"] == {"infer"}


def test_metrics_have_its_labels(gateway: TestClient) -> None:
    """Route, family and branch label its requests, stages, decisions and its queue."""
    assert gateway.post("/v1/toy", content=GREY).status_code == 200
    text = gateway.get("/metrics").text
    labels = 'branch="toy_32",family="toy"'
    assert f'gateway_branch_decisions_total{{{labels},kind="rule"}}' in text
    assert f'gateway_stage_duration_seconds_count{{{labels},stage="infer"}}' in text
    assert f'gateway_requests_total{{{labels},route="/v1/toy",status="200"}}' in text
    assert 'gateway_admission_running{family="toy"}' in text


def test_smoke_has_a_row_for_it(gateway: TestClient, catalogue: Catalogue) -> None:
    """`gateway smoke --url` runs each of its branches with two pictures."""
    target = GatewayTarget("http://gateway", 30, families=WITH_TOY)
    target._http = Wire(gateway)  # type: ignore[assignment]
    chosen = [(catalogue.branches["toy_32"], Found("toy_32", "ready"))]
    (row,) = _inferences(target, chosen)
    assert (row.kind, row.name, row.status, row.detail) == ("inference", "toy_32", "ok", "")


def test_the_command_line_has_a_command_for_it(
    gateway: TestClient, catalogue: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`gateway toy` answers pictures: a cell with the answer's own numbers, and the whole answer saved."""
    picture = tmp_path / "grey.png"
    picture.write_bytes(GREY)
    parser = Parser(prog="gateway")
    add_commands(parser.add_subparsers(), commands_of(catalogue), lambda _: 0)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "answer pictures by the family toy: Brightness" in " ".join(capsys.readouterr().out.split())
    parsed = parser.parse_args(["toy", str(picture), "--parameter", "scale=2"])
    command, saver = parsed.predict, Saver(tmp_path / "out", "toy", overwrite=False)
    (entry,) = inputs.found(parsed.files, videos=command.video is not None)
    work = Work(command, Asking(Wire(gateway), 30, 0), command.query(parsed), saver)
    answer = work.picture(entry, GREY)
    assert answer.branch == "toy_32"
    saved = json.loads((tmp_path / "out" / "grey.toy.json").read_text())
    assert saved["brightness"] == pytest.approx(2 * 114 / 255, abs=0.01)
    assert answer.result == f"brightness {saved['brightness']:.3g}"


def test_every_family_has_a_command(catalogue: Catalogue) -> None:
    """The commands with modules of their own serve all of ours, so that only the new family gets a plain one."""
    asked = [family for command in commands_of(catalogue) for family in command.families]
    assert sorted(asked) == sorted(catalogue.families)
    assert [command.name for command in commands_of(load())] == [command.name for command in COMMANDS]
    assert {command.route for command in commands_of(catalogue)} <= set(WITH_TOY.paths)


def test_its_route_has_a_latency_objective() -> None:
    """The rules that the alert and the dashboards read have a line for it, and those of the others stay."""
    made, ours = (objectives(table.objectives_s).splitlines() for table in (WITH_TOY, FAMILIES))
    (line,) = [line for line in made if line not in ours]
    assert line.endswith(':objective", expr: vector(1), labels: {route: /v1/toy}}')


def test_a_profile_may_name_its_component(catalogue: Catalogue, tmp_path: Path) -> None:
    """Its configuration is checked by name, and a video through it leaves its artefact."""
    reader = ProfileReader(WITH_TOY.components)
    profile = reader.parse("components: {toy_brightness: {scale: 2}}")
    ((kind, config),) = profile.components.given()
    reached = kind.reachable(config, catalogue, None, fallback=False, compact=False)
    assert [branch.name for branch in reached] == ["toy_32"]
    with pytest.raises(InvalidParameter, match="toy_brightness"):
        reader.parse("components: {toy_brightness: {sale: 2}}")
    settings, engine = Settings(videos_folder=None), FakeEngine(catalogue, {"toy_32": brightness})
    pipelines = create_pipelines(settings, catalogue, engine, Metrics(), WITH_TOY)
    video = write(tmp_path / "v.mp4", (scene(64, 48) for _ in range(3)))
    with opened(video) as given:
        manifest = VideoAnalysis(pipelines, profile, FolderStore(tmp_path / "out"), "v").run(given)
    assert manifest["resolved_model_mapping"] == {"toy_brightness": "toy_32"}
    found = arrays(tmp_path / "out" / "toy_brightness" / "brightness.npz")
    assert found["brightness"] == pytest.approx([2 * 114 / 255] * 3, abs=0.02)


def test_profiles_without_it_keep_their_hash() -> None:
    """A new family is no reason to do finished videos again."""
    text = "components: {core_object_detections: {}}"
    before, after = (ProfileReader(table.components).parse(text) for table in (FAMILIES, WITH_TOY))
    assert before.config_hash == after.config_hash


def test_dashboards_give_it_a_colour(catalogue: Catalogue) -> None:
    """Panels by family have a row for it, and the others are as they were."""

    def names(document: str) -> list[Any]:
        panels = json.loads(document)["panels"]
        rows = [row for panel in panels for row in panel.get("fieldConfig", {}).get("overrides", ())]
        return [row["matcher"]["options"] for row in rows]

    made = dashboards(catalogue.families)
    ours = dashboards(load().families)
    assert "/(^|· )toy$/" in names(made["branches.json"])
    assert [name for name in names(made["branches.json"]) if "toy" not in name] == names(
        ours["branches.json"]
    )
