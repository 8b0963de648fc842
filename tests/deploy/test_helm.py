"""The documents that the Helm chart makes: what runs in a pod, who may reach it, and that mistakes are seen."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from support.paths import ROOT

from app.settings import Settings
from deploy.helm import lint

VALUES = ("defaults", *(path.name for path in sorted(lint.CHART.glob("values-*.yaml"))))
SIDECAR = tuple(name for name in VALUES if name not in ("values-cpu.yaml", "values-external.yaml"))
# What Secrets hold, for the settings whose values come from them.
SECRETS = {
    "GATEWAY_SESSION_STORE": "redis://:word@redis:6379/0",
    "GATEWAY_JOB_STORE": "postgresql://user:word@postgresql:5432/jobs",
    "GATEWAY_WEBHOOK_SECRET": "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    """The packaged chart."""
    with lint.packaged() as packaged:
        yield packaged


def values_of(name: str) -> Document:
    return {} if name == "defaults" else lint.read_values(lint.CHART / name)


def merged(first: Document, second: Document) -> Document:
    both = {
        key: merged(first[key], second[key])
        for key in first.keys() & second.keys()
        if isinstance(second[key], dict)
    }
    return {**first, **second, **both}


def render(archive: Path, name: str = "defaults", **changes: Any) -> list[Document]:
    return lint.rendered(archive, merged(values_of(name), changes))


def one(documents: list[Document], kind: str, suffix: str = "") -> Document:
    (found,) = (d for d in documents if d["kind"] == kind and d["metadata"]["name"].endswith(suffix))
    return found


def pod_of(documents: list[Document]) -> Document:
    spec: Document = one(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def containers(pod: Document) -> dict[str, Document]:
    return {one["name"]: one for one in (*pod.get("initContainers", ()), *pod["containers"])}


def environment(container: Document) -> dict[str, str]:
    return {row["name"]: row.get("value", SECRETS.get(row["name"], "")) for row in container["env"]}


def mounts(container: Document) -> dict[str, Document]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_the_chart_passes_its_lint(capsys: pytest.CaptureFixture[str]) -> None:
    """Helm's lint, and Kubernetes' schemas in two versions, accept every set of values."""
    assert lint.main() == 0, capsys.readouterr().out
    assert len(VALUES) == 5


def test_defaults_and_schema_have_the_same_values() -> None:
    """No value lacks a place in the schema, and the schema has none that the chart doesn't know."""
    schema = json.loads((lint.CHART / "values.schema.json").read_text("utf-8"))
    defaults = lint.read_values(lint.CHART / "values.yaml")

    def differences(found: Document, known: Document, at: str) -> Iterator[str]:
        properties = known.get("properties")
        if properties is None:
            return
        yield from (f"{at}.{name}" for name in (found.keys() ^ properties.keys()) - {"global"})
        for name in found.keys() & properties.keys():
            if isinstance(found[name], dict):
                yield from differences(found[name], properties[name], f"{at}.{name}")

    assert set(differences(defaults, schema, "")) <= {".gateway.resources.requests", ".models.fetch"}


@pytest.mark.parametrize("name", VALUES)
def test_every_variable_is_a_setting_that_the_gateway_accepts(name: str, archive: Path) -> None:
    """Each GATEWAY_ variable is in app/settings.py, and the values pass its checks."""
    found = environment(containers(pod_of(render(archive, name)))["gateway"])
    settings = {
        key.removeprefix("GATEWAY_").lower(): value
        for key, value in found.items()
        if key.startswith("GATEWAY_")
    }
    assert set(settings) <= set(Settings.model_fields)
    Settings(**{key: value or None for key, value in settings.items()})  # type: ignore[arg-type]  # as text


