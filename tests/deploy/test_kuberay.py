"""The manifests of deploy/kuberay, checked as `make lint` does, and against the program that they run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from app import cli
from app.commands.bulk.options import with_run

FOLDER = ROOT / "deploy" / "kuberay"
JOB, CLUSTER = FOLDER / "job-embedded.yaml", FOLDER / "cluster-triton.yaml"


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--schemafile",
        str(FOLDER / "schema.json"),
        str(path),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def spec_of(path: Path) -> dict[str, Any]:
    """The RayCluster's part of a manifest."""
    spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(path: Path) -> Iterator[dict[str, Any]]:
    spec = spec_of(path)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_the_manifests_fit_their_schema() -> None:
    """The schema of `make lint` accepts both."""
    for path in (JOB, CLUSTER):
        done = checked(path)
        assert done.returncode == 0, done.stdout


def _kind(document: dict[str, Any]) -> None:
    document["kind"] = "RayJobs"


def _version(document: dict[str, Any]) -> None:
    document["apiVersion"] = "ray.io/v2"


def _misspelt(document: dict[str, Any]) -> None:
    document["spec"]["shutdownAfterJobFinish"] = True


def _number(document: dict[str, Any]) -> None:
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _no_command(document: dict[str, Any]) -> None:
    del document["spec"]["entrypoint"]


def _no_limit(document: dict[str, Any]) -> None:
    del document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]


@pytest.mark.parametrize("spoil", [_kind, _version, _misspelt, _number, _no_command, _no_limit])
def test_a_mistake_in_a_manifest_is_seen(spoil: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    """The check above can fail: an unknown kind or field, a number for text, what is missing."""
    document = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    spoil(document)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    done = checked(tmp_path / "job.yaml")
    assert done.returncode == 1, done.stdout


def test_the_job_s_command_is_one_of_gateway() -> None:
    """The command line parses, and what it names is mounted where it runs."""
    words = shlex.split(yaml.safe_load(JOB.read_text(encoding="utf-8"))["spec"]["entrypoint"])
    assert words[0] == "gateway"
    parsed = cli._parser().parse_args(with_run(words[1:]))
    assert parsed.on == "ray"
    mounts = [mount["mountPath"] for mount in next(pods(JOB))["containers"][0]["volumeMounts"]]
    assert str(parsed.profile.parent) in mounts


@pytest.mark.parametrize("path", [JOB, CLUSTER], ids=lambda path: path.name)
def test_every_mount_has_its_volume_and_ray_is_first(path: Path) -> None:
    """KubeRay takes the first container of a pod for Ray's; volumes are mounted, and what is mounted is there."""
    for pod in pods(path):
        containers = [*pod["containers"], *pod.get("initContainers", ())]
        mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", ())}
        assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
        assert containers[0]["name"].startswith("ray-")


def test_each_triton_is_shared_by_as_many_workers_as_the_pod_says() -> None:
    """Ray is told a number of the resource that workers reserve, in JSON within a string."""
    (group,) = spec_of(CLUSTER)["workerGroupSpecs"]
    told = json.loads(json.loads(group["rayStartParams"]["resources"]))
    assert set(told) == {"triton"}
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert told["triton"] * 2 <= cpus  # one for decoding and one for the frames of each video


def test_the_image_has_the_version_of_ray_that_the_tests_ran_with() -> None:
    """The base image's tag follows constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (version,) = (line.removeprefix("ray==") for line in lines if line.startswith("ray=="))
    assert f"rayproject/ray:{version}-py" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")
