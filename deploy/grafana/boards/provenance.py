"""Dashboard of provenance: the digests and kinds of weights that are served."""

from __future__ import annotations

from deploy.grafana.boards.overview import BRANCH, FAMILY
from deploy.grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Column,
    Json,
    Limits,
    Panel,
    Query,
    bars,
    dashboard,
    lines,
    number,
    row,
    table,
)

WEIGHTS = {"random": RED, "pretrained": GREEN, "checkpoint": BLUE, "none": GREY, "unknown": ORANGE}
_INFO = 'gateway_model_info{model=~"$branch"}'
_LABELS = "model, weights, weights_digest, runtime, engine, precision, device"


def board() -> Json:
    """For whoever has to say what an answer was made with."""
    return dashboard(
        "gateway-provenance",
        "Gateway: provenance",
        "Which weights are served, by digest and kind. Random ones are red: their answers mean nothing.",
        [FAMILY, BRANCH],
        [row("Now"), *_now(), row("Weights"), *_weights(), row("Models and builds"), *_models()],
    )


def _now() -> list[Panel]:
    return [
        number("Branches with random weights", "0 in production. Otherwise: runbook of GatewayRandomWeights.",
               'count(count by (model) (gateway_model_info{weights="random"})) or vector(0)', "short",
               limits=Limits(1, 1), width=6),
        number("Branches served", "READY branches, with whatever weights.",
               "count(count by (model) (gateway_model_info))", "short", width=6),
        number("Branches of several digests",
               "Gateways that serve the same branch with different weights: answers depend on who answers. 0 but "
               "during a rollout; otherwise compare the repositories.",
               "count(count by (model) (count by (model, weights_digest) (gateway_model_info)) > 1) or vector(0)",
               "short", limits=Limits(1, 1), width=6),
        number("Digests that changed in 24 h", "Branches whose weights were replaced within a day. Ask who did "
               "it if nobody announced it.",
               "count(count by (model) (count by (model, weights_digest) (last_over_time(gateway_model_info[1d]))) "
               "> 1) or vector(0)", "short", limits=Limits(1, 1000), width=6),
    ]  # fmt: skip


def _weights() -> list[Panel]:
    chosen = '{family=~"$family", branch=~"$branch"}'
    frames = f"sum by (branch) (rate(gateway_branch_decisions_total{chosen}[$__rate_interval]))"
    info = f'label_replace(max by (model, weights) ({_INFO}), "branch", "$1", "model", "(.*)")'
    columns = [
        Column("Branch", "model"),
        Column("Weights", "weights", words=WEIGHTS),
        Column("Digest", "weights_digest"),
        Column("Runtime", "runtime"),
        Column("Engine", "engine"),
        Column("Precision", "precision"),
        Column("Device", "device"),
        Column("Gateways"),
    ]
    return [
        table("What is served",
              "As models_used of every answer has it. Red: random weights. Compare the digest with the release's "
              "manifest.",
              [Query(f"count by ({_LABELS}) ({_INFO})")], columns, height=10),
        bars("Branches by kind of weights", "pretrained and checkpoint are what production serves.",
             Query(f"count by (weights) (count by (model, weights) ({_INFO}))", "{{weights}}"), "short"),
        lines("Frames by kind of weights", "What the answered frames were made with. Any random ones: callers "
              "get noise.",
              [Query(f"sum by (weights) ({frames} * on (branch) group_left (weights) {info})", "{{weights}}")],
              "ops", stack=True),
    ]  # fmt: skip


def _models() -> list[Panel]:
    return [
        table("Required models", "What /readyz waits for. 1: READY for every gateway. 0: runbook of "
              "GatewayRequiredModelNotReady.",
              [Query('min by (model) (gateway_model_ready{required="true"})')],
              [Column("Model", "model"), Column("READY", limits=Limits(1, 1, falling=True))], width=6, height=12),
        table("READY checklist", "The models of the baseline, required and optional ones. 0 matters only where the "
              "baseline is to be served.",
              [Query('min by (model, checklist) (gateway_model_ready{checklist!=""})')],
              [Column("Model", "model"), Column("On the checklist", "checklist"), Column("READY")],
              width=6, height=12),
        table("Other models that are READY", "What routing may take beside the required ones.",
              [Query('min by (model) (gateway_model_ready{required="false"}) == 1')],
              [Column("Model", "model"), Column("READY")], width=6, height=12),
        table("Gateways", "What runs. Different versions side by side: a rollout is under way, or stuck.",
              [Query("count by (instance, version, python, engine) (gateway_build_info)")],
              [Column("Gateway", "instance"), Column("Version", "version"), Column("Python", "python"),
               Column("Engine", "engine")], width=6, height=12),
    ]  # fmt: skip
