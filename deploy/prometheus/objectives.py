"""Writes the latency objectives of the families into `rules/objectives.yml`; --check only compares.

    python -m deploy.prometheus.objectives [--check]

The numbers are those of `app/families.py`. A deployment with other objectives edits its copy of the file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from app.families import FAMILIES

FILE = Path(__file__).parent / "rules" / "objectives.yml"
_HEAD = """\
# The time within which 99 in 100 requests of a route should be answered. Change an objective here: the alert and the
# dashboards read this file. The committed values come from app/families.py: python -m deploy.prometheus.objectives
groups:
  - name: objectives
    rules:
"""
_RULE = (
    '      - {{record: "route:gateway_request_duration_seconds:objective", expr: vector({seconds:g}), '
    "labels: {{route: {route}}}}}\n"
)


def objectives(seconds: Mapping[str, float]) -> str:
    """Return the rules for the objective of each route."""
    rules = (_RULE.format(route=route, seconds=limit) for route, limit in seconds.items())
    return _HEAD + "".join(rules)


def main() -> int:
    """The exit code is 1 if --check finds a difference."""
    made = objectives(FAMILIES.objectives_s)
    if "--check" not in sys.argv[1:]:
        FILE.write_text(made, "utf-8")
        return 0
    if FILE.read_text("utf-8") == made:
        return 0
    print(f"{FILE.name} isn't what it should be; run: python -m deploy.prometheus.objectives")
    return 1


if __name__ == "__main__":
    sys.exit(main())
