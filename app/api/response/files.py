"""Answers that are files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

from anyio import AsyncFile, wrap_file  # by name: anyio would look for its own files when first asked for it
from fastapi.responses import FileResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable
from starlette.types import Receive, Scope, Send

_OF_UNCHANGED = ("etag", "last-modified")  # headers of a 304


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
            if self._is_known(Headers(scope=scope).get("if-none-match")):
                headers = {name: self.headers[name] for name in _OF_UNCHANGED}
                await Response(status_code=304, headers=headers)(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)

    def _is_known(self, if_none_match: str | None) -> bool:
        """Return True if the caller has this file (RFC 9110, 13.1.2)."""
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        return known == ["*"] or self.headers["etag"] in known

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        """Return the ranges; none, and so the whole file, for a header that can't be read (RFC 9110, 14.2).

        Raises:
            HTTPException: they lie outside of the file.
        """
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable:
            outside = {"Content-Range": f"bytes */{file_size}"}
            raise HTTPException(416, f"the file has {file_size} bytes", outside) from None
