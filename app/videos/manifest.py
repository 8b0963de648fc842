"""`manifest.json` beside the artefacts: what made the numbers, and whether all of them are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app import __version__
from app.errors import GatewayError
from app.media.npz import atomically, write_npz
from app.media.video.reader import VideoFacts
from app.pipelines.tally import Tally, merged, rounded
from app.videos.checkpoint import Checkpoint
from app.videos.components.base import Component
from app.videos.profile import SCHEMA_VERSION, Profile

NAME = "manifest.json"
PRODUCER = "triton-vision-gateway"
_NEEDED = {"input", "config_hash", "model_signature", "video", "artifacts"}
_META_KEYS = (
    "producer", "producer_version", "schema_version", "created_at", "video_id", "run_id", "config_hash", "status",
)  # fmt: skip


def run_key(sha256: str, profile: Profile, signature: str) -> str:
    """Names all that the numbers depend on: this code, the input, the configuration, the models."""
    parts = (str(SCHEMA_VERSION), __version__, sha256, profile.config_hash, signature)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def described(
    profile: Profile, facts: VideoFacts, fault: GatewayError | None, tallies: Mapping[str, Tally]
) -> dict[str, Any]:
    """The manifest but for what the caller knows: input, ids and counts."""
    whole = merged(tallies.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "producer": PRODUCER,
        "producer_version": __version__,
        "status": "ok" if fault is None else "partial",
        "fault": None if fault is None else {"code": fault.code, "detail": fault.detail},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "video": asdict(facts),
        "profile": profile.name,
        "config": profile.to_dict(),
        "config_hash": profile.config_hash,
        **whole.provenance(),
        "degraded": whole.degraded,
        "warnings": sorted(whole.warnings),
        "stage_timings_ms": {name: rounded(tally.timings.ms) for name, tally in tallies.items()},
    }


def write(
    output: Path,
    components: Sequence[Component],
    checkpoint: Checkpoint,
    tallies: Mapping[str, Tally],
    manifest: dict[str, Any],
) -> None:
    """The artefacts, then the manifest: where a manifest stands, all that it lists stands too.

    Raises:
        OSError: they can't be written; no manifest stands then.
    """
    remove_results(output)
    manifest["artifacts"] = [
        _write_artifact(output, component, checkpoint, tallies[component.name], manifest)
        for component in components
    ]
    save(output, manifest)


def save(output: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` in one step."""
    with atomically(output / NAME) as file:
        file.write((json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def _write_artifact(
    output: Path, component: Component, checkpoint: Checkpoint, tally: Tally, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    columns = checkpoint.columns(component.name)
    meta = {
        **{key: manifest[key] for key in _META_KEYS},
        **tally.provenance(),
        "stage_timings_ms": rounded(tally.timings.ms),
        **component.meta(),
    }
    name = f"{component.name}/{component.artifact}"
    arrays = {
        "frame_indices": columns.blocks("frame_index", np.int32),
        "times_s": columns.blocks("time_s", np.float32),
        "meta_json": np.array(json.dumps(meta, sort_keys=True)),
        **component.assemble(columns),
    }
    write_npz(output / name, arrays)
    return file_row(output, name)


def file_row(output: Path, name: str) -> dict[str, Any]:
    """Name, length and SHA-256 of a file of the output."""
    with (output / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": name, "bytes": file.tell(), "sha256": digest}


def read(output: Path) -> dict[str, Any] | None:
    """The manifest of an output folder; None where there is none, or it is damaged.

    Raises:
        OSError: it can't be read now.
    """
    try:
        document = json.loads((output / NAME).read_bytes())
        return document if set(document) >= _NEEDED else None
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def complete(output: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether every file that the manifest lists exists in its full length."""
    try:
        return all((output / row["name"]).stat().st_size == row["bytes"] for row in manifest["artifacts"])
    except OSError:
        return False


def remove_results(output: Path) -> None:
    """Take away what an earlier run left, manifest first: none of it may be taken for the new run's."""
    manifest = read(output)
    (output / NAME).unlink(missing_ok=True)
    for row in (*manifest["artifacts"], *manifest.get("derived", ())) if manifest else ():
        name = Path(row["name"])
        if ".." not in name.parts and not name.is_absolute():
            (output / name).unlink(missing_ok=True)
