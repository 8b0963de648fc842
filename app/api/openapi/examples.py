"""One answer of each route, as OpenAPI shows it. A test holds each against its schema.

They are added to the finished document: FastAPI drops `null` from what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DIGEST = "sha256:6b5a5dfcb1b5e2f5ab8ee0d1f1cd21d1e8f6ee8b0ac1e5a0d7dd1f5f7d2a9c11"
_SIGNATURE = "1f0c8c4a0f8be9d5b2d5a2c1d4c9b7c0e6f9a3b8d7c6e5f4a3b2c1d0e9f8a7b6"
_LINEAR = {"library": "cykooz-resizer", "version": "4.0.1", "filter": "linear, antialiased"}
_BICUBIC = {**_LINEAR, "filter": "bicubic, antialiased"}
_PREPARE: Mapping[str, Mapping[str, str]] = {
    "detect": {"library": "opencv", "version": "5.0.0", "filter": "linear"},
    "depth": _BICUBIC, "clip_image": _BICUBIC, "flow": _LINEAR, "places": _LINEAR,
}  # fmt: skip
_MOMENT = "2026-11-29T12:00:00.000+00:00"


def branch(name: str, family: str, size: int | None, variant: str | None = None) -> dict[str, Any]:
    tier = None if size is None else "small"
    why = "only branch" if size is None else f"rule: max(512, 512) <= {size}"
    return {
        "name": name, "family": family, "tier": tier, "size": size, "variant": variant, "why": why,
        "passed_over": [],
    }  # fmt: skip


def provenance(component: str, name: str, family: str) -> dict[str, Any]:
    prepare = _PREPARE.get(family)
    return {
        "resolved_model_mapping": {component: name},
        "models_used": [
            {
                "model_name": name, "model_version": "1", "weights_digest": _DIGEST, "weights": "pretrained",
                "runtime": "triton", "engine": "onnx", "precision": "fp32", "device": "cuda:0",
                **({} if prepare is None else {"prepare": prepare}),
            }
        ],
        "model_signature": _SIGNATURE,
        "degraded": False,
    }  # fmt: skip


def served(component: str, name: str, family: str, size: int | None, variant: str | None = None) -> Any:
    return {
        "branch": branch(name, family, size, variant),
        **provenance(component, name, family),
        "warnings": [],
    }


IMAGE = {"image": {"width": 512, "height": 512}}

SESSION: dict[str, Any] = {
    "id": "cam1",
    "owner": None,
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
    "clock": "timestamp",
    "frames": 2,
    "last_timestamp": 12.48,
    "parameters": {"conf": 0.25, "iou": 0.7, "frame_size": "512x512"},
    "tracks": [
        {
            "id": 1, "box": [28.2, 12.6, 396.1, 510.9], "score": 0.91, "class_id": 0, "state": "tracked",
            "hits": 2, "first_time_s": 12.44, "last_time_s": 12.48,
        }
    ],
    "state": "AAAA",
}  # fmt: skip
REPOSITORY: dict[str, Any] = {
    "engine": "triton",
    "models": [
        {
            "name": "midas_256",
            "readiness": "ready",
            "reason": None,
            "version": "1",
            "required": True,
            "checklist": "required",
        }
    ],
    "checklist_ready": False,
    "missing": ["raft_256"],
    "required": [{"name": "midas_256", "readiness": "ready", "reason": None, "version": "1"}],
    "optional": [],
    "others_ready": [{"name": "yolo11n_640", "readiness": "ready", "reason": None, "version": "1"}],
}
ALIVE: dict[str, Any] = {"status": "ok"}
READY: dict[str, Any] = {"status": "ok", "failing": []}
NOT_READY: dict[str, Any] = {
    "status": "not ready",
    "failing": [{"name": "triton", "readiness": "unreachable", "reason": "Triton can't be reached"}],
}
METRICS = "# HELP gateway_in_flight Requests being served.\n# TYPE gateway_in_flight gauge\n"
NDJSON = (
    '{"frame":{"index":0,"time_s":0.0},"detections":[]}\n'
    '{"summary":{"frames":1,"errors":0,"complete":true}}\n'
)
_ID = "0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c"
VIDEO: dict[str, Any] = {
    "id": _ID,
    "state": "running",
    "partial": False,
    "name": "astronaut.mp4",
    "owner": None,
    "profile": "detect_embedded",
    "bytes": 48_213,
    "sha256": _SIGNATURE,
    "created": _MOMENT,
    "started": _MOMENT,
    "finished": None,
    "frames": 25,
    "expected": 50,
    "fraction": 0.5,
    "attempts": 1,
    "error": None,
    "position": None,
    "manifest": None,
    "callback": None,
    "source": None,
    "links": {"self": f"/v1/videos/{_ID}", "events": f"/v1/videos/{_ID}/events", "artifacts": []},
}
VIDEOS: dict[str, Any] = {
    "videos": [
        {
            "id": _ID,
            "state": "done",
            "partial": False,
            "name": "astronaut.mp4",
            "owner": None,
            "created": _MOMENT,
        }
    ],
    "next": "MS8weDEuYWE4NmYxMjAwMDAwMHArMzAvNWQ0MTQwMmFiYzRiMmE3NmI5NzE5ZDkxMTAxN2M1OTI",
}
EVENTS = 'event: progress\ndata: {"state": "running", "fraction": 0.5}\n\n'
MANIFEST: dict[str, Any] = {"video_id": "astronaut", "components": {}, "artifacts": []}
PROBLEM: dict[str, Any] = {
    "type": "urn:gateway:problem:invalid_image",
    "title": "The picture can't be read",
    "status": 400,
    "detail": "the file is empty",
    "code": "invalid_image",
    "what_to_do": "Send one complete JPEG, PNG, WebP or BMP picture.",
    "request_id": "c0ffee00-0000-4000-8000-000000000000",
}
BRANCHES: dict[str, Any] = {
    "engine": "triton",
    "families": [
        {
            "name": "detect",
            "title": "Object detection (YOLO11)",
            "component": "core_object_detections",
            "variants": ["n", "s", "m", "l", "x"],
            "default_variant": "x",
            "min_short_side": 320,
            "prepare": None,
            "branches": [
                {
                    "name": "yolo11n_640", "tier": "medium", "size": 640, "variant": "n", "max_side": 640,
                    "model_size": None, "required": True, "checklist": "optional", "when_ready": False, "classes": 80,
                    "own": False, "twin_of": None, "precision": "fp32", "alternate_of": None, "version_of": None,
                    "versions": [
                        {
                            "version": "1", "branch": "yolo11n_640", "default": True, "readiness": "ready",
                            "reason": None, "weights_digest": _DIGEST, "rollout": None,
                        },
                        {
                            "version": "2", "branch": "yolo11n_640_v2", "default": False, "readiness": "ready",
                            "reason": None, "weights_digest": _DIGEST, "rollout": "10%",
                        },
                    ],
                    "readiness": "ready", "reason": None, "weights": "pretrained",
                    "weights_digest": _DIGEST,
                    "weights_source": None, "device": "cuda:0",
                    "inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 640, 640]}],
                    "outputs": [{"name": "output0", "datatype": "FP32", "shape": [1, 84, 8400]}],
                    "models": [{"name": "yolo11n_640", "readiness": "ready", "reason": None, "version": "1"}],
                    "memory": {
                        "device": "cuda", "weights_bytes": 10_600_000, "activations_bytes": 96_000_000,
                        "workspace_bytes": 58_000_000, "total_bytes": 164_600_000, "lease_bytes": 7_738_000,
                    },
                }
            ],
        }
    ],
}  # fmt: skip

EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0123, -0.0456, 0.0789]}],
    "model": "clip_text",
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}

# The answers in JSON by operation id and status; those of the families' routes are in `app.api.openapi.families`.
_ANSWERS: Mapping[tuple[str, str], dict[str, Any]] = {
    ("get_session", "200"): SESSION,
    ("branches", "200"): BRANCHES,
    ("repository", "200"): REPOSITORY,
    ("livez", "200"): ALIVE,
    ("readyz", "200"): READY,
    ("readyz", "503"): NOT_READY,
    ("submit_video", "202"): VIDEO,
    ("get_video", "200"): VIDEO,
    ("list_videos", "200"): VIDEOS,
    ("video_artifact", "200"): MANIFEST,
    ("embeddings", "200"): EMBEDDINGS,
}


def add(document: dict[str, Any], of_families: Mapping[str, dict[str, Any]]) -> None:
    """Add the examples of answers in JSON to an OpenAPI document.

    Args:
        document: is changed.
        of_families: answers of the families' routes, by operation id.
    """
    answers = {**_ANSWERS} | {(operation, "200"): answer for operation, answer in of_families.items()}
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                example = answers.get((operation["operationId"], status))
                if example is not None:
                    answer["content"]["application/json"]["example"] = example
