"""Posts a picture with aiohttp, raw and in chunks, as a form, and compressed, and prints the answers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

url, path = sys.argv[1:]


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100):
        yield data[at : at + 100]


async def main() -> None:
    picture = Path(path).read_bytes()
    form = aiohttp.FormData({"conf": "0.25"})
    form.add_field("file", picture, filename="a.png", content_type="image/png")
    async with aiohttp.ClientSession(url) as session:
        for body in (picture, chunks(picture), form):
            async with session.post("/v1/detect", data=body) as answer:
                print(await answer.text())
        for coding in ("gzip", "deflate"):
            async with session.post("/v1/detect", data=picture, compress=coding) as answer:
                print(await answer.text())


asyncio.run(main())
