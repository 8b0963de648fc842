"""The words of the command: lines for people, and JSON objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from app.videos.names import shown
from app.videos.verification.files import CheckedFiles
from app.videos.verification.models import ComparedComponent

_MOST_SHOWN = 20
_VERDICTS = (
    ("same", "made by the same models"), ("differs", "by others"), ("missing", "by models that are not there"),
    ("unknown", "by models without a known digest"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verified:
    """One manifest: its files, and its models by component; None where they were not compared."""

    files: CheckedFiles
    components: list[ComparedComponent] | None

    @property
    def models_differ(self) -> bool:
        """True if a model is another one, or is not there."""
        return any(one.verdict in ("differs", "missing") for one in self.components or ())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of one manifest."""
        document = self.files.document
        return {
            "folder": shown(self.files.folder or "."),
            "video": None if document is None else document.video,
            "run_id": None if document is None else document.run_id,
            "ok": not self.files.problems and not self.models_differ,
            "files": self.files.files,
            "bytes": self.files.nbytes,
            "problems": [{**asdict(one), "file": shown(one.file)} for one in self.files.problems],
            "components": None if self.components is None else [asdict(one) for one in self.components],
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines for people about all that is wrong."""
        for problem in self.files.problems:
            yield f"{problem.fault.replace('_', ' '):12} {shown(problem.file)}: {problem.detail}"
        for component in self.components or ():
            for model in component.models:
                if model.verdict in ("differs", "missing"):
                    there = (
                        "it is not there" if model.at_hand is None else f"at hand is {model.at_hand.words()}"
                    )
                    made_by = " and ".join(one.words() for one in model.recorded)
                    where = f"{shown(self.files.folder or '.')}: {component.component}: {model.model}"
                    yield f"other model  {where}: made by {made_by}; {there}"


@dataclass(slots=True)
class Totals:
    """Counts of everything that was checked."""

    manifests: int = 0
    files: int = 0
    nbytes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)

    def add(self, one: Verified) -> None:
        """Count one manifest."""
        self.manifests += 1
        self.files += one.files.files
        self.nbytes += one.files.nbytes
        self.faults.update(problem.fault for problem in one.files.problems)
        self.verdicts.update(component.verdict for component in one.components or ())

    def wrong(self, *, strict: bool) -> bool:
        """Return whether the exit code says that something is wrong."""
        models = self.verdicts["differs"] or self.verdicts["missing"]
        return bool(self.faults or models or (strict and self.unknown))

    def to_dict(self, place: str | None) -> dict[str, Any]:
        """Return the JSON object of the summary."""
        return {
            "summary": {
                "manifests": self.manifests, "files": self.files, "bytes": self.nbytes,
                "problems": dict(sorted(self.faults.items())), "models_at": place,
                "components": dict(sorted(self.verdicts.items())), "unknown_files": list(map(shown, self.unknown)),
            }
        }  # fmt: skip

    def lines(self, place: str | None) -> Iterator[str]:
        """Yield the summary for people."""
        for name in self.unknown[:_MOST_SHOWN]:
            yield f"unknown file {shown(name)}: no manifest lists it"
        if len(self.unknown) > _MOST_SHOWN:
            yield f"unknown file and {len(self.unknown) - _MOST_SHOWN} more"
        found = ", ".join(
            f"{count} {fault.replace('_', ' ')}" for fault, count in sorted(self.faults.items())
        )
        counts = f"{self.manifests} manifests, {self.files} files, {self.nbytes} bytes"
        yield f"files        {counts}: {found or 'all as listed'}"
        if place is None:
            yield "models       not compared: name them with --repository or --triton-url"
            return
        verdicts = ", ".join(
            f"{self.verdicts[name]} {words}" for name, words in _VERDICTS if self.verdicts[name]
        )
        yield f"models       components of all videos, compared with {shown(place)}: {verdicts or 'none'}"
