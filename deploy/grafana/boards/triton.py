"""Triton side by side with the gateway."""

from __future__ import annotations

from deploy.grafana.boards.overview import BRANCH, FAMILY
from deploy.grafana.panels import (
    GPU_ONLY,
    Json,
    Limits,
    Panel,
    Query,
    dashboard,
    lines,
    number,
    row,
    variable,
)

MODEL = variable("model", "Triton model", "label_values(nv_inference_count, model)")
_MODEL = 'model=~"$model"'
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
_DONE = f"(sum by (model) (rate(nv_inference_request_success{{{_MODEL}}}[$__rate_interval])) > 0)"


def _triton(metric: str) -> str:
    """A counter of Triton's by branch: of the models that the gateway calls, not of their parts."""
    return (
        f'(sum by (branch) (label_replace(rate({metric}{{model=~"$branch"}}[$__rate_interval]), '
        '"branch", "$1", "model", "(.*)")) and on (branch) gateway_leases)'
    )


def board() -> Json:
    """Build the dashboard of inferences as gateway and Triton report them."""
    return dashboard(
        "gateway-triton",
        "Gateway: Triton",
        "Triton's own numbers beside the gateway's, and the GPU.",
        [FAMILY, BRANCH, MODEL],
        [
            row("Now"), *_now(), row("Each Triton, seen from the gateways"), *_each(),
            row("The same inferences, seen from both sides"), *_both(),
            row("Inside Triton"), *_inside(), row("The machine"), *_machine(),
        ],
    )  # fmt: skip


def _now() -> list[Panel]:
    return [
        number("Triton's metrics", "1: Prometheus reaches them. 0: runbook of TritonMetricsAway.",
               'min(up{job="triton"})', "short", limits=Limits(1, 1, falling=True), width=6),
        number("Connected gateways", "Gateways that Triton answers. 0 %: runbook of GatewayTritonAway.",
               "avg(gateway_triton_connected)", "percentunit", limits=Limits(1, 0.5, falling=True), width=6),
        number("Reconnects in an hour", "More than one or two: Triton restarts; look at its log and its memory.",
               "sum(increase(gateway_triton_reconnects_total[1h]))", "short", limits=Limits(1, 4), width=6),
        number("Waiting in Triton", "Requests that Triton has accepted and not begun. It grows: add model instances.",
               "sum(nv_inference_pending_request_count)", "short", limits=Limits(16, 64), width=6),
    ]  # fmt: skip


def _each() -> list[Panel]:
    return [
        lines("In flight by Triton", "Leases that are out or awaited. Even: runs are spread. One at 0: it is away, or "
              "it has no branch READY that is asked for (GET /v1/repository).",
              [Query("sum by (endpoint) (gateway_triton_endpoint_in_flight)", "{{endpoint}}")], "short", width=8),
        lines("Away by Triton", "1: a gateway doesn't reach it. Runbook of GatewayTritonEndpointAway.",
              [Query("max by (endpoint) (gateway_triton_endpoint_away)", "{{endpoint}}")], "short", width=8),
        lines("Runs made again at another Triton", "By the Triton that didn't answer them. More than once in a while: "
              "it restarts, reloads, or has no memory.",
              [Query("sum by (endpoint) (rate(gateway_triton_endpoint_moved_runs_total[$__rate_interval]))",
                     "{{endpoint}}")], "ops", width=8),
    ]  # fmt: skip


def _both() -> list[Panel]:
    gateway = 'family=~"$family", branch=~"$branch", stage="infer"'
    return [
        lines(
            "Inferences",
            "Both sides count the same: Triton alone higher means that others use it too; the gateway alone "
            "higher that answers of Triton fail or its metrics are another server's.",
            [
                Query('sum(rate(gateway_inferences_total{branch=~"$branch"}[$__rate_interval]))', "gateway"),
                Query(f"sum({_triton('nv_inference_request_success')})", "Triton"),
            ],
            "ops", width=8,
        ),
        lines(
            "Time of an inference, seen from the gateway",
            "Mean of the stage infer: Triton's time, the way there and back, and waiting for the connection.",
            [Query(f"sum by (branch) (rate(gateway_stage_duration_seconds_sum{{{gateway}}}[$__rate_interval])) / "
                   f"(sum by (branch) (rate(gateway_stage_duration_seconds_count{{{gateway}}}[$__rate_interval])) > 0)",
                   "{{branch}}")],
            "s", width=8,
        ),
        lines(
            "Time of an inference, seen from Triton",
            "Mean of Triton's own request time. As high as the gateway's: the model is what is slow. Much lower: "
            "the way is.",
            [Query(f"{_triton('nv_inference_request_duration_us')} / "
                   f"({_triton('nv_inference_request_success')} > 0) / 1e6", "{{branch}}")],
            "s", width=8,
        ),
    ]  # fmt: skip


