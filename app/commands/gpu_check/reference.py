"""Latencies of the service that this project replaces, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

WHERE = "RTX 2060, Triton 24.08, batch 1, through a client that sent tensors as JSON over HTTP"
# p50 in milliseconds by branch; None: out of memory.
RTX_2060_MS: Mapping[str, float | None] = MappingProxyType(
    {
        "clip_image_224": 43.8,
        "clip_text": 96.1,
        "midas_256": 96.3,
        "midas_384": 267.4,
        "midas_512": 465.7,
        "raft_256": 208.8,
        "raft_384": 417.7,
        "raft_512": 730.2,
        "yolo11x_320": 438.0,
        "yolo11x_640": 1634.0,
        "yolo11x_960": None,
    }
)
