"""The reference of the packages that can be used as a library, made from their docstrings by mkdocstrings."""

from __future__ import annotations

from collections.abc import Mapping

VISION = """# app.vision

What the gateway does to pixels, boxes, maps and tokens outside its models: pure NumPy, no I/O, usable alone. Each
function gives shapes, dtypes, units and the source of its method.
[Install without a clone](../install.md#how-the-wheel-is-laid-out) says how to import it from the wheel.

"""
ROUTING = """# routing

Which branch serves a frame, and what its answer says about it: the standard library alone, no I/O beyond reading the
catalogue.
[Routing](../routing.md) explains the rules.

"""
CLIENT = """# Python client

The classes of `triton_vision_gateway_client`. [Its page](../files/client/README.md) shows them by example.
`AsyncClient` has the methods of `Client`, for asyncio.

"""
_VISION = (
    "letterbox",
    "yolo",
    "boxes",
    "bytetrack",
    "tracks",
    "depth",
    "flow",
    "summaries",
    "embeddings",
    "prompts",
    "coco",
)
_CLIENT = (
    "client",
    "streams",
    "jobs",
    "errors",
    "options",
    "media",
    "answers.provenance",
    "answers.detections",
    "answers.families",
    "answers.videos",
    "answers.jobs",
    "answers.status",
)
_ROUTING = ("policy", "catalogue", "overlay", "provenance", "reachable")


def pages() -> Mapping[str, str]:
    """Return the pages by their names on the site."""
    return {
        "reference/client.md": CLIENT + _modules("triton_vision_gateway_client", _CLIENT),
        "reference/vision.md": VISION + _modules("app.vision", _VISION),
        "reference/routing.md": ROUTING + _modules("routing", _ROUTING),
    }


def _modules(package: str, names: tuple[str, ...]) -> str:
    return "\n".join(f"::: {package}.{name}\n" for name in names)
