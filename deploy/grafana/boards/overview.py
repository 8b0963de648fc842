"""Dashboard of health: rate, errors and duration by route, and the statuses of the answers."""

from __future__ import annotations

from deploy.grafana.panels import (
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
    variable,
)

ROUTE = variable("route", "Route", "label_values(gateway_requests_total, route)")
FAMILY = variable("family", "Family", "label_values(gateway_stage_duration_seconds_count, family)")
BRANCH = variable(
    "branch", "Branch", 'label_values(gateway_stage_duration_seconds_count{family=~"$family"}, branch)'
)
_RATE = 'sum by (route) (rate(gateway_requests_total{route=~"$route"}[$__rate_interval]))'
_FAILED = (
    'sum by (route) (rate(gateway_requests_total{route=~"$route", status=~"5.."}[$__rate_interval])) or 0 * '
    + _RATE
)


def _quantile(q: float) -> str:
    return (
        f"histogram_quantile({q}, sum by (route, le) "
        '(rate(gateway_request_duration_seconds_bucket{route=~"$route", route!~".*/events"}[$__rate_interval])))'
    )


def board() -> Json:
    """The first dashboard to open."""
    return dashboard(
        "gateway-overview",
        "Gateway: overview",
        "Is it well? Rate, errors and duration by route.",
        [ROUTE],
        [row("Now"), *_now(), row("Rate, errors, duration"), *_red(), row("Answers"), *_answers()],
    )


def _now() -> list[Panel]:
    return [
        number(
            "Requests",
            "Requests to /v1 each second, all routes. None although there should be some: look at the load "
            "balancer, then at GatewayDown.",
            'sum(rate(gateway_requests_total{route=~"/v1/.*"}[$__rate_interval]))',
            "reqps",
        ),
        number(
            "Failed",
            "Share of requests that were answered with 5xx. Over 0.5 % the error budget shrinks: 'Problems by "
            "code' says what failed.",
            'sum(rate(gateway_requests_total{route=~"/v1/.*", status=~"5.."}[$__rate_interval]) or 0 * '
            'rate(gateway_requests_total{route=~"/v1/.*"}[$__rate_interval])) / '
            'sum(rate(gateway_requests_total{route=~"/v1/.*"}[$__rate_interval]))',
            "percentunit",
            limits=Limits(0.005, 0.05),
        ),
        number(
            "In flight",
            "Requests that are being answered. It grows without end: the backend is too slow, see 'Branches and "
            "stages'.",
            "sum(gateway_requests_in_flight)",
            "short",
        ),
        number(
            "Triton",
            "Share of gateways that are connected with Triton. Under 100 %: runbook of GatewayTritonAway.",
            "avg(gateway_triton_connected)",
            "percentunit",
            limits=Limits(1, 0.5, falling=True),
        ),
        number(
            "Required models away",
            "Required models that aren't READY. More than 0: 'Provenance' names them; runbook of "
            "GatewayRequiredModelNotReady.",
            'count(min by (model) (gateway_model_ready{required="true"}) == 0) or vector(0)',
            "short",
            limits=Limits(1, 1),
        ),
        number(
            "Random weights",
            "Branches that serve with random weights, so that their answers mean nothing. More than 0 in "
            "production: runbook of GatewayRandomWeights.",
            'count(count by (model) (gateway_model_info{weights="random"})) or vector(0)',
            "short",
            limits=Limits(1, 1),
        ),
    ]


def _red() -> list[Panel]:
    summary = [
        Query(_RATE),
        Query(f"({_FAILED}) / ({_RATE} > 0)"),
        Query(_quantile(0.5)),
        Query(_quantile(0.95)),
        Query(_quantile(0.99)),
        Query('max by (route) (route:gateway_request_duration_seconds:objective{route=~"$route"})'),
    ]
    columns = [
        Column("Route", "route"),
        Column("Requests/s", query=0, unit="reqps"),
        Column("Failed", query=1, unit="percentunit", limits=Limits(0.005, 0.05)),
        Column("p50", query=2, unit="s"),
        Column("p95", query=3, unit="s"),
        Column("p99", query=4, unit="s"),
        Column("Objective of p99", query=5, unit="s"),
    ]
    return [
        table(
            "Routes",
            "Rate, errors and duration of each route now, beside the objective of its p99 (objectives.yml). A "
            "route that answers videos line by line counts the whole stream as one request; /events lasts as long as "
            "its job, and has no durations here.",
            summary,
            columns,
            height=9,
        ),
        lines("Rate by route", "Requests each second. A sudden fall: callers can't reach us, or have given up.",
              [Query(_RATE, "{{route}}")], "reqps", width=8),
        lines("Errors by route", "Answers with 5xx each second; 0 is normal. 'Problems by code' says what failed.",
              [Query(_FAILED, "{{route}}")], "reqps", width=8),
        lines(
            "Duration by route (p99)",
            "99 in 100 requests were faster. Dashed: the objective. Over it: 'Branches and stages' says where the "
            "time goes.",
            [
                Query(_quantile(0.99), "{{route}}"),
                Query('max by (route) (route:gateway_request_duration_seconds:objective{route=~"$route"})',
                      "{{route}} objective"),
            ],
            "s", width=8, dashed="objective$",
        ),
    ]  # fmt: skip


def _answers() -> list[Panel]:
    return [
        lines(
            "Answers by class of status",
            "4xx are mistakes of callers (429: overloaded), 5xx are ours. aborted: the caller left first; many of "
            "them mean that callers lose patience.",
            [Query(
                'sum by (class) (label_replace(label_replace(rate(gateway_requests_total{route=~"$route"}'
                '[$__rate_interval]), "class", "$1", "status", "(.*)"), "class", "${1}xx", "status", "([0-9])..")) ',
                "{{class}}",
            )],
            "reqps", stack=True, width=8,
        ),
        lines(
            "Problems by code",
            "Every problem that was answered, by its code; docs/dashboards.md says what to do about each. Frames "
            "of batches and videos count singly.",
            [Query('sum by (code) (rate(gateway_rejections_total{route=~"$route"}[$__rate_interval]))', "{{code}}")],
            "reqps", stack=True, width=8,
        ),
        lines("In flight by route", "Requests that are being answered. Growth without more requests: the backend "
              "slows.",
              [Query('sum by (route) (gateway_requests_in_flight{route=~"$route"})', "{{route}}")],
              "short", stack=True, width=8),
        lines(
            "Error budget: share of failed requests",
            "By the windows of the alerts. Fast burn: 1 h and 5 m over 7.2 %; slow burn: 6 h and 30 m over 3 %; "
            "the objective allows 0.5 %.",
            [
                Query(f"gateway:gateway_requests:error_ratio{window}", window)
                for window in ("5m", "30m", "1h", "6h", "1d")
            ],
            "percentunit", limits=Limits(0.03, 0.072), width=8,
        ),
        lines(
            "Done again",
            "Retries by reason. region_lost: Triton restarted; backend_away and overloaded: it is away or too slow.",
            [Query("sum by (reason) (rate(gateway_retries_total[$__rate_interval]))", "{{reason}}")],
            "ops", width=8,
        ),
        bars("Requests by branch", "What the requests of the last moments were served by; none: refused, or no "
             "branch needed.",
             Query('sum by (branch) (rate(gateway_requests_total{route=~"$route", branch!=""}[$__rate_interval]))',
                   "{{branch}}"), "reqps", width=8),
    ]  # fmt: skip
