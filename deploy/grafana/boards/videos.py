"""Videos, streamed and as jobs, and tracking sessions."""

from __future__ import annotations

from deploy.grafana.panels import Json, Limits, Panel, Query, bars, dashboard, lines, number, row


def board() -> Json:
    """Build the dashboard of jobs, streams and sessions."""
    return dashboard(
        "gateway-videos",
        "Gateway: videos and sessions",
        "Streams, jobs, their frames and webhooks; tracking sessions and their conflicts.",
        [],
        [
            row("Now"),
            *_now(),
            row("Videos"),
            *_videos(),
            row("Webhooks"),
            *_webhooks(),
            row("Sessions"),
            *_sessions(),
        ],
    )


def _now() -> list[Panel]:
    return [
        number("Streams", "Videos that are being answered line by line.",
               "sum(gateway_video_streams_in_progress)", "short", width=6),
        number("Jobs running", "0 while some are queued: runbook of GatewayVideoJobsStuck.",
               'sum(store_state:gateway_video_jobs:max{state="running"})', "short", width=6),
        number("Jobs queued", "They wait for a worker. It grows for hours: raise GATEWAY_VIDEO_JOBS, or add a machine.",
               'sum(store_state:gateway_video_jobs:max{state="queued"})', "short", width=6, limits=Limits(10, 100)),
        number("Sessions in memory", "Tracking sessions in this process; those in Redis aren't counted.",
               "sum(gateway_sessions_live)", "short", width=6),
    ]  # fmt: skip


def _videos() -> list[Panel]:
    return [
        lines("Frames by route", "Sampled frames that were answered each second; job: of video jobs.",
              [Query("sum by (route) (rate(gateway_video_frames_total[$__rate_interval]))", "{{route}}")],
              "ops", width=8, stack=True),
        lines("Frames by result", "Errors are frames, not videos: the line of each frame, or the manifest of the "
              "job, says why.",
              [Query("sum by (result) (rate(gateway_video_frames_total[$__rate_interval]))", "{{result}}")],
              "ops", width=8, stack=True),
        lines(
            "Lag: from decoded to answered",
            "Of streamed frames. It grows: frames are decoded faster than analysed, or the caller reads slowly; "
            "sample fewer frames (?fps=), or use a smaller branch.",
            [
                Query(f"histogram_quantile({q}, sum by (le) "
                      f"(rate(gateway_video_lag_seconds_bucket[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ],
            "s", width=8,
        ),
        bars("Jobs by state", "Finished ones are kept for GATEWAY_VIDEOS_KEEP_S. failed: each says why at GET "
                              "/v1/videos/{id}.",
             Query("sum by (state) (store_state:gateway_video_jobs:max)", "{{state}}"), "short", width=8),
        lines("Jobs over time", "queued grows and running stays: jobs come faster than they are done. "
              "fetching: their videos aren't there yet.",
              [Query("sum by (state) (store_state:gateway_video_jobs:max)", "{{state}}")], "short", width=8),
        lines("Streams in progress", "Each holds one of GATEWAY_VIDEO_DECODERS; the next one then waits.",
              [Query("sum(gateway_video_streams_in_progress)", "streams")], "short", width=8),
    ]  # fmt: skip


def _webhooks() -> list[Panel]:
    attempts = "gateway_webhook_attempts_total"
    return [
        lines("Webhook attempts by outcome",
              "retried: the receiver failed and hears of it again; none delivered: runbook of GatewayWebhooksFailing.",
              [Query(f"sum by (outcome) (rate({attempts}[$__rate_interval]))", "{{outcome}}")],
              "ops", width=16, stack=True),
        number("Webhooks lost in an hour",
               "Given up or refused: their callers don't hear of the end of a job. Runbook of GatewayWebhooksLost.",
               f'sum(increase({attempts}{{outcome=~"given_up|refused"}}[1h]))', "short", limits=Limits(1, 1), width=8),
    ]  # fmt: skip


def _sessions() -> list[Panel]:
    return [
        lines(
            "Conflicts by reason",
            "parameters: the caller changed them within a session; clock, order: frames came late or twice "
            "(several senders, or retries); size, format: another camera.",
            [Query("sum by (reason) (rate(gateway_session_conflicts_total[$__rate_interval]))", "{{reason}}")],
            "ops", width=8,
        ),
        lines("Sessions that ended by themselves",
              "lru: GATEWAY_MAX_SESSIONS is too small, tracks were lost; ttl: idle, as it should be.",
              [Query("sum by (reason) (rate(gateway_session_evictions_total[$__rate_interval]))", "{{reason}}")],
              "ops", width=8),
        lines("Updates done again", "Two workers met in one session. Often: its frames are sent in parallel.",
              [Query("sum(rate(gateway_session_retries_total[$__rate_interval]))", "retries")], "ops", width=8),
        lines(
            "Time of an update",
            "Reading, tracking and writing a session. High: Redis is far or slow.",
            [
                Query(f"histogram_quantile({q}, sum by (le) "
                      "(rate(gateway_session_update_duration_seconds_bucket[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ],
            "s",
        ),
        lines("Sessions over time", "In memory. Steady growth up to GATEWAY_MAX_SESSIONS: callers never end theirs.",
              [Query("sum(gateway_sessions_live)", "sessions")], "short"),
    ]  # fmt: skip
