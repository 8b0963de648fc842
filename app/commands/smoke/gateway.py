"""A gateway as `gateway smoke` sees it: its own routes, with real pictures and prompts."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.commands.smoke.http import Http, Reply, multipart
from app.commands.smoke.inputs import PROMPTS, Arrays, picture
from app.commands.smoke.report import Check
from app.commands.smoke.triton import CONTROL_TIMEOUT_S, Answer, Found, Models, in_order, timed_check
from app.errors import InferenceFailed, ModelNotReady
from app.media.encodings import rgb_bytes
from routing.catalogue import Branch

_NPY = {"Accept": "application/x-npy"}
_ROUTES = {
    "detect": "/v1/detect?conf=0.01&branch=",
    "depth": "/v1/depth?size=branch&branch=",
    "flow": "/v1/flow?size=branch&branch=",
    "clip_image": "/v1/clip/image?branch=",
    "places": "/v1/places?k=365&branch=",
    "clip_text": "/v1/clip/text",
}
_BOX = 6  # x1, y1, x2, y2, score, class


class GatewayTarget:
    """`POST` to the route of each branch's family, the branch named; what comes back is what a caller sees.

    Args:
        url: the gateway.
        timeout_s: of one request.
        headers: that go with every request, as a key's does.
        operate_url: where its probes are, if they have a port of their own.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        operate_url: str | None = None,
    ) -> None:
        control_s = min(timeout_s, CONTROL_TIMEOUT_S)
        self._probes = Http(operate_url or url, control_s, headers)
        self._control = Http(url, control_s, headers)
        self._http = Http(url, timeout_s, headers)
        self._timeout_s = timeout_s
        self.title = f"gateway at {self._http.url}"

    def server(self) -> list[Check]:
        rows = []
        for name, path in (("live", "/livez"), ("ready", "/readyz")):
            started = time.perf_counter()
            reply = self._probes.get(path)
            rows.append(timed_check(name, reply.ok, started, f"{path}: {_failing(reply)}"))
        return rows

    def models(self) -> Models:
        reply = self._control.get("/v1/repository")
        said = reply.json()
        if not reply.ok or not isinstance(said, dict):
            raise ModelNotReady(f"GET /v1/repository: {reply.fault()}")
        self.title = f"gateway at {self._http.url} (engine: {said.get('engine')})"
        keys = ("name", "readiness", "reason", "required", "checklist")
        return Models(in_order(Found(*(row.get(key) for key in keys)) for row in said.get("models", ())), [])

    def shapes(self, branch: Branch) -> Mapping[str, tuple[int, ...]]:
        if branch.family == "detect":
            return {"detections": (-1, _BOX)}
        spec = branch.outputs[0]
        if branch.family == "clip_text":
            return {spec.name: (1, spec.shape[-1])}
        return {spec.name: spec.shape[1:]}

    def infer(self, branch: Branch, number: int) -> Answer:
        path = _ROUTES[branch.family] + ("" if branch.family == "clip_text" else branch.name)
        body, headers = _request(branch, number)
        headers["X-Request-Timeout"] = str(self._timeout_s)
        started = time.perf_counter()
        reply = self._http.post(path, body, headers)
        ms = (time.perf_counter() - started) * 1000
        if not reply.ok:
            raise InferenceFailed(_problem(reply))
        try:
            return Answer(ms, _arrays(branch, reply))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InferenceFailed(f"the answer can't be read: {error!r}") from error

    def close(self) -> None:
        self._probes.close()
        self._control.close()
        self._http.close()


def _failing(reply: Reply) -> str:
    """Return the names that /readyz reports as failing."""
    said = reply.json()
    if not isinstance(said, dict) or not isinstance(said.get("failing"), list):
        return reply.fault()
    return f"HTTP {reply.status}: " + "; ".join(
        f"{row.get('name')} {row.get('readiness')} {row.get('reason') or ''}".strip()
        for row in said["failing"]
    )


def _problem(reply: Reply) -> str:
    said = reply.json()
    code = said.get("code") if isinstance(said, dict) else None
    return f"{code}: {said['detail']}" if code else reply.fault()


def _request(branch: Branch, number: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with input 0 or 1."""
    if branch.family == "clip_text":
        # The gateway remembers prompts: one that it has seen would be answered without a model.
        prompt = f"{PROMPTS[number]}, {secrets.token_hex(4)}"
        return json.dumps({"prompts": [prompt]}).encode(), {"Content-Type": "application/json", **_NPY}
    rgb = picture(branch.size or 0, number)
    frame = rgb_bytes(rgb)
    if branch.family == "flow":
        moved = rgb_bytes(np.roll(rgb, 8, axis=1))
        body, kind = multipart({"frame0": frame, "frame1": moved})
        return body, {"Content-Type": kind, **_NPY}
    json_only = branch.family in ("detect", "places")
    return frame, {"Content-Type": "image/png", **({} if json_only else _NPY)}


def _arrays(branch: Branch, reply: Reply) -> Arrays:
    """The numbers of an answer: the array itself, boxes as rows, or probabilities by category."""
    if branch.family == "detect":
        return {"detections": _boxes(json.loads(reply.body))}
    name = branch.outputs[0].name
    if branch.family == "places":
        probabilities = np.full(branch.outputs[0].shape[1], np.nan)
        for place in json.loads(reply.body)["places"]:
            probabilities[place["category_id"]] = place["probability"]
        return {name: probabilities}
    return {name: np.load(io.BytesIO(reply.body), allow_pickle=False)}


def _boxes(document: Mapping[str, Any]) -> NDArray[np.float64]:
    rows = [[*row["box"], row["score"], row["class_id"]] for row in document["detections"]]
    return np.array(rows, np.float64).reshape(len(rows), _BOX)
