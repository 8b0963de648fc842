"""Every metric: name, labels, and buckets with their reason; on a registry of its own.

No label takes a value from the caller: routes, families, branches, codes and reasons are ours. With several workers
(a folder that they share) every worker's numbers are put together by whichever answers; each gauge says how.
`docs/metrics.md` is made from here by `gateway metrics`.
"""

from __future__ import annotations

from app.metrics.exposition import markdown
from app.metrics.metrics import Metrics
from app.metrics.registry import STAGE_BUCKETS, Described

__all__ = ["STAGE_BUCKETS", "Described", "Metrics", "markdown"]
