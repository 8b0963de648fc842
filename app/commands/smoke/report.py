"""Report of `gateway smoke`: rows, a table for people, JSON for machines, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

OK, WRONG, UNREACHABLE = 0, 1, 2
Need = Literal["required", "optional", "extra"]
Status = Literal["ok", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One row. `checklist`: the model's place on the READY checklist. Times in ms, `first_ms` of the first inference.

    `need`: required is what `/readyz` waits for; extra is what is READY, not required and not on the checklist.
    """

    kind: Literal["server", "model", "inference"]
    name: str
    need: Need
    status: Status
    ms: float | None = None
    first_ms: float | None = None
    detail: str = ""
    checklist: str = ""


@dataclass(slots=True)
class Report:
    """All rows, in the order in which they were found."""

    target: str
    strict: bool = False
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wrong(self) -> list[Check]:
        """Rows that make the exit code 1: required ones that are not ok; with `strict`, optional ones too.

        An optional model that is missing is never wrong: that is what optional means.
        """
        return [
            check
            for check in self.checks
            if check.status != "ok"
            and (check.need == "required" or (self.strict and check.status == "failed"))
        ]

    @property
    def exit_code(self) -> int:
        return WRONG if self.wrong() else OK

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "target": self.target,
            "exit_code": self.exit_code,
            "wrong": [f"{check.kind} {check.name}" for check in self.wrong()],
            "summary": {
                need: {status: self._count(need, status) for status in ("ok", "missing", "failed")}
                for need in ("required", "optional", "extra")
            },
            "checks": [asdict(check) for check in self.checks],
            "notes": self.notes,
        }

    def table(self) -> str:
        """Aligned columns, what was counted, and the verdict."""
        rows = [_cells(check) for check in self.checks]
        lines = [self.target, "", *aligned([_HEAD, *rows], _RIGHT), ""]
        lines += self.notes
        for need in ("required", "optional", "extra"):
            counts = {status: self._count(need, status) for status in ("ok", "missing", "failed")}
            said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
            lines.append(f"{need + ':':10}{said or 'none'}")
        wrong = ", ".join(f"{check.kind} {check.name} ({check.status})" for check in self.wrong())
        lines.append(f"WRONG: {wrong}" if wrong else "all that is required is well")
        return "\n".join(lines)

    def _count(self, need: str, status: str) -> int:
        return sum(check.need == need and check.status == status for check in self.checks)


_HEAD = ("check", "name", "need", "checklist", "status", "first ms", "ms", "detail")
_RIGHT = (5, 6)


def _cells(check: Check) -> tuple[str, ...]:
    times = ("" if value is None else f"{value:.1f}" for value in (check.first_ms, check.ms))
    return (check.kind, check.name, check.need, check.checklist, check.status, *times, check.detail)


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines whose columns stand below each other; `right` are the columns that hold numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
