"""The page of a report."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from app.bulk.outcomes import STATES
from app.bulk.report import plots
from app.bulk.report.data import MadeBy, ReportData
from app.bulk.summary import Summary

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --text: #1d2330; --soft: #566074; --line: #d5dae3; --page: #ffffff; --card: #f4f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ef; --soft: #a3adbf; --line: #3a4252; --page: #14171d; --card: #1e232c; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
dl { display: flex; flex-wrap: wrap; gap: .6rem; margin: 0; }
dl div { background: var(--card); border-radius: .4rem; padding: .5rem .9rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; } .digests { overflow-wrap: anywhere; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 0; overflow-x: auto; } svg { display: block; width: 100%; min-width: 30rem; height: auto; }
footer, p.note { color: var(--soft); }
"""


def page(place: str, summary: Summary, data: ReportData, version: str) -> str:
    """Return the HTML of a report.

    Args:
        place: the output, for people.
        summary: its numbers.
        data: the rest.
        version: of this program.
    """
    title = f"Bulk run of {summary.run.profile or 'unknown profile'}"
    body = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{_text(place)}</p>",
        _numbers(summary),
        _plot("Frames per second", plots.pace(data.bins)),
        _plot("Seconds per video", plots.durations(data.durations)),
        _failures(summary),
        _slowest(summary),
        _models(data.made_by),
        f"<footer><p>Made {_time(datetime.now(UTC))} by triton-vision-gateway {_text(version)}.</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _numbers(summary: Summary) -> str:
    run = summary.run
    facts: list[tuple[str, str]] = [(state, str(summary.states[state])) for state in STATES]
    facts.append(("left", "unknown" if summary.left is None else str(summary.left)))
    facts.append(("frames", f"{summary.frames:,}"))
    facts.append(("time of all workers", str(timedelta(seconds=round(summary.seconds)))))
    facts.append(("begun", _time(run.begun_at)))
    facts.append(("newest result", _time(summary.latest)))
    rows = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    damaged = f"{summary.damaged} damaged rows were passed over."
    return f"<dl>{rows}</dl>" + (f'<p class="note">{damaged}</p>' if summary.damaged else "")


def _plot(title: str, svg: str) -> str:
    return f'<h2>{title}</h2>\n<figure tabindex="0">{svg}</figure>' if svg else ""


def _failures(summary: Summary) -> str:
    if not summary.reasons:
        return ""
    rows = (
        (reason.code, str(reason.count), "; ".join(f"{name}: {words}" for name, words in reason.examples))
        for reason in summary.reasons
    )
    table = _table(("Reason", "Videos", "Some of them"), rows, numbers={1})
    return _plot("Failures by reason", plots.reasons(summary.reasons)) + table


def _slowest(summary: Summary) -> str:
    rows = ((one.name, f"{one.seconds:.1f}", str(one.frames), str(one.attempts)) for one in summary.slowest)
    if not summary.slowest:
        return ""
    return "<h2>Slowest videos</h2>" + _table(
        ("Video", "Seconds", "Frames", "Attempts"), rows, numbers={1, 2, 3}
    )


def _models(made_by: Sequence[MadeBy]) -> str:
    return "<h2>Models</h2>" + "".join(map(_made_by, made_by)) if made_by else ""


def _made_by(one: MadeBy) -> str:
    """Return the videos that the same models made with the same configuration."""
    words = f"{one.videos} videos: configuration {one.config_hash}, signature {one.signature}"
    if not one.models:
        return f'<p class="digests">{_text(words)}. Their manifests name the models.</p>'
    rows = (
        tuple(str(model.get(key, "")) for key in ("model_name", "runtime", "weights_digest"))
        for model in one.models
    )
    table = _table(("Model", "Runtime", "Digest of its weights"), rows, numbers={0, 1})
    return f'<p class="digests">{_text(words)}</p>{table}'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> str:
    cells = (
        "".join(
            f'<td class="number">{_text(cell)}</td>' if place in numbers else f"<td>{_text(cell)}</td>"
            for place, cell in enumerate(row)
        )
        for row in rows
    )
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    lines = "".join(f"<tr>{row}</tr>\n" for row in cells)
    table = f"<table><thead><tr>{titles}</tr></thead>\n<tbody>{lines}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _text(value: str) -> str:
    """Return a text for HTML; control characters and what is no text are shown as escapes."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)
    return html.escape(safe)


def _time(at: datetime | None) -> str:
    return "unknown" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
