"""The two answers to one input, by family: the request, and the comparison of what comes back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from app.commands.compare import differences
from app.commands.compare.differences import Difference
from app.commands.predict.asking import Asking, json_of
from app.commands.predict.errors import RunFailed
from app.commands.smoke.http import Reply, multipart

Query = Mapping[str, str]
_NPY = {"Accept": "application/x-npy"}


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: what is compared, and its provenance."""

    content: Any
    provenance: Mapping[str, Any]


Ask = Callable[[Asking, Query, Sequence[bytes]], Said]


@dataclass(frozen=True, slots=True)
class Kind:
    """A family that can be compared; an input has so many `pictures`, or is a text where there are none."""

    ask: Ask
    compare: Callable[[Any, Any], Difference]
    pictures: int = 1
    named: str = "branch"  # the parameter that chooses it


def _document(field: str, path: str) -> Ask:
    def ask(asking: Asking, query: Query, data: Sequence[bytes]) -> Said:
        said = json_of(asking.ask(f"{path}?{urlencode(query)}", data[0]))
        return Said(said[field], said)

    return ask


def _text(asking: Asking, query: Query, data: Sequence[bytes]) -> Said:
    body = json.dumps({"prompts": [data[0].decode()]}).encode()
    said = json_of(
        asking.ask(f"/v1/clip/text?{urlencode(query)}", body, {"Content-Type": "application/json"})
    )
    return Said(said["embeddings"][0], said)


def _depth(asking: Asking, query: Query, data: Sequence[bytes]) -> Said:
    return _array(asking.ask(f"/v1/depth?{urlencode({**query, 'size': 'branch'})}", data[0], _NPY))


def _flow(asking: Asking, query: Query, data: Sequence[bytes]) -> Said:
    body, kind = multipart({"frame0": data[0], "frame1": data[1]})
    path = f"/v1/flow?{urlencode({**query, 'size': 'branch'})}"
    return _array(asking.ask(path, body, {**_NPY, "Content-Type": kind}))


def _array(reply: Reply) -> Said:
    try:
        values: NDArray[Any] = np.load(io.BytesIO(reply.body), allow_pickle=False)
        said = json.loads(reply.headers.get("x-provenance", ""))
    except (ValueError, EOFError) as error:
        raise RunFailed("the answer is no array with its provenance: is it a gateway?") from error
    return Said(values, said)


KINDS: Mapping[str, Kind] = {
    "detect": Kind(_document("detections", "/v1/detect"), differences.of_boxes),
    "depth": Kind(_depth, differences.of_maps),
    "flow": Kind(_flow, differences.of_maps, pictures=2),
    "clip_image": Kind(_document("embedding", "/v1/clip/image"), differences.of_embeddings),
    "clip_text": Kind(_text, differences.of_embeddings, pictures=0, named="variant"),
    "places": Kind(_document("places", "/v1/places"), differences.of_scenes),
}
