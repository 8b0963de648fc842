"""Answers that are files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

from anyio import AsyncFile, wrap_file  # by name: anyio would look for its own files when first asked for it
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send


class OpenedFile(FileResponse):
    """A file that is open before the answer begins: afterwards it is too late to say that it can't be read.

    It is closed at the end. Its `name` need not exist any more.

    Raises:
        OSError: the file can't be looked at.
    """

    def __init__(self, opened: BinaryIO, name: str, **how: Any) -> None:
        self._opened = opened
        super().__init__(name, stat_result=os.fstat(opened.fileno()), **how)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[AsyncFile[bytes]]:
        yield wrap_file(self._opened)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened:
            await super().__call__(scope, receive, send)
