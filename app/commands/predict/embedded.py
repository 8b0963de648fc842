"""The service in this process, without a socket: requests go to the same application that `gateway serve` runs.

So an answer is the answer of the service, to the field: the same parameters, limits, problems and provenance.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from app.commands.smoke.http import Reply
from app.engine.base import Engine
from app.engine.weights import WeightsBook
from app.errors import DeadlineExceeded, TritonUnavailable
from app.main import create_app, create_engine
from app.settings import Settings
from routing.catalogue import Catalogue
from routing.policy import Readiness
from routing.provenance import UNKNOWN

T = TypeVar("T")
_PIECE = 1 << 20
_MOST_LINES = 64  # pieces of an answer that wait for their reader
_POLL_S = 0.01
_SPARE_S = 5.0  # the application says itself that the time ran out; this is for one that hangs
_END = b""


class EmbeddedGateway:
    """The application on a thread of its own. `wait` first: models are loaded in the background.

    Args:
        settings: of the service; only what they name is loaded.
        timeout_s: longest wait for an answer, and between two lines.

    Raises:
        RuntimeError: the settings can't be carried out on this installation; the message says what to do.
    """

    def __init__(self, settings: Settings, timeout_s: float) -> None:
        self.title = f"embedded engine, models in {settings.repository}"
        self._timeout_s = timeout_s
        self._repository = settings.repository
        self._engine: Engine | None = None
        self._app: Any = create_app(settings, self._make_engine)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded-gateway", daemon=True)
        self._thread.start()
        self._lifespan = self._app.router.lifespan_context(self._app)
        try:
            self._state = self._result(self._lifespan.__aenter__())
        except BaseException:
            self._stop()
            raise

    def wait(self, names: list[str], stop: threading.Event | None = None) -> list[str]:
        """Wait until the branches are loaded or given up; answers why those can't serve that can't."""
        engine = self._engine
        assert engine is not None  # noqa: S101  # the lifespan has made it
        idle = stop or threading.Event()
        while any(engine.ready()[name].readiness is Readiness.LOADING for name in names):
            if idle.wait(_POLL_S):
                break
        states = [engine.ready()[name] for name in names]
        return [
            f"{state.name}: {state.reason or state.readiness.value}" for state in states if not state.ready
        ]

    def changed(self, names: list[str]) -> list[str]:
        """Return the loaded branches whose files aren't those of their record."""
        engine, book = self._engine, WeightsBook(self._repository, None)
        assert engine is not None  # noqa: S101  # as above
        states = engine.ready()
        return [
            name
            for name in names
            if states[name].ready
            and states[name].weights.digest == UNKNOWN
            and book.lookup(self._catalogue.branches[name].weights_model).digest != UNKNOWN
        ]

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        call = _Call(self._scope(method, path, headers, len(body or b"")), io.BytesIO(body or b""))
        pieces: list[bytes] = []

        async def keep(piece: bytes) -> None:
            pieces.append(piece)

        self._result(call.run(self._app, keep), self._timeout_s + _SPARE_S)
        return Reply(call.status, call.headers, b"".join(pieces))

    def lines(
        self, path: str, file: BinaryIO, nbytes: int, headers: Mapping[str, str] | None = None
    ) -> Reply | Iterator[bytes]:
        call = _Call(self._scope("POST", path, headers, nbytes), file)
        pieces: queue.Queue[bytes] = queue.Queue()

        async def hand_over(piece: bytes) -> None:
            while pieces.qsize() >= _MOST_LINES:
                await asyncio.sleep(_POLL_S)
            if piece:
                pieces.put(piece)

        running = asyncio.run_coroutine_threadsafe(call.run(self._app, hand_over), self._loop)
        running.add_done_callback(lambda _: pieces.put(_END))
        first = self._next(pieces, running)
        if call.status == 200:
            return self._split(first, pieces, running)
        rest = iter(lambda: self._next(pieces, running), _END) if first else iter(())
        return Reply(call.status, call.headers, first + b"".join(rest))

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._result(self._lifespan.__aexit__(None, None, None))
        self._stop()

    def _make_engine(self, settings: Settings, catalogue: Catalogue) -> Engine:
        self._catalogue = catalogue
        self._engine = create_engine(settings, catalogue)
        return self._engine

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _result(self, what: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        running = asyncio.run_coroutine_threadsafe(what, self._loop)
        try:
            return running.result(timeout_s)
        except TimeoutError as error:
            running.cancel()
            raise DeadlineExceeded("infer") from error

    def _next(self, pieces: queue.Queue[bytes], running: Future[None]) -> bytes:
        """The next piece of an answer; empty: it is over."""
        try:
            piece = pieces.get(timeout=self._timeout_s + _SPARE_S)
        except queue.Empty:
            running.cancel()
            raise DeadlineExceeded("infer") from None
        if piece == _END and not running.cancelled() and (error := running.exception()) is not None:
            raise TritonUnavailable(f"the answer broke off: {type(error).__name__}")
        return piece

    def _split(self, first: bytes, pieces: queue.Queue[bytes], running: Future[None]) -> Iterator[bytes]:
        rest, piece = b"", first
        try:
            while piece:
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
                piece = self._next(pieces, running)
            if rest:
                yield rest
        finally:
            running.cancel()

    def _scope(
        self, method: str, path: str, headers: Mapping[str, str] | None, nbytes: int
    ) -> dict[str, Any]:
        """An ASGI scope as a server makes it."""
        parts = urlsplit(path)
        sent = {"host": "embedded", "content-length": str(nbytes), **(headers or {})}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": None,
            "server": ("embedded", None),
            "state": dict(self._state or {}),
        }


class _Call:
    """One request on its way through the application."""

    def __init__(self, scope: dict[str, Any], body: BinaryIO) -> None:
        self._scope = scope
        self._pieces = _pieces(body)
        self._over = asyncio.Event()
        self.status = 500
        self.headers: Mapping[str, str] = {}

    async def run(self, app: Any, sink: Any) -> None:
        """Call the application; `sink` takes the pieces of its answer."""

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {k.decode().lower(): v.decode("latin-1") for k, v in message["headers"]}
            elif message["type"] == "http.response.body":
                await sink(message.get("body", b""))

        try:
            await app(self._scope, self._receive, send)
        except Exception:
            if not self.headers:  # else it is answered: as a 500, by the application itself
                raise
            logging.getLogger(__name__).debug("the application failed", exc_info=True)
        finally:
            self._over.set()

    async def _receive(self) -> dict[str, Any]:
        """A piece of the body; when there is none left, the caller stays until the answer is complete."""
        if (found := await anext(self._pieces, None)) is not None:
            return {"type": "http.request", "body": found[0], "more_body": found[1]}
        await self._over.wait()
        return {"type": "http.disconnect"}


async def _pieces(body: BinaryIO) -> AsyncIterator[tuple[bytes, bool]]:
    piece = body.read(_PIECE)
    while True:
        following = b"" if len(piece) < _PIECE else await asyncio.to_thread(body.read, _PIECE)
        yield piece, bool(following)
        if not following:
            return
        piece = following
