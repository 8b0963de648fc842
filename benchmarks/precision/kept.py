"""Worth of each part that stays in FP32: the error with it in FP16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.precision.models import Array, Feeds, graph, session
from benchmarks.precision.tensors import answer, difference
from export.half import conversion
from export.half.models import read
from export.half.rounding import rounded
from routing.catalogue import Branch

_NORMS = frozenset({"InstanceNormalization", "LayerNormalization", "ReduceL2", "ReduceMean", "ReduceSum"})
ALL = conversion.Kept()
NOTHING = conversion.Kept(frozenset(), dfl=False, sampling=False, tail=False)
# In words, and what is kept then.
WAYS: Mapping[str, conversion.Kept] = {
    "as served": ALL,
    "softmax in FP16": replace(ALL, operations=ALL.operations - {"Softmax"}),
    "norms in FP16": replace(ALL, operations=ALL.operations - _NORMS),
    "bins of boxes (DFL) in FP16": replace(
        ALL, operations=ALL.operations - {"Softmax"}, dfl=False, tail=False
    ),
    "correlation and coordinates in FP16": replace(
        ALL, operations=ALL.operations - {"GridSample"}, sampling=False
    ),
    "the end of the graph in FP16": replace(ALL, tail=False),
    "everything in FP16": NOTHING,
}


@dataclass(frozen=True, slots=True)
class Worth:
    """Error of one way. `greatest` of boxes in pixels of the square and of scores where the branch is a detector."""

    branch: str
    way: str
    rms: float
    greatest: float
    box_px: float | None = None
    score: float | None = None


def measure(repository: Path, branch: Branch, feeds: Sequence[Feeds]) -> list[Worth]:
    """Compare every way that makes another graph, on these inputs. Every FP16 number is rounded."""
    model = read(graph(repository, branch.weights_model))
    expected = [answer(session(graph(repository, branch.weights_model)), feed) for feed in feeds]
    served, found = b"", []
    for way, kept in WAYS.items():
        content = conversion.convert(model, kept).SerializeToString(deterministic=True)
        if way != "as served" and content == served:
            continue
        served = served or content
        run = session(rounded(conversion.convert(model, kept)).SerializeToString(), optimised=False)
        found.append(_worth(branch, way, expected, [answer(run, feed) for feed in feeds]))
    return found


def _worth(branch: Branch, way: str, expected: Sequence[Array], answers: Sequence[Array]) -> Worth:
    worst = difference(branch.name, expected, answers)
    if branch.family != "detect":
        return Worth(branch.name, way, worst.rms, worst.greatest)
    gaps = [
        np.abs(one - other)[:, :, one[0, 4:].max(0) > 0.25]
        for one, other in zip(expected, answers, strict=True)
    ]
    gaps = [gap for gap in gaps if gap.size]
    boxes, scores = (
        max((float(gap[:, part].max()) for gap in gaps), default=0.0) for part in (slice(4), slice(4, None))
    )
    return Worth(branch.name, way, worst.rms, worst.greatest, boxes, scores)
