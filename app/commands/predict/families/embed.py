"""`gateway embed`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from app.commands.predict.families.arguments import add_fit
from app.commands.predict.families.base import FamilyCommand

if TYPE_CHECKING:
    from app.commands.predict.answers import Answer, Work
    from app.commands.predict.inputs import Input

_TEXT_ROUTE = "/v1/clip/text"


def _picture(work: Work, entry: Input, data: bytes) -> Answer:
    said, ms = work.json(data)
    return _answer(work, entry, data, said, said["embedding"], ms)


def _text(work: Work, entry: Input) -> Answer:
    from app.commands.predict.asking import json_of  # noqa: PLC0415  # not for `--help`

    words = entry.text or ""
    query = {name: values[0] for name, values in work.query.items() if name == "normalize"}
    started = time.perf_counter()
    body = json.dumps({"prompts": [words]}).encode()
    path = f"{_TEXT_ROUTE}?{urlencode(query)}".rstrip("?")
    said = json_of(work.asking.ask(path, body, {"Content-Type": "application/json"}))
    ms = (time.perf_counter() - started) * 1000
    return _answer(work, entry, words.encode("utf-8", "replace"), said, said["embeddings"][0], ms)


def _answer(work: Work, entry: Input, data: bytes, said: dict[str, Any], numbers: Any, ms: float) -> Answer:
    import numpy as np  # noqa: PLC0415  # not for `--help`

    from app.commands.predict.answers import npy  # noqa: PLC0415  # ditto

    vector = np.asarray(numbers, np.float32)
    saved = [] if work.saver is None else [work.saver.bytes(entry, "npy", npy(vector))]
    return work.answer(entry, data, said, ms, saved, vector=vector)


def _result(said: Mapping[str, Any]) -> str:
    cut = ", cut to 75 tokens" if any(said.get("truncated", ())) else ""
    return f"{said['dimension']} numbers{', length 1' if said['normalized'] else ''}{cut}"


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", action="append", default=[], help="embed this text; may be repeated")
    parser.add_argument(
        "--no-normalize",
        dest="normalize",
        action="store_const",
        const="false",
        help="don't scale the vectors to length 1",
    )
    add_fit(parser)


EMBED = FamilyCommand(
    name="embed",
    family="clip_image",
    route="/v1/clip/image",
    help="turn pictures and texts into CLIP embeddings",
    heading="embedding",
    result=_result,
    kinds=("npy", "json"),
    add_options=_add_options,
    parameters={"fit": "fit", "normalize": "normalize"},
    picture=_picture,
    text=_text,
    text_family="clip_text",
)
