"""Manifests that are read long after they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.videos.verification.documents import NotOurs, Refused, parsed

GOOD: dict[str, Any] = {
    "producer": "triton-vision-gateway", "producer_version": "0.1.0", "schema_version": 1, "video_id": "v.mp4",
    "run_id": "0123", "model_signature": "sha256:00", "resolved_model_mapping": {"c": "b"},
    "models_used": [{"model_name": "b"}], "artifacts": [{"name": "c/x.npz", "bytes": 3, "sha256": "0" * 64}],
}  # fmt: skip


def read(**changes: Any) -> Any:
    return parsed(json.dumps({**GOOD, **changes}).encode())


def test_a_manifest_is_read() -> None:
    """Files without `derived`, which the first ones did not have."""
    document = read()
    assert [row.name for row in document.files] == ["c/x.npz"]
    assert document.artifact("c/x.npz") is document.files[0]
    assert document.artifact("c/y.npz") is None


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, 1.5])
def test_a_version_that_is_not_known_is_refused(version: object) -> None:
    """The message names the version of this program that wrote it."""
    with pytest.raises(Refused, match=r"schema version .* this program reads 1; .*0\.1\.0"):
        read(schema_version=version)


@pytest.mark.parametrize(
    "changes",
    [
        {"artifacts": None}, {"artifacts": [1]}, {"artifacts": [{"name": "x"}]}, {"derived": 3}, {"models_used": {}},
        {"models_used": [{"weights_digest": "x"}]}, {"resolved_model_mapping": {"c": 1}}, {"video_id": None},
        {"artifacts": [{**GOOD["artifacts"][0], "sha256": "0" * 63}]},
        {"artifacts": [{**GOOD["artifacts"][0], "name": "../other/x.npz"}]},
        {"artifacts": [{**GOOD["artifacts"][0], "name": "/etc/passwd"}]},
    ],
)  # fmt: skip
def test_damaged_fields_are_refused(changes: dict[str, Any]) -> None:
    """Also names that lead out of the manifest's folder."""
    with pytest.raises(Refused, match="damaged"):
        read(**changes)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    """It may have been a manifest."""
    with pytest.raises(Refused, match="no JSON"):
        parsed(data)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"name": "a web app", "icons": []}'])
def test_another_program_s_manifest_is_left_alone(data: bytes) -> None:
    """Many programs call a file manifest.json."""
    with pytest.raises(NotOurs):
        parsed(data)