def _inside() -> list[Panel]:
    return [
        *(
            lines(
                f"Triton: {part.replace('_', ' ')}",
                {
                    "queue": "Waiting in Triton for a free instance. High: raise instance_group.count, or add a GPU.",
                    "compute_input": "Copying tensors in. High: tensors come from pageable memory, or as bytes.",
                    "compute_infer": "The model itself. High: a larger model than wanted, or a GPU that is shared.",
                    "compute_output": "Copying tensors out. High: large outputs; see finish in 'Branches and stages'.",
                }[part],
                [Query(f"sum by (model) (rate(nv_inference_{part}_duration_us{{{_MODEL}}}[$__rate_interval])) / "
                       f"{_DONE} / 1e6", "{{model}}")],
                "s", width=6,
            )
            for part in PARTS
        ),
        lines("Failures by reason", "Requests that Triton failed. REJECTED: its queue; BACKEND: the model, often for "
              "want of memory; CANCELED: a deadline of ours.",
              [Query(f"sum by (reason) (rate(nv_inference_request_failure{{{_MODEL}}}[$__rate_interval]))",
                     "{{reason}}")], "ops", width=6),
        lines("Failures by model", "The same by model: which one to unload, or to read Triton's log for.",
              [Query(f"sum by (model) (rate(nv_inference_request_failure{{{_MODEL}}}[$__rate_interval]))",
                     "{{model}}")], "ops", width=6),
        lines("Inferences an execution", "Over 1: Triton batches. Branches here have batch 1; dynamic batching "
              "would show.",
              [Query(f"sum by (model) (rate(nv_inference_count{{{_MODEL}}}[$__rate_interval])) / "
                     f"(sum by (model) (rate(nv_inference_exec_count{{{_MODEL}}}[$__rate_interval])) > 0)",
                     "{{model}}")], "short", width=6),
        lines("Waiting by model", "Accepted and not begun, by model: which one needs more instances.",
              [Query(f"sum by (model) (nv_inference_pending_request_count{{{_MODEL}}})", "{{model}}")],
              "short", width=6, stack=True),
    ]  # fmt: skip


def _machine() -> list[Panel]:
    return [
        lines(f"GPU memory{GPU_ONLY}", "Share in use. Over 92 %: unload a branch, or use smaller ones; runbook "
              "of TritonGpuMemoryNearFull.",
              [Query("nv_gpu_memory_used_bytes / nv_gpu_memory_total_bytes", "{{gpu_uuid}}")],
              "percentunit", width=6, maximum=1, limits=Limits(0.85, 0.92)),
        lines(f"GPU memory in bytes{GPU_ONLY}", "In use, beside what the GPU has.",
              [Query("nv_gpu_memory_used_bytes", "used {{gpu_uuid}}"),
               Query("nv_gpu_memory_total_bytes", "total {{gpu_uuid}}")],
              "bytes", width=6, dashed="^total"),
        lines(f"GPU utilisation{GPU_ONLY}", "Share of time with work. Low while requests wait: too few "
              "instances, or the gateway's CPU is the limit.",
              [Query("nv_gpu_utilization", "{{gpu_uuid}}")], "percentunit", width=6, maximum=1),
        lines(f"GPU power{GPU_ONLY}", "Beside its limit: at the limit the GPU slows down.",
              [Query("nv_gpu_power_usage", "used {{gpu_uuid}}"), Query("nv_gpu_power_limit", "limit {{gpu_uuid}}")],
              "watt", width=6, dashed="^limit"),
        lines("Host CPU", "Share of all cores in use on Triton's host. Near 100 %: decoding or CPU models take it all.",
              [Query("nv_cpu_utilization", "CPU")], "percentunit", width=8, maximum=1, limits=Limits(0.8, 0.95)),
        lines("Host memory", "On Triton's host. Near the total: shared memory for tensors counts too.",
              [Query("nv_cpu_memory_used_bytes", "used"), Query("nv_cpu_memory_total_bytes", "total")],
              "bytes", width=8, dashed="^total"),
        lines("Pinned memory", "Triton's pool for copies to the GPU. Full: --pinned-memory-pool-byte-size.",
              [Query("nv_pinned_memory_pool_used_bytes", "used"), Query("nv_pinned_memory_pool_total_bytes", "total")],
              "bytes", width=8, dashed="^total"),
    ]  # fmt: skip
