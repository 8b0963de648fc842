"""Prometheus' rules: promtool is content, alerts fire when they should, and all match what is really scraped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT
from support.servers.observed import Observed
from support.servers.prometheus_server import CONFIG, promtool
from support.waiting import eventually

from app.families import FAMILIES
from deploy.prometheus import objectives as objectives_file

RULES = sorted((CONFIG / "rules").glob("*.yml"))
TESTS = sorted((CONFIG / "tests").glob("*.yml"))
GPU_METRIC = re.compile(r"nv_gpu_|gpu:")  # exist on GPU hosts alone
_SELECTOR = re.compile(r"\b((?:gateway_|nv_|up\b|[a-z_]+:)[\w:]*)(?:\{([^}]*)\})?")


def _rules(kind: str) -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


ALERTS = {rule["alert"]: rule for rule in _rules("alert")}
RECORDED = sorted({rule["record"] for rule in _rules("record")})


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    """Syntax, templates and references, as Prometheus itself reads them."""
    promtool("check", "rules", *RULES)
    assert f"{len(RULES)} rule files found" in promtool("check", "config", "prometheus.yml")


def test_every_route_of_a_family_has_its_objective() -> None:
    """The committed objectives are those of the table of families, each for a route that exists."""
    assert objectives_file.FILE.read_text("utf-8") == objectives_file.objectives(FAMILIES.objectives_s)
    assert {path for row in FAMILIES for path in row.objectives_s} <= set(FAMILIES.paths)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    """Promtool's unit tests: series in, alerts with their words out."""
    assert "SUCCESS" in promtool("test", "rules", path)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_both_ways(name: str) -> None:
    """Somewhere it is expected to fire, and somewhere not to."""
    expected = [
        bool(case["exp_alerts"])
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert set(expected) == {True, False}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    """An alert names its severity, the event, and a chapter of docs/dashboards.md that exists."""
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    runbook = re.search(r"Runbook: (docs/\w+\.md)#(\w+)$", rule["annotations"]["description"])
    assert runbook
    assert runbook[2] == name.lower()
    chapter = re.search(
        rf"^#+ {name}\n(.*?)(?=^#|\Z)", (ROOT / runbook[1]).read_text(), re.DOTALL | re.MULTILINE
    )
    assert chapter, f"{runbook[1]} has no chapter {name}"
    assert len(chapter[1].split()) > 15


@pytest.mark.triton
def test_prometheus_evaluates_every_rule(observed: Observed) -> None:
    """None fails on what a real gateway and a real Triton expose (many-to-many matches, say)."""
    rules = observed.prometheus.rules()
    assert len(rules) == len(list(_rules("record"))) + len(ALERTS)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


@pytest.mark.triton
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_rule_records(name: str, observed: Observed) -> None:
    """Under load there are values; those of GPUs only where there is one."""
    found = observed.prometheus.query(name, observed.at)
    assert GPU_METRIC.match(name) or any(
        float(one["value"][1]) == float(one["value"][1]) for one in found
    )  # NaN


@pytest.mark.triton
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_at_series_that_exist(name: str, observed: Observed) -> None:
    """A misspelt metric or label would never fire: each metric of the expression is there, with each label it names."""
    seen = 0
    for metric, matchers in _SELECTOR.findall(ALERTS[name]["expr"]):
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
        asked = metric + "{" + ", ".join(f'{label}!=""' for label in labels) + "}"
        seen += 1
        assert GPU_METRIC.match(metric) or observed.prometheus.query(asked, observed.at), asked
    assert seen


@pytest.mark.triton
def test_what_is_wrong_alerts_and_nothing_else(observed: Observed) -> None:
    """The test repository's weights are random in what is called production: those alerts are on their way."""

    def as_expected() -> bool:
        states = {r["name"]: r["state"] for r in observed.prometheus.rules() if r["type"] == "alerting"}
        return states["GatewayRandomWeights"] in ("pending", "firing") and all(
            states[quiet] == "inactive"
            for quiet in ("GatewayDown", "GatewayTritonAway", "TritonMetricsAway", "GatewayVideoJobsStuck")
        )

    eventually(as_expected)  # a scrape may be late on a busy machine
