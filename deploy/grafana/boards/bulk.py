"""Runs of `gateway bulk` that are served to Prometheus (`--metrics-port`)."""

from __future__ import annotations

from deploy.grafana.panels import Json, Limits, Panel, Query, bars, dashboard, lines, number, row

_VIDEOS, _FRAMES = "gateway_bulk_videos_total", "gateway_bulk_frames_total"
_SECONDS, _LEFT = "gateway_bulk_video_seconds_total", "gateway_bulk_videos_left"
_RATE = "[$__rate_interval]"


def board() -> Json:
    """Build the dashboard of bulk runs."""
    return dashboard(
        "gateway-bulk",
        "Gateway: bulk runs",
        "Videos of gateway bulk by state, their speed, and what is left.",
        [],
        [row("Now"), *_now(), row("Course"), *_course()],
    )


def _now() -> list[Panel]:
    return [
        number("Videos left", "Of all runs that are scraped. none: no run is, or its videos are still being counted.",
               f"sum({_LEFT})", "short", width=6),
        number("Time left", "What is left, at the present speed; videos that were only skipped don't count.",
               f'sum({_LEFT}) / sum(rate({_VIDEOS}{{state!="skipped"}}{_RATE}))', "s", width=6),
        number("Failed or set aside", "gateway bulk status OUTPUT says which and why; --only failed tries them again.",
               f'sum({_VIDEOS}{{state=~"failed|poison"}})', "short", width=6, limits=Limits(1, 1)),
        number("Frames a second", "Frames that were analysed, over all workers and runs.",
               f"sum(rate({_FRAMES}{_RATE}))", "ops", width=6),
    ]  # fmt: skip


def _course() -> list[Panel]:
    by_state = "sum by (state)"
    return [
        lines("Videos by state",
              "Finished each second. skipped: an earlier run did the same; poison: set aside, since workers died with "
              "them.",
              [Query(f"{by_state} (rate({_VIDEOS}{_RATE}))", "{{state}}")], "ops", stack=True),
        lines("Frames a second by run", "Each instance is one command. It falls: videos are longer or larger, come "
              "slowly from the bucket, or the machine does something else.",
              [Query(f"sum by (instance) (rate({_FRAMES}{_RATE}))", "{{instance}}")], "ops"),
        lines("Time of a video", "That a worker spends on one, by how it ended.",
              [Query(f"{by_state} (rate({_SECONDS}{_RATE})) / {by_state} (rate({_VIDEOS}{_RATE}))", "{{state}}")],
              "s", width=8),
        lines("Workers at work", "On average; a video counts when it ends. Less than --workers: nothing is left to "
              "begin, or the list of videos is read slowly.",
              [Query(f"sum by (instance) (rate({_SECONDS}{_RATE}))", "{{instance}}")], "short", width=8),
        lines("Videos left by run", "A straight line: it goes on at the same speed.",
              [Query(f"sum by (instance) ({_LEFT})", "{{instance}}")], "short", width=8),
        bars("All videos by state", "Of the runs that are scraped now, since each began.",
             Query(f"{by_state} ({_VIDEOS})", "{{state}}"), "short", width=24, height=6),
    ]  # fmt: skip
