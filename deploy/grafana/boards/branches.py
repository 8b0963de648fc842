"""Dashboard of branches: the family, branch and stage that is slow, in the gateway or in Triton."""

from __future__ import annotations

from deploy.grafana.boards.overview import BRANCH, FAMILY
from deploy.grafana.panels import Column, Json, Limits, Panel, Query, bars, dashboard, lines, row, table

_HERE = 'family=~"$family", branch=~"$branch"'
_SUM = f"rate(gateway_stage_duration_seconds_sum{{{_HERE}}}[$__rate_interval])"
_COUNT = f"rate(gateway_stage_duration_seconds_count{{{_HERE}}}[$__rate_interval])"
STAGES = ("decode", "queue", "prepare", "infer", "finish", "encode")
_INFER = 'stage="infer"'


def _by_stage(q: float, by: str) -> str:
    return (
        f"histogram_quantile({q}, sum by ({by}, le) "
        f"(rate(gateway_stage_duration_seconds_bucket{{{_HERE}}}[$__rate_interval])))"
    )


def _mean(stage: str) -> str:
    inside = f'{_HERE}, stage="{stage}"'
    return (
        f"sum by (family, branch) (rate(gateway_stage_duration_seconds_sum{{{inside}}}[$__rate_interval])) / "
        f"(sum by (family, branch) (rate(gateway_stage_duration_seconds_count{{{inside}}}[$__rate_interval])) > 0)"
    )


def board() -> Json:
    """Build the dashboard of a request's time."""
    return dashboard(
        "gateway-branches",
        "Gateway: branches and stages",
        "Which family, branch and stage is slow, and whether it is the gateway or Triton.",
        [FAMILY, BRANCH],
        [
            row("Where the time goes"), *_where(), row("Gateway or Triton?"), *_whose(), row("Load"), *_load(),
            row("Memory of the device"), *_memory(),
        ],
    )  # fmt: skip


def _where() -> list[Panel]:
    limits = Limits(0.5, 2)
    columns = [Column("Family", "family"), Column("Branch", "branch")]
    columns += [Column(stage, query=place, unit="s", limits=limits) for place, stage in enumerate(STAGES)]
    return [
        table(
            "Mean time of a frame by stage",
            "Read along the row of the slow branch: the longest stage is where to look. decode and encode: large "
            "pictures or answers; queue: too few leases or too slow a model; prepare and finish: the gateway's "
            "CPU; infer: Triton and the way to it.",
            [Query(_mean(stage)) for stage in STAGES],
            columns,
            height=9,
        ),
        lines(
            "Mean time by stage (all chosen branches)",
            "One frame's time, stage on stage. What grows is what is slow; choose one branch above to see it alone.",
            [Query(f"sum by (stage) ({_SUM}) / (sum by (stage) ({_COUNT}) > 0)", "{{stage}}")],
            "s", stack=True, width=8,
        ),
        lines("p95 by stage", "19 in 20 frames were faster in this stage. queue far over infer: add leases or "
              "instances.",
              [Query(_by_stage(0.95, "stage"), "{{stage}}")], "s", width=8),
        bars(
            "The ten slowest stages of branches",
            "Mean times, longest first: start with the first.",
            Query(f"topk(10, sum by (branch, stage) ({_SUM}) / (sum by (branch, stage) ({_COUNT}) > 0))",
                  "{{branch}} · {{stage}}"),
            "s", width=8,
        ),
        lines("p95 of inference by branch", "A branch that is much slower than before: another model version, or "
              "a full GPU.",
              [Query(f"histogram_quantile(0.95, sum by (branch, le) "
                     f"(rate(gateway_stage_duration_seconds_bucket{{{_HERE}, "
                     f"{_INFER}}}[$__rate_interval])))", "{{branch}}")], "s"),
        lines("p95 of all stages by family", "Families beside each other, every stage together.",
              [Query(_by_stage(0.95, "family"), "{{family}}")], "s"),
    ]  # fmt: skip


def _whose() -> list[Panel]:
    triton = (
        "sum by (branch) (label_replace(rate(nv_inference_request_duration_us[$__rate_interval]) / 1e6, "
        '"branch", "$1", "model", "(.*)"))'
    )
    whole = f"sum by (branch) ({_SUM})"
    return [
        bars(
            "Triton's share of a branch's time",
            "Of all stages' time, how much Triton itself took. Near 100 %: the model or the GPU is the limit, see "
            "'Triton'. Low: the gateway's stages are; the table above says which.",
            Query(f"{triton} / on (branch) ({whole} > 0)", "{{branch}}"),
            "percentunit", maximum=1, width=8,
        ),
        lines(
            "Seconds of work a second",
            "How busy each side is. gateway: every stage but infer; Triton: by its own count. The higher line is "
            "the one to speed up.",
            [
                Query(
                    f'sum(rate(gateway_stage_duration_seconds_sum{{{_HERE}, stage!~"infer|queue"}}'
                    "[$__rate_interval]))",
                    "gateway",
                ),
                Query(f"sum({triton} and on (branch) {whole})", "Triton"),
            ],
            "short", width=8,
        ),
        lines(
            "A call's cost outside Triton",
            "The stage infer less Triton's own time for the request, mean. Over some milliseconds: tensors travel "
            "as bytes ('Tensors by transport'), or the network is slow.",
            [Query('branch:gateway_infer_overhead_seconds:mean5m{branch=~"$branch"}', "{{branch}}")],
            "s", width=8,
        ),
    ]  # fmt: skip


