"""One request after another to a gateway: its refusals as errors, and patience with one that is busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.commands.predict.errors import InputFailed, NobodyAnswers, RunFailed
from app.commands.predict.gateway import Gateway
from app.commands.smoke.http import Reply
from app.errors import DeadlineExceeded, TritonUnavailable

_BUSY = (429, 503)
_LONGEST_DETAIL = 400
# Said of the key, the address or the command line: no other input would fare better.
_OF_ALL = frozenset({401, 403, 405, 406, 422})


@dataclass(frozen=True, slots=True)
class Asking:
    """Options of the requests of one run.

    `wait_s`: longest wait, per input, for a gateway that is busy. `overridden`: the command line names a branch or a
    variant, so one that isn't there is everybody's. `told` is called with what people may want to know.
    """

    gateway: Gateway
    timeout_s: float
    wait_s: float
    overridden: bool = False
    told: Callable[[str], None] = lambda _: None

    def ask(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Post, and again when a busy gateway says so.

        Raises:
            InputFailed: it refuses this input.
            RunFailed: it would refuse every one; NobodyAnswers: nobody answers.
        """
        left = self.wait_s
        while True:
            reply = self._once(path, body, self.headers(headers))
            if reply.ok:
                return reply
            pause = pause_of(reply)
            if pause is None or pause > left:
                raise self.refusal(reply, waited=pause is not None)
            left -= pause
            self.told(f"the gateway is busy and asks to wait {pause:g} s")
            time.sleep(pause)

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers of a request."""
        return {"X-Request-Timeout": f"{self.timeout_s:g}", **(more or {})}

    def refusal(self, reply: Reply, *, waited: bool = False) -> Exception:
        """The error that a refusal is."""
        said = reply.json()
        if not isinstance(said, dict) or "code" not in said:  # of a proxy, or of something else altogether
            if reply.status >= 500 or reply.status == 413:
                return InputFailed(f"http_{reply.status}", _strange(reply))
            return RunFailed(f"{self.gateway.title} answers as no gateway does: {_strange(reply)}")
        code, detail = str(said["code"]), str(said.get("detail", ""))[:_LONGEST_DETAIL]
        what = str(said.get("what_to_do", ""))
        if waited:
            what = f"{what} --wait allows more than {self.wait_s:g} s."
        if reply.status in _OF_ALL or self._is_everybodys(code, detail):
            hint = _KEY if reply.status in (401, 403) else _HELP if code in _OF_PARAMETERS else what
            return RunFailed(f"{detail or said.get('title', code)}" + (f"; {hint}" if hint else ""))
        return InputFailed(code, detail, what)

    def _is_everybodys(self, code: str, detail: str) -> bool:
        """Tell a fault of the command line from one of this input."""
        if code == "invalid_parameter":
            return not detail.startswith("the frames differ in size")
        return code == "not_found" or (code == "model_not_found" and self.overridden)

    def _once(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            return self.gateway.request("POST", path, body, headers)
        except DeadlineExceeded:
            raise InputFailed(
                "deadline_exceeded", f"no answer within {self.timeout_s:g} s", "--timeout allows more."
            ) from None
        except TritonUnavailable as error:
            raise NobodyAnswers(f"nobody answers there: {error.detail}") from error


_OF_PARAMETERS = ("invalid_parameter", "validation_failed", "model_not_found")
_HELP = "`gateway branches` lists the branches, `--help` the options"
_KEY = "GATEWAY_KEY holds the key of a gateway, --api-key-file names a file with it"


def pause_of(reply: Reply) -> float | None:
    """Seconds that a busy gateway asks to wait; None: it doesn't, or not in seconds."""
    text = reply.headers.get("retry-after", "")
    if reply.status not in _BUSY or not text.isdecimal() or len(text) > 6:
        return None
    return max(float(text), 0.1)


def _strange(reply: Reply) -> str:
    where = reply.headers.get("location")
    if 300 <= reply.status < 400 and where:
        return f"{reply.status}, see {where}"
    return reply.fault()


def json_of(reply: Reply) -> dict[str, Any]:
    """The answer's object.

    Raises:
        RunFailed: it is none.
    """
    said = reply.json()
    if not isinstance(said, dict):
        raise RunFailed("the answer is no JSON object: is it a gateway?")
    return said
