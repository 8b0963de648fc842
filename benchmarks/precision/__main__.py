"""FP16 models beside FP32 ones: boxes of a trained detector, answers of every family, and files.

    python -m benchmarks.precision [--models triton/models] [--catalogue catalogue] [--page docs/precision.md]
        [--json docs/precision.json] [--only boxes,answers,kept,files]

Compares the branches that exist in both precisions in the repository (`make models PRECISION=fp16`), on photographs and
video frames of installed packages, with ONNX Runtime on this CPU. Times are not measured. The page's tables are
written between its marks.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.precision import detector, kept, tensors
from benchmarks.precision.pictures import pairs, photos
from benchmarks.precision.sizes import sizes
from export import manifest
from routing import overlay
from routing.catalogue import Branch

Pair = tuple[Branch, Branch]
Rows = list[dict[str, Any]]
# One branch of each network: sizes have the same operations.
KEPT = (
    "yolo11n_640",
    "midas_256",
    "midas_384",
    "raft_256",
    "clip_image_224",
    "clip_text",
    "places365_resnet50_224",
)
_PICTURES = 1  # for the comparison of parts, which runs unoptimised


class Report:
    """The comparisons over one repository."""

    def __init__(self, repository: Path, catalogue: Path | None) -> None:
        self._repository = repository
        known = overlay.load(catalogue)
        branches = (branch for family in known.families.values() for branch in family.branches)
        both = ((branch, branch.alternate) for branch in branches if branch.alternate is not None)
        self.pairs: list[Pair] = [(s, h) for s, h in both if self._built(s) and self._built(h)]

    def _built(self, branch: Branch) -> bool:
        return manifest.read(branch.weights_model, self._repository) is not None

    def _weights(self, branch: Branch) -> str:
        record = manifest.read(branch.weights_model, self._repository)
        assert record is not None
        return "random" if record.provenance.weights == "random" else "trained"

    def boxes(self) -> Rows:
        pictures = photos()
        return [
            detector.compare(self._repository, single, half, pictures).to_dict()
            for single, half in self.pairs
            if single.family == "detect" and self._weights(single) == "trained"
        ]

    def answers(self) -> Rows:
        return [
            {
                **tensors.compare(self._repository, single, half, self._inputs(single)).to_dict(),
                "weights": self._weights(single),
            }
            for single, half in self.pairs
        ]

    def kept(self) -> Rows:
        rows: Rows = []
        for single, _ in self.pairs:
            if single.name in KEPT:
                inputs = dict(list(self._inputs(single).items())[:_PICTURES])
                feeds = tensors.feeds_of(self._repository, single, inputs)
                rows += map(asdict, kept.measure(self._repository, single, feeds))
        return rows

    def files(self) -> Rows:
        found = sizes(self._repository, self.pairs)
        return [{**asdict(size), "share": round(size.fp16 / size.fp32, 4)} for size in found]

    @staticmethod
    def _inputs(branch: Branch) -> Mapping[str, Any]:
        if branch.family == "flow":
            return pairs()
        return {name: (picture,) for name, picture in photos().items()}


def boxes_table(rows: Rows) -> str:
    head = (
        "| branch | boxes in FP32, FP16 | matched | mean IoU | greatest box difference, px "
        "| greatest score difference | scores of unmatched boxes | AP |"
    )
    return _table(head, (
        f"| `{r['branch']}` | {r['boxes_fp32']}, {r['boxes_fp16']} | {r['matched']} | {r['mean_iou']:.4f} | "
        f"{r['greatest_box_px']:.2f} | {r['greatest_score']:.4f} | "
        f"{', '.join(f'{s:.3f}' for s in r['only']) or 'none'} | {r['ap']:.4f} |"
        for r in rows
    ))  # fmt: skip


def answers_table(rows: Rows) -> str:
    head = "| branch | weights | inputs | RMS error | greatest error | cosine |"
    return _table(head, (
        f"| `{r['branch']}` | {r['weights']} | {r['inputs']} | {r['rms']:.2g} | {r['greatest']:.2g} "
        f"| {r['cosine']:.6f} |"
        for r in rows
    ))  # fmt: skip


def kept_table(rows: Rows) -> str:
    head = "| branch | | RMS error | greatest error | boxes, px | scores |"
    return _table(head, (
        f"| `{r['branch']}` | {r['way']} | {r['rms']:.2g} | {r['greatest']:.2g} | "
        + (" | " if r["box_px"] is None else f"{r['box_px']:.2f} | {r['score']:.4f}") + " |"
        for r in rows
    ))  # fmt: skip


def files_table(rows: Rows) -> str:
    head = "| network | sizes | FP32, MB | FP16, MB | |"
    return _table(head, (
        f"| {r['network']} | {r['branches']} | {r['fp32'] / 1e6:.1f} | {r['fp16'] / 1e6:.1f} | "
        f"{100 * r['fp16'] / r['fp32']:.0f} % |"
        for r in rows
    ))  # fmt: skip


TABLES: Mapping[str, Callable[[Rows], str]] = {
    "boxes": boxes_table, "answers": answers_table, "kept": kept_table, "files": files_table,
}  # fmt: skip


def _table(head: str, rows: Any) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rows]) + "\n"


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with tables between its marks."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        whole = (begin + table + end).replace("\\", "\\\\")
        page, count = re.subn(pattern, whole, page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} places for the table {name}")
    return page


def main() -> None:
    """Compare, print, and write what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("triton/models"))
    parser.add_argument("--catalogue", type=Path, default=Path("catalogue"))
    parser.add_argument("--page", type=Path, help="Markdown with marks, whose tables are replaced")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(TABLES), metavar=",".join(TABLES)
    )
    options = parser.parse_args()
    report = Report(options.models, options.catalogue if options.catalogue.exists() else None)
    if not report.pairs:
        parser.error(f"{options.models} has no branch in both precisions: make models PRECISION=fp16")
    there = (
        json.loads(options.json.read_text(encoding="utf-8"))
        if options.json and options.json.is_file()
        else {}
    )
    found: dict[str, Any] = {**there, "onnxruntime": version("onnxruntime")}
    for name in options.only:
        found[name] = getattr(report, name)()
        print(f"{name}\n{TABLES[name](found[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.page:
        tables = {name: TABLES[name](found[name]) for name in TABLES if name in found}
        options.page.write_text(filled(options.page.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
