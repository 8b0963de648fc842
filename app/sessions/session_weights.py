"""The weights that a session's boxes are found with: those of its first frame, also where Tritons have different ones.

The session keeps them by branch. Each request reads them before its frames are inferred, and pins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app import context
from app.errors import ModelNotReady
from app.pipelines.detect import Detections

Weights = tuple[str | None, ...]
# A branch and the weights that its session has -> the weights to find with now; None: no server can have them any more.
WeightsNow = Callable[[str, Weights], Weights | None]


def pin(subject: str, head: dict[str, Any] | None, now: WeightsNow) -> str | None:
    """Give the runs of the current request the weights of the session.

    Args:
        subject: the session, in words.
        head: of the stored session; None: it is about to begin, with the first server's weights.
        now: see `WeightsNow`.

    Returns:
        A branch whose weights no server can have any more; None: all is well.
    """
    pins = context.pins()
    if pins is None:
        return None
    pins.subject, pins.steady = subject, True
    for branch, weights in ({} if head is None else head.get("weights", {})).items():
        wanted = now(branch, tuple(weights))
        if wanted is None:
            return str(branch)
        pins.confirm(branch, wanted)
    return None


def record(head: dict[str, Any], frames: Sequence[Detections]) -> None:
    """Keep the weights that found these frames, where there are several servers.

    Raises:
        ModelNotReady: another request has begun the session with other weights meanwhile.
    """
    for found in frames:
        model = found.served.model
        if model.endpoint is None:
            continue
        kept = head.setdefault("weights", {})
        known = kept.setdefault(model.name, [*model.weights_key])
        if known == [*model.weights_key]:
            continue
        if known[-1] != model.endpoint:  # else its digest has become known
            raise ModelNotReady(
                f"{model.name}: the session has begun with other weights meanwhile; send the frame again",
                retry_after=1,
            )
        kept[model.name] = [*model.weights_key]
