"""A gateway as `gateway smoke` sees it: its own routes, with real pictures and prompts."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping

import numpy as np

from app.commands.smoke.http import Http, Reply, multipart
from app.commands.smoke.inputs import PROMPTS, picture
from app.commands.smoke.report import Check
from app.commands.smoke.triton import CONTROL_TIMEOUT_S, Answer, Found, Models, in_order, timed_check
from app.errors import InferenceFailed, ModelNotReady
from app.families import FAMILIES, Families
from app.media.encodings import rgb_bytes
from app.probes import Probe
from routing.catalogue import Branch


class GatewayTarget:
    """`POST` to the route of each branch's family, the branch named; what comes back is what a caller sees.

    Args:
        url: the gateway.
        timeout_s: of one request.
        headers: that go with every request, as a key's does.
        operate_url: where its probes are, if they have a port of their own.
        families: how each one is called.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        operate_url: str | None = None,
        families: Families = FAMILIES,
    ) -> None:
        self._families = families.by_name
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
        return self._families[branch.family].probe.shapes(branch)

    def infer(self, branch: Branch, number: int) -> Answer:
        row = self._families[branch.family]
        path = row.probe.path(row.route, branch, every_number=True)
        body, headers = _request(branch, row.probe, number)
        headers["X-Request-Timeout"] = str(self._timeout_s)
        started = time.perf_counter()
        reply = self._http.post(path, body, headers)
        ms = (time.perf_counter() - started) * 1000
        if not reply.ok:
            raise InferenceFailed(_problem(reply))
        try:
            return Answer(ms, row.probe.arrays(branch, reply.body))
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


def _request(branch: Branch, probe: Probe, number: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with input 0 or 1."""
    if probe.prompts:
        # The gateway caches embeddings of prompts, so a repeated prompt would be answered without a model.
        prompt = f"{PROMPTS[number]}, {secrets.token_hex(4)}"
        return json.dumps({"prompts": [prompt]}).encode(), {
            "Content-Type": "application/json",
            **probe.headers,
        }
    rgb = picture(branch.size or 0, number)
    if not probe.parts:
        return rgb_bytes(rgb), {"Content-Type": "image/png", **probe.headers}
    moved = (np.roll(rgb, 8 * at, axis=1) for at in range(len(probe.parts)))
    body, kind = multipart({part: rgb_bytes(frame) for part, frame in zip(probe.parts, moved, strict=True)})
    return body, {"Content-Type": kind, **probe.headers}
