"""One request after another to a gateway: its refusals as errors, and patience with one that is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from app.commands.predict.errors import InputFailed, NobodyAnswers, RunFailed
from app.commands.predict.gateway import Gateway
from app.commands.smoke.http import Reply
from app.errors import DeadlineExceeded, TritonUnavailable

T = TypeVar("T")
_BUSY = (429, 503)
_FIRST_PAUSE_S = 0.5  # before a gateway that is away is asked again; then twice as long, and so on
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
    reached: threading.Event = field(default_factory=threading.Event)  # the gateway has answered once

    def ask(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Post, and again when a busy gateway says so, or one that has answered before is away.

        Raises:
            InputFailed: it refuses this input.
            RunFailed: it would refuse every one; NobodyAnswers: nobody answers.
        """
        found = self.patiently(lambda: self.gateway.request("POST", path, body, self.headers(headers)))
        if found.ok:
            return found
        raise self.refusal(found)

    def lines(self, path: str, video: BinaryIO, nbytes: int) -> Iterator[bytes]:
        """Post a video, likewise; the lines of its answer.

        Raises:
            InputFailed, RunFailed, NobodyAnswers: as `ask`.
        """

        def post() -> Reply | Iterator[bytes]:
            video.seek(0)
            return self.gateway.lines(path, video, nbytes, {"Content-Type": "application/octet-stream"})

        found = self.patiently(post)
        if isinstance(found, Reply):
            raise self.refusal(found)
        return found

    def patiently(self, post: Callable[[], T]) -> T:
        """Return the last answer of `post`: one that is not "busy", or the one after which `wait_s` are used up."""
        left, away_s = self.wait_s, _FIRST_PAUSE_S
        while True:
            try:
                found = post()
            except DeadlineExceeded:
                detail = f"no answer within {self.timeout_s:g} s"
                raise InputFailed("deadline_exceeded", detail, "--timeout allows more.") from None
            except TritonUnavailable as error:
                if not self.reached.is_set() or away_s > left:
                    raise NobodyAnswers(
                        f"nobody answers there: {error.detail}{_tls_hint(error.detail)}"
                    ) from error
                pause, away_s = away_s, 2 * away_s
                self.told("the gateway is away; trying again")
            else:
                self.reached.set()
                busy = pause_of(found) if isinstance(found, Reply) else None
                if busy is None or busy > left:
                    return found
                pause = busy
                self.told(f"the gateway is busy and asks to wait {pause:g} s")
            left -= pause
            time.sleep(pause)

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers of a request."""
        return {"X-Request-Timeout": f"{self.timeout_s:g}", **(more or {})}

    def refusal(self, reply: Reply) -> Exception:
        """The error that a refusal is."""
        said = reply.json()
        if not isinstance(said, dict) or "code" not in said:  # of a proxy, or of something else altogether
            if reply.status >= 500 or reply.status == 413:
                return InputFailed(f"http_{reply.status}", _strange(reply))
            return RunFailed(f"{self.gateway.title} doesn't answer like a gateway: {_strange(reply)}")
        code, detail = str(said["code"]), str(said.get("detail", ""))[:_LONGEST_DETAIL]
        what = str(said.get("what_to_do", ""))
        if pause_of(reply) is not None:
            what = f"--wait allows more than {self.wait_s:g} s."
        if reply.status in _OF_ALL or self._is_everybodys(code, detail):
            hint = _KEY if reply.status in (401, 403) else _HELP if code in _OF_PARAMETERS else what
            return RunFailed(f"{detail or said.get('title', code)}" + (f"; {hint}" if hint else ""))
        return InputFailed(code, detail, what)

    def _is_everybodys(self, code: str, detail: str) -> bool:
        """Tell a fault of the command line from one of this input."""
        if code == "invalid_parameter":
            return not detail.startswith("the frames differ in size")
        return code == "not_found" or (code == "model_not_found" and self.overridden)


_OF_PARAMETERS = ("invalid_parameter", "validation_failed", "model_not_found")
_HELP = "`gateway branches` lists the branches, `--help` the options"
_KEY = "GATEWAY_KEY holds the key of a gateway, --api-key-file names a file with it"


def _tls_hint(detail: str) -> str:
    return "; --cacert names who signed its certificate" if "CERTIFICATE_VERIFY_FAILED" in detail else ""


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
