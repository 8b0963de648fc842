"""Structured logs: one line of JSON or text per record, with the request's id and trace."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any, Literal, TextIO

from app import context

Form = Literal["console", "json"]


def configure(level: str, form: Form, stream: TextIO | None = None) -> None:
    """Let every logger of this process, uvicorn's too, write like this; what was set up before is replaced.

    uvicorn's own line a request is switched off: it holds the path and query, which may name a session.
    `gateway.requests` has the same without them.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if form == "json" else Console())
    handler.addFilter(_add_request)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True


def _add_request(record: logging.LogRecord) -> bool:
    """Put the request's id and trace into the record, on the thread that logs; a formatter may run elsewhere."""
    request = context.current()
    if request is not None:
        record.request_id = request.id
        record.trace_id = request.trace_id
    return True


def _time(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


class Json(logging.Formatter):
    """One JSON object a record, whatever is in its message; times are UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        for name in ("request_id", "trace_id"):
            if getattr(record, name, None):
                line[name] = getattr(record, name)
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Console(logging.Formatter):
    """Text formatter for people: the same fields on one line. A message can't forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        ids = [
            f"{name}={value}" for name in ("request_id", "trace_id") if (value := getattr(record, name, None))
        ]
        said = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = (
            f"{_time(record)} {record.levelname:7} {record.process} {record.name}: {' '.join([said, *ids])}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
