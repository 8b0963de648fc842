"""The Deployment of docs/tutorials/kubernetes.md speaks of settings, routes and paths that exist."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from app.main import create_app
from app.settings import Settings

PAGE = (ROOT / "docs/tutorials/kubernetes.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    """The Deployment's pod."""
    block = re.search(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    deployment, service = yaml.safe_load_all(block[1])
    assert service["kind"] == "Service"
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_its_settings_are_valid(pod: dict[str, Any]) -> None:
    """Each variable is a setting and takes the value."""
    (container,) = pod["containers"]
    given = {row["name"].removeprefix("GATEWAY_").lower(): row["value"] for row in container["env"]}
    settings = Settings(**given)
    assert set(given) <= set(Settings.model_fields)
    assert settings.drain_s + settings.shutdown_timeout_s + 1.5 < pod["terminationGracePeriodSeconds"]


def test_its_routes_and_ports_exist(pod: dict[str, Any]) -> None:
    """Probes ask routes of the service, on a port that the container names."""
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    paths = create_app(Settings()).openapi()["paths"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in paths
        assert asked["port"] in ports
    assert ports["operate"] == 9090


def test_its_user_and_folders_are_those_of_the_image(pod: dict[str, Any]) -> None:
    """The user is the Dockerfile's, and what is mounted lies where the image looks."""
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{pod['securityContext']['runAsGroup']}" in DOCKERFILE
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert f"WORKDIR {mounts['models']}" in DOCKERFILE
    assert f'VOLUME ["{mounts["state"]}"]' in DOCKERFILE
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
