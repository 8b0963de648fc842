"""Messages to callers' URLs when a video job is over, in the form of Standard Webhooks (standardwebhooks.com).

Every message is signed: `webhook-id` is the same for all attempts of one job, `webhook-timestamp` is the time of the
attempt, and `webhook-signature` holds `v1,` and the Base64 of an HMAC-SHA256 of id, timestamp and body, one per secret.
Deliveries lie in the jobs' index, so they outlive the process. They run on threads of their own: no receiver holds up a
job, and `close` waits for none.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app import __version__
from app.errors import GatewayError, UrlRefused, VideosUnavailable
from app.keys.signing import signature
from app.outgoing import Connection, UrlGuard
from app.state.callbacks import Callback, State
from app.state.jobs import Job, JobIndex
from app.state.moments import moment_text

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
_AT_ONCE = 4  # attempts of one worker; each ends within its time limit
_GROWTH, _LONGEST_PAUSE_S = 4.0, 6 * 3600.0
_LONGEST_WAIT_S = 24 * 3600.0  # that a receiver may ask for in Retry-After
_CLOSE_S = 1.0
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_GONE = 410  # the receiver wants no more of it (Standard Webhooks)
OUTCOMES = ("delivered", "retried", "given_up", "refused")  # of an attempt, in metrics
NO_HOSTS = "this service calls no URLs: GATEWAY_WEBHOOK_HOSTS is empty"


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """`keys` sign each message. An attempt has `limit_s`; after a failure the first pause is `retry_s`, and the last
    attempt is made within `give_up_s` of the job's end.
    """

    guard: UrlGuard
    keys: tuple[bytes, ...]
    limit_s: float = 10.0
    retry_s: float = 5.0
    give_up_s: float = 86400.0


def message(job: Job) -> bytes:
    """Return the body that tells of a finished job: the same bytes at every attempt."""
    here = f"/v1/videos/{job.id}"
    data = {
        "id": job.id, "state": job.state, "partial": job.partial, "name": job.name,
        "profile": job.profile, "bytes": job.bytes, "sha256": job.sha256, "frames": job.frames,
        "created": moment_text(job.created), "started": moment_text(job.started), "finished": moment_text(job.finished),
        "error": None if job.code is None else {"code": job.code, "detail": job.detail},
        "links": {"self": here, "manifest": f"{here}/artifacts/manifest.json" if job.state == "done" else None},
    }  # fmt: skip
    document = {"type": f"video.{job.state}", "timestamp": moment_text(job.finished), "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


class Webhooks:
    """See the module. `start` once, `close` at the end.

    Args:
        index: of the jobs, once it can be opened; raises VideosUnavailable until then.
        options: see there.
        observe: told how each attempt ended, see `OUTCOMES`.
    """

    def __init__(
        self, index: Callable[[], JobIndex], options: WebhookOptions, observe: Callable[[str], None]
    ) -> None:
        self._open = index
        self._options = options
        self._observe = observe
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._free = threading.Semaphore(_AT_ONCE)
        self._attempts: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Cut off what is on its way; the next start repeats it."""
        self._closing.set()
        with self._lock:
            for connection in self._connections:
                connection.abort()
            attempts = tuple(self._attempts)
        limit = time.monotonic() + _CLOSE_S
        for thread in (self._thread, *attempts):
            if thread.ident is not None:
                thread.join(max(0.0, limit - time.monotonic()))

    def check(self, url: str) -> None:
        """Check that a URL may be called, and that its host's addresses may, if it has any now.

        Raises:
            InvalidParameter, UrlRefused.
        """
        try:
            self._options.guard.target(url)
        except OSError as error:
            if error.errno in _NO_SUCH_NAME:  # any other failure of name servers may pass
                raise UrlRefused("the host of the URL can't be resolved") from error

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                if self._begin():
                    continue
            except VideosUnavailable:
                pass  # the jobs' threads say so
            except Exception:  # noqa: BLE001  # the thread must outlive whatever it meets
                _log.exception("looking for webhooks failed; it is tried again")
            self._closing.wait(_LOOK_S)

    def _begin(self) -> bool:
        """Begin an attempt, if one is due and there is room for it."""
        if not self._free.acquire(timeout=_LOOK_S):
            return False
        callback = None
        try:
            callback = None if self._closing.is_set() else self._open().callbacks.claim(time.time())
        finally:
            if callback is None:
                self._free.release()
        if callback is None:
            return False
        thread = threading.Thread(target=self._attempt, args=(callback,), name="webhook", daemon=True)
        with self._lock:
            self._attempts.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started now
            self._over(thread)
            self._again(callback, "the gateway has no thread for it now")
        return True

    def _attempt(self, callback: Callback) -> None:
        try:
            job = self._open().get(callback.job_id)
            if job is not None and (reason := self._refusal(callback.url)) is not None:
                _log.warning("the webhook of video %s is refused: %s", callback.job_id, reason)
                self._store(callback, "refused", None, reason)
                self._observe("refused")
            elif job is not None:
                self._settle(callback, job, *self._deliver(callback, job))
        except VideosUnavailable:
            self._again(callback, "the gateway can't read the job now")
        except Exception:  # noqa: BLE001  # a defect costs this attempt, not those of others
            _log.exception("the webhook of video %s failed", callback.job_id)
            self._again(callback, "the attempt failed inside the gateway")
        finally:
            self._over(threading.current_thread())

    def _refusal(self, url: str) -> str | None:
        """Return why no attempt with these settings can succeed; the addresses of a host may change, its name can't."""
        try:
            self._options.guard.check(url)
        except GatewayError as error:
            return error.detail
        return None

    def _over(self, attempt: threading.Thread) -> None:
        with self._lock:
            self._attempts.discard(attempt)
        self._free.release()

    def _deliver(self, callback: Callback, job: Job) -> tuple[int | None, str | None, float]:
        """Send the message; return the status, why it failed, and the pause that the receiver asks for (s)."""
        body, now, name = message(job), int(time.time()), f"msg_{job.id}"
        headers = {
            "content-type": "application/json",
            "user-agent": f"triton-vision-gateway/{__version__}",
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._options.keys, name, now, body),
        }
        try:
            status, wait_s = self._post(callback.url, body, headers)
        except GatewayError as error:
            return None, error.detail, 0.0
        except (OSError, http.client.HTTPException) as error:
            return None, next(words for kind, words in _REASONS if isinstance(error, kind)), 0.0
        failed = None if 200 <= status < 300 else f"the receiver answered {status}"
        return status, failed, wait_s

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
        """One request, cut off after the time limit. Only the head of the answer is read; redirects aren't followed."""
        target = self._options.guard.target(url)
        connection = target.connection(self._options.limit_s)
        timer = threading.Timer(self._options.limit_s, connection.abort)
        timer.daemon = True
        with self._lock:
            self._connections.add(connection)
            if self._closing.is_set():
                connection.abort()
        timer.start()
        try:
            connection.request("POST", target.path, body, headers)
            answer = connection.getresponse()
            return answer.status, _retry_after(answer.getheader("retry-after", ""))
        except (OSError, http.client.HTTPException) as error:
            if connection.aborted:
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _settle(
        self, callback: Callback, job: Job, status: int | None, error: str | None, wait_s: float
    ) -> None:
        now = time.time()
        if error is None:
            self._store(callback, "delivered", status, None)
            self._observe("delivered")
            return
        if self._closing.is_set():
            self._store(callback, "waiting", status, "the service stopped during the attempt", now)
            return
        due = now + max(self._pause_s(callback), wait_s)
        last = (job.finished or now) + self._options.give_up_s
        if status == _GONE or now >= last:
            _log.warning("the webhook of video %s is given up: %s", callback.job_id, error)
            self._store(callback, "failed", status, error)
            self._observe("given_up")
        else:
            self._store(callback, "waiting", status, error, min(due, last))
            self._observe("retried")

    def _again(self, callback: Callback, reason: str) -> None:
        """Put a delivery back that this process couldn't attempt."""
        self._store(callback, "waiting", None, reason, time.time() + self._pause_s(callback))

    def _pause_s(self, callback: Callback) -> float:
        pause = min(self._options.retry_s * _GROWTH ** min(callback.attempts - 1, 20), _LONGEST_PAUSE_S)
        return pause * random.uniform(0.75, 1.25)  # noqa: S311  # no secret

    def _store(
        self, callback: Callback, state: State, status: int | None, error: str | None, due: float = 0.0
    ) -> None:
        """Retry until the index can be used; a stop leaves the row to the next start, which repeats the attempt."""
        while True:
            with contextlib.suppress(VideosUnavailable):
                self._open().callbacks.settle(callback.job_id, state, status, error, due)
                return
            if self._closing.wait(_LOOK_S):
                return


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header; 0 for none, and for a date."""
    return min(float(text), _LONGEST_WAIT_S) if re.fullmatch(r"[0-9]{1,9}", text.strip()) else 0.0


# Why there was no answer, without the words of a library; the first that fits.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no answer in time"),
    (ssl.SSLCertVerificationError, "the receiver's certificate can't be verified"),
    (ssl.SSLError, "TLS with the receiver failed"),
    (socket.gaierror, "the host can't be resolved"),
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionError, "the connection broke"),
    (http.client.HTTPException, "the receiver's answer is no HTTP"),
    (OSError, "the connection failed"),
)