def _load() -> list[Panel]:
    chosen = 'branch=~"$branch"'
    return [
        lines(
            "Waiting to begin",
            "Frames and prompts in the queue of each family, before they are decoded. Longer than what runs, and "
            "growing: runbook of GatewayQueueGrowing; full: callers get 429.",
            [Query('sum by (family) (gateway_admission_waiting{family=~"$family"})', "{{family}}"),
             Query('sum(gateway_admission_running{family=~"$family"})', "running, all")],
            "short", width=6, dashed="^running",
        ),
        lines("Waiting for a lease", "Frames that have begun and wait for tensors of their branch: of requests two "
              "at most a worker, the others are of videos.",
              [Query(f"sum by (branch) (gateway_queue_depth{{{chosen}}})", "{{branch}}")], "short", width=6),
        lines("Leases in use", "Share of each branch's leases that are out. At 100 % the queue begins.",
              [Query(f"sum by (branch) (gateway_leases_in_use{{{chosen}}}) / "
                     f"sum by (branch) (gateway_leases{{{chosen}}})", "{{branch}}")],
              "percentunit", width=6, maximum=1, limits=Limits(0.8, 1)),
        lines("Frames by branch", "Frames that were answered each second.",
              [Query(f"sum by (branch) (rate(gateway_branch_decisions_total{{{_HERE}}}[$__rate_interval]))",
                     "{{branch}}")], "ops", width=6, stack=True),
        lines(
            "Why this branch",
            "rule: the size's own; override: the caller's wish; fallback: another stood in, because the right one "
            "isn't ready. Many fallbacks: 'Provenance' says what is missing.",
            [Query(f"sum by (kind) (rate(gateway_branch_decisions_total{{{_HERE}}}[$__rate_interval]))", "{{kind}}")],
            "ops", width=8, stack=True,
        ),
        lines(
            "Tensors by transport",
            "bytes although Triton is on this host: shared memory isn't shared (compose's ipc, --allow-client-"
            "shm), and large frames cost several times as much.",
            [Query(f"sum by (transport) (rate(gateway_inferences_total{{{chosen}}}[$__rate_interval]))",
                   "{{transport}}")],
            "ops", width=8, stack=True,
        ),
        lines("Tensor bytes", "Bytes of tensors to (in) and from (out) the models each second.",
              [Query("sum by (transport, direction) (rate(gateway_transport_bytes_total[$__rate_interval]))",
                     "{{transport}} {{direction}}")], "Bps", width=8),
        lines("Prompts: cache hits", "Share of prompts whose embedding was remembered. Low with the same prompts "
              "again and again: GATEWAY_TEXT_CACHE_BYTES is too small.",
              [Query('sum(rate(gateway_text_cache_lookups_total{result="hit"}[$__rate_interval])) / '
                     "(sum(rate(gateway_text_cache_lookups_total[$__rate_interval])) > 0)", "hit")],
              "percentunit", maximum=1),
        lines("Prompts: cache", "Memory that remembered embeddings take; its limit is GATEWAY_TEXT_CACHE_BYTES a "
              "process.",
              [Query("sum(gateway_text_cache_bytes)", "bytes held")], "bytes"),
    ]  # fmt: skip


def _memory() -> list[Panel]:
    chosen = 'branch=~"$branch"'
    out = f"max by (branch) (gateway_quarantined{{{chosen}}})"

    def in_an_hour(metric: str, outcome: str = "") -> Query:
        inside = f'{chosen}, outcome=~"{outcome}"' if outcome else chosen
        return Query(f"sum by (branch) (increase({metric}{{{inside}}}[1h])) or 0 * {out}")

    attempts = "gateway_quarantine_attempts_total"
    return [
        table(
            "Branches and the device's memory",
            "Out: a run of it was out of memory, and it is reloaded until it runs; meanwhile callers who allow it "
            "get the next smaller branch. Out of memory again and again: the device is too small for all of them, "
            "see docs/memory.md and the runbook of GatewayGpuMemoryRanOut.",
            [
                Query(out),
                in_an_hour("gateway_out_of_memory_total"),
                in_an_hour(attempts, "reloaded|ran"),
                in_an_hour(attempts, "out_of_memory|failed|gone"),
            ],
            [
                Column("Branch", "branch"),
                Column("Out now", query=0, limits=Limits(1, 1)),
                Column("Out of memory in an hour", query=1, limits=Limits(1, 10)),
                Column("Brought back", query=2),
                Column("Tried in vain", query=3, limits=Limits(3, 10)),
            ],
        )
    ]