@pytest.mark.parametrize("name", VALUES)
def test_probes_ask_the_port_for_operation(name: str, archive: Path) -> None:
    """Liveness touches nothing outside, readiness is another route, and the port is the one that the setting names."""
    gateway = containers(pod_of(render(archive, name)))["gateway"]
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    probes = {kind: gateway[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez", "liveness": "/livez", "readiness": "/readyz",
    }  # fmt: skip
    assert {ports[probe["port"]] for probe in probes.values()} == {ports["operate"]}
    assert environment(gateway)["GATEWAY_OPERATE_PORT"] == str(ports["operate"])


@pytest.mark.parametrize("name", SIDECAR)
def test_triton_is_a_native_sidecar_with_the_gateway_s_memory(name: str, archive: Path) -> None:
    """It starts first and ends last, both see one /dev/shm in memory, and one user runs both."""
    pod = pod_of(render(archive, name))
    triton, gateway = pod["initContainers"][-1], pod["containers"][0]
    assert (triton["name"], triton["restartPolicy"]) == ("triton", "Always")
    assert "startupProbe" in triton
    shared = {mounts(one)["/dev/shm"]["name"] for one in (triton, gateway)}
    (volume,) = (one for one in pod["volumes"] if {one["name"]} == shared)
    assert volume["emptyDir"]["medium"] == "Memory"
    assert "sizeLimit" in volume["emptyDir"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert not any("runAsUser" in one["securityContext"] for one in (triton, gateway))
    assert environment(gateway)["GATEWAY_TRITON_URL"] == "127.0.0.1:8001"
    assert {"--grpc-address=127.0.0.1", "--http-address=127.0.0.1"} <= set(triton["args"])
    assert "--metrics-address=0.0.0.0" in triton["args"]  # by default that of HTTP


@pytest.mark.parametrize("name", VALUES)
def test_the_gpu_belongs_to_triton_alone(name: str, archive: Path) -> None:
    """No other container has a limit or a request of it."""
    with_gpu = {
        container
        for container, spec in containers(pod_of(render(archive, name))).items()
        if "nvidia.com/gpu" in json.dumps(spec["resources"])
    }
    assert with_gpu == ({"triton"} if name in SIDECAR else set())


def test_a_gpu_for_the_gateway_is_refused_beside_triton(archive: Path) -> None:
    """The card would be taken from Triton."""
    with pytest.raises(helm.HelmError, match="belongs to Triton"):
        render(archive, gateway={"resources": {"limits": {"nvidia.com/gpu": 1}}})


@pytest.mark.parametrize("name", VALUES)
def test_no_container_may_more_than_it_needs(name: str, archive: Path) -> None:
    """No root, no token, no capability, no variables of Services, and a root file system that can't be written."""
    documents = render(archive, name)
    for pod in (pod_of(documents), one(documents, "Pod")["spec"]):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod).values():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            assert "/tmp" in mounts(container)


@pytest.mark.parametrize("name", VALUES)
def test_every_mount_has_its_volume(name: str, archive: Path) -> None:
    """Volumes are mounted, and what is mounted is there."""
    documents = render(archive, name)
    for pod in (pod_of(documents), one(documents, "Pod")["spec"]):
        mounted = {
            mount["name"] for container in containers(pod).values() for mount in container["volumeMounts"]
        }
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", VALUES)
def test_the_grace_period_covers_the_drain(name: str, archive: Path) -> None:
    """The wait before SIGTERM, the drain, running requests, and Triton's end fit into it."""
    pod = pod_of(render(archive, name))
    gateway = containers(pod)["gateway"]
    found = environment(gateway)
    stages = [gateway["lifecycle"]["preStop"]["sleep"]["seconds"], int(found["GATEWAY_DRAIN_S"])]
    stages.append(int(found["GATEWAY_SHUTDOWN_TIMEOUT_S"]))
    arguments = containers(pod).get("triton", {}).get("args", ())
    stages.extend(int(one.partition("=")[2]) for one in arguments if one.startswith("--exit-timeout-secs="))
    assert len(stages) == (4 if name in SIDECAR else 3)
    assert pod["terminationGracePeriodSeconds"] >= sum(stages) + 5


@pytest.mark.parametrize("name", VALUES)
def test_secrets_stay_in_secrets(name: str, archive: Path) -> None:
    """URLs with passwords, keys and credentials come from Secrets; no ConfigMap and no value of a variable has one."""
    documents = render(archive, name)
    for document in documents:
        assert document["kind"] != "ConfigMap" or "dashboard" in document["metadata"]["name"]
    for container in containers(pod_of(documents)).values():
        for row in container.get("env", ()):
            assert not re.search(r"://[^/]*@|whsec_", row.get("value", ""))
            if re.search("SECRET|ACCESS_KEY|JOB_STORE", row["name"]):
                assert "secretKeyRef" in row["valueFrom"]


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"API_KEYS": "camera sha256:0"}},
        {"settings": {"SESSION_STORE": "redis://:word@redis"}},
        {"settings": {"GATEWAY_VARIANT": "n"}},
        {"sessions": {"redis": {"url": "redis://:word@redis:6379/0"}}},
        {"keys": {"entries": ["gw_0123456789"]}},
        {"jobs": {"artifacts": "s3://key:word@bucket/jobs"}},
        {"models": {"fetch": {"sources": "s3://models"}}},
        {"replica": 3},
        {"triton": {"models": []}},
        {"shutdown": {"drainSeconds": "5"}},
    ],
)
def test_the_schema_refuses(changes: Document, archive: Path) -> None:
    """Passwords in values, misspelt values, and what the chart itself sets."""
    with pytest.raises(helm.HelmValuesError):
        render(archive, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas": 2}, "sessions.redis"),
        ({"autoscaling": {"kind": "hpa"}, "jobs": {"enabled": False}}, "sessions.redis"),
        ({"replicas": 2, "sessions": {"redis": {"url": "redis://redis:6379/0"}}}, "jobs.store"),
        ({"jobs": {"store": "postgresql"}}, "jobs.postgresql.existingSecret"),
        ({"jobs": {"store": "postgresql", "postgresql": {"existingSecret": "a"}}}, "jobs.artifacts"),
        ({"models": {"existingClaim": ""}}, "models: set"),
        ({"models": {"fetch": {"source": "s3://models/v1"}}}, "models: set"),
        ({"triton": {"mode": "external"}}, "triton.urls"),
        ({"triton": {"urls": ["triton:8001"]}}, "triton.urls"),
        ({"strategy": {"maxSurge": 0}}, "strategy"),
        ({"state": {"existingClaim": "state"}}, "maxSurge"),
        (
            {
                "state": {"existingClaim": "state"},
                "replicas": 2,
                "service": {"sessionAffinity": "ClientIP"},
                "jobs": {"enabled": False},
            },
            "one pod only",
        ),
    ],
)
def test_values_that_don_t_go_together_are_refused(changes: Document, words: str, archive: Path) -> None:
    """Several pods with stores of their own would answer differently; the message names the value."""
    with pytest.raises(helm.HelmError, match=words):
        render(archive, **changes)


