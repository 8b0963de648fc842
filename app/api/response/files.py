"""Answers that are files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import AsyncFile, wrap_file  # by name: anyio would look for its own files when first asked for it
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send


class OpenedFile(FileResponse):
    """A file that is open before the answer begins: afterwards it is too late to say that it can't be read.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path, **how: Any) -> None:
        self._opened = path.open("rb")
        super().__init__(path, **how)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[AsyncFile[bytes]]:
        yield wrap_file(self._opened)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened:
            await super().__call__(scope, receive, send)