def test_keys_from_values_are_mounted_as_the_file_that_the_gateway_reads(archive: Path) -> None:
    """One entry per line, in the Secret that is mounted at the path of the setting."""
    entries = [
        f"camera sha256:{'0' * 64} scopes=infer rate=20",
        f"prometheus sha256:{'1' * 64} scopes=operate",
    ]
    documents = render(archive, keys={"entries": entries})
    secret = one(documents, "Secret")
    pod = pod_of(documents)
    gateway = containers(pod)["gateway"]
    folder, _, name = environment(gateway)["GATEWAY_API_KEYS_FILE"].rpartition("/")
    (volume,) = (v for v in pod["volumes"] if v["name"] == mounts(gateway)[folder]["name"])
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    assert secret["stringData"][name].splitlines() == entries


def test_settings_reach_the_gateway_as_text(archive: Path) -> None:
    """Large numbers have no exponent, and a value of the user's comes before the chart's own."""
    settings = {
        "MAX_BODY_BYTES": 536870912,
        "SCALED_JPEG": True,
        "TRACING_SAMPLE_RATIO": 0.05,
        "LOG_FORMAT": "console",
    }
    found = environment(containers(pod_of(render(archive, settings=settings)))["gateway"])
    assert [found[f"GATEWAY_{name}"] for name in settings] == ["536870912", "true", "0.05", "console"]


@pytest.mark.parametrize("name", VALUES)
def test_what_the_gateway_keeps_fits_into_its_volume(name: str, archive: Path) -> None:
    """Kubernetes evicts a pod whose folder grows over its size."""
    pod = pod_of(render(archive, name))
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "state")
    size = int(volume.get("emptyDir", {"sizeLimit": "20Gi"})["sizeLimit"].removesuffix("Gi")) << 30
    found = environment(containers(pod)["gateway"])
    kept = sum(
        int(found[f"GATEWAY_{name}"])
        for name in ("VIDEOS_WAITING_BYTES", "VIDEOS_KEEP_BYTES", "GRAPH_CACHE_BYTES")
    )
    assert size * 0.7 < kept < size * 0.85
    assert found["GATEWAY_GRAPH_CACHE"].startswith("/var/lib/gateway/")


def test_rules_and_dashboards_are_those_of_the_project(archive: Path) -> None:
    """One source: the chart holds links to the files that the tests of rules and dashboards check."""
    documents = render(archive, "values-large.yaml")
    groups = [
        group
        for path in sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    assert one(documents, "PrometheusRule")["spec"]["groups"] == groups
    shown = {name: text for d in documents if d["kind"] == "ConfigMap" for name, text in d["data"].items()}
    folder = ROOT / "deploy" / "grafana" / "dashboards"
    assert {name: json.loads(text) for name, text in shown.items()} == {
        path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")
    }


def test_prometheus_finds_the_jobs_that_the_rules_name(archive: Path) -> None:
    """The monitor's ports are those of its Service, and the jobs have the names of the rules."""
    documents = render(archive, "values-large.yaml")
    monitor, service = one(documents, "ServiceMonitor")["spec"], one(documents, "Service", "-metrics")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ports = [port["name"] for port in service["spec"]["ports"]]
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == ports
    jobs = {
        row["replacement"]
        for endpoint in monitor["endpoints"]
        for row in endpoint["relabelings"]
        if row["targetLabel"] == "job"
    }
    rules = " ".join(
        path.read_text("utf-8") for path in (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml")
    )
    assert set(re.findall(r'job="(\w+)"', rules)) <= jobs
    assert (
        not monitor["selector"]["matchLabels"].items()
        <= one(documents, "Service", "-gateway")["metadata"]["labels"].items()
    )


def test_the_number_of_pods_follows_what_waits_and_runs(archive: Path) -> None:
    """KEDA and the autoscaler look at frames per pod, by metrics that exist; no number of pods is fixed beside them."""
    documents = render(archive, "values-large.yaml")
    (trigger,) = one(documents, "ScaledObject")["spec"]["triggers"]
    assert trigger["metricType"] == "AverageValue"
    assert "replicas" not in one(documents, "Deployment")["spec"]
    metrics = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    named = set(re.findall(r"gateway_\w+", trigger["metadata"]["query"]))
    assert named == {"gateway_admission_waiting", "gateway_admission_running"}
    assert all(f"`{name}`" in metrics for name in named)
    scaler = one(render(archive, "values-cpu.yaml"), "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]
    guide = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    assert scaler["metric"]["name"] in guide
    assert all(name in guide for name in named)


@pytest.mark.parametrize("name", VALUES)
def test_the_network_policy_allows_what_the_values_use(name: str, archive: Path) -> None:
    """Egress is DNS and the services that are configured; ingress is the Service's port, and metrics for Prometheus."""
    documents = render(archive, name)
    policy = one(documents, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert (
        policy["podSelector"]["matchLabels"]
        == one(documents, "Deployment")["spec"]["selector"]["matchLabels"]
    )
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    expected = {
        "defaults": {53},
        "values-small-gpu.yaml": {53},
        "values-cpu.yaml": {53, 6379},
        "values-external.yaml": {53, 8001, 6379, 5432, 443},
        "values-large.yaml": {53, 6379, 5432, 443, 80},
    }
    assert ports == expected[name]
    operate = policy["ingress"][1]
    assert {port["port"] for port in operate["ports"]} <= {"operate", "triton-metrics"}
    assert operate["from"]


def test_models_are_fetched_before_triton_starts(archive: Path) -> None:
    """The init container runs the gateway's own command, with the digest, into the folder that both then read."""
    digest = f"sha256:{'ab' * 32}"
    documents = render(archive, "values-large.yaml", models={"fetch": {"digest": digest}})
    fetch, triton = pod_of(documents)["initContainers"]
    assert fetch["args"] == [
        "models", "fetch", "s3://models/triton/v1", "--repository=/models", "--timeout=3600", f"--digest={digest}",
    ]  # fmt: skip
    assert "restartPolicy" not in fetch
    assert mounts(fetch)["/models"]["name"] == mounts(triton)["/models"]["name"]
    assert mounts(triton)["/models"]["readOnly"] is True


def test_the_small_card_gets_the_branches_that_fit() -> None:
    """The models are those of the plan for 6 GB (docs/memory.md); the ones that readiness waits for are among them."""
    table = re.findall(
        r"^\| `(\w+)` \| [\d,]+ \| (yes|no) \|",
        (ROOT / "docs" / "memory.md").read_text("utf-8"),
        re.MULTILINE,
    )
    fitting = {name for name, fits in table if fits == "yes"}
    values = values_of("values-small-gpu.yaml")
    assert set(values["triton"]["models"]) == fitting
    assert set(values["settings"]["REQUIRE_READY"].split(",")) <= fitting


def test_the_chart_has_the_version_and_the_triton_of_the_project() -> None:
    """The image's tag is the program's version, and Triton's is that of compose.yaml."""
    chart = lint.read_values(lint.CHART / "Chart.yaml")
    assert f'version="{chart["appVersion"]}"' in (ROOT / "Dockerfile").read_text("utf-8")
    image = lint.read_values(lint.CHART / "values.yaml")["triton"]["image"]
    assert f"{image['repository']}:{image['tag']}" in (ROOT / "compose.yaml").read_text("utf-8")


def test_every_set_of_values_is_explained() -> None:
    """Each begins with a comment, and docs/kubernetes.md names it."""
    guide = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    for name in VALUES[1:]:
        assert name in guide
        assert (lint.CHART / name).read_text("utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("template", "text", "changed", "words"),
    [
        ("service.yaml", "kind: Service\n", "kind: Servise\n", "has no Servise of v1"),
        ("servicemonitor.yaml", "kind: ServiceMonitor", "kind: ServiceMonitors", "has no ServiceMonitors"),
        ("deployment.yaml", "enableServiceLinks:", "enableServiceLink:", "enableServiceLink"),
        (
            "deployment.yaml",
            "terminationGracePeriodSeconds: {{",
            "terminationGracePeriodSeconds: x{{",
            "Grace",
        ),
        ("_containers.tpl", "medium: Memory", "medium: Memory, size: 1Gi", "size"),
        ("scaledobject.yaml", "minReplicaCount", "minReplicas", "minReplicas"),
        ("prometheusrule.yaml", "groups:", "group:", "group"),
        ("servicemonitor.yaml", "interval:", "intervall:", "intervall"),
        ("hpa.yaml", "averageValue", "average", "average"),
        ("networkpolicy.yaml", "policyTypes", "policyType", "policyType"),
        ("poddisruptionbudget.yaml", "maxUnavailable", "maxUnavailable: 1\n  maxUnavailable", "twice"),
        ("serviceaccount.yaml", "{{- end }}", "", "unexpected EOF"),
    ],
)
def test_a_mistake_in_a_template_fails_the_lint(
    template: str, text: str, changed: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown kind, a misspelt or doubled field and a value of another type are errors, not warnings."""
    chart = tmp_path / "chart"
    shutil.copytree(lint.CHART, chart)
    path = chart / "templates" / template
    before = path.read_text("utf-8")
    assert text in before
    path.write_text(before.replace(text, changed, 1))
    assert lint.main(chart) == 1
    assert words in capsys.readouterr().out
