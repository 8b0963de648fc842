"""`manifest.json` beside the artefacts: what made the numbers, and whether all of them are there."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import numpy as np

from app import __version__
from app.errors import GatewayError
from app.media.npz import write_archive
from app.media.video.reader import VideoFacts
from app.pipelines.tally import Tally, merged, rounded
from app.videos.checkpoint import Checkpoint
from app.videos.components.base import Component
from app.videos.profile import SCHEMA_VERSION, Profile
from app.videos.stores.base import ArtifactStore, checked_name

NAME = "manifest.json"
PRODUCER = "triton-vision-gateway"
_NEEDED = {"input", "config_hash", "model_signature", "video", "artifacts"}
_META_KEYS = (
    "producer", "producer_version", "schema_version", "created_at", "video_id", "run_id", "config_hash", "status",
)  # fmt: skip
_BLOCK_BYTES = 1 << 20
_PUBLISHERS = 5  # that get in each other's way


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


@dataclass(frozen=True, slots=True)
class Results:
    """All that a run has found, to be published; `kept` are rows of artefacts that stand already, by component."""

    components: Sequence[Component]
    checkpoint: Checkpoint
    tallies: Mapping[str, Tally]
    manifest: dict[str, Any]
    kept: Mapping[str, Mapping[str, Any]]

    def publish(self, output: ArtifactStore, before: Mapping[str, Any] | None) -> dict[str, Any]:
        """Write the artefacts, then the manifest: where a manifest stands, all that it lists stands too.

        Of several attempts at the same run that end at the same time, one publishes, and all return its manifest.

        Args:
            output: the store of the video.
            before: the manifest that stood when the run began, which this one replaces.

        Raises:
            OSError: they can't be written; no manifest stands then.
        """
        for attempt in range(_PUBLISHERS):
            standing = None if attempt else read(output)
            if standing is not None and standing != before and self._is_same(output, standing):
                return standing
            self._write(output)
            text = _text(self.manifest)
            if output.put(NAME, text, only_if_absent=True):
                return dict(json.loads(text))  # as every reader sees it
            # Another attempt published meanwhile, and its manifest may list files that are this one's now.
        raise OSError(errno.EBUSY, "other processes publish the same video again and again")

    def _is_same(self, output: ArtifactStore, standing: Mapping[str, Any]) -> bool:
        return standing.get("run_id") == self.manifest["run_id"] and complete(output, standing)

    def _write(self, output: ArtifactStore) -> None:
        remove_results(output, {row["name"] for row in self.kept.values()})
        written = {component.name: self._artifact(output, component) for component in self.components}
        rows = {**self.kept, **written}
        self.manifest["artifacts"] = [dict(rows[name]) for name in self.tallies]

    def _artifact(self, output: ArtifactStore, component: Component) -> dict[str, Any]:
        columns, tally = self.checkpoint.columns(component.name), self.tallies[component.name]
        made_by = tally.provenance()
        meta = {
            **{key: self.manifest[key] for key in _META_KEYS},
            **made_by,
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
        with output.writing(name) as file:
            write_archive(file, arrays)
            row = _row(name, file)
        return row | {
            "component": component.name,
            "model_signature": made_by["model_signature"],
            "run_id": self.manifest["run_id"],
            "warnings": sorted(tally.warnings),
        }


def save(output: ArtifactStore, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` in one step."""
    output.put(NAME, _text(manifest))


def _text(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def file_row(output: ArtifactStore, name: str) -> dict[str, Any]:
    """Name, length and SHA-256 of a file of the output."""
    with output.open(name) as file:
        return _row(name, file)


def _row(name: str, file: BinaryIO) -> dict[str, Any]:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return {"name": name, "bytes": file.tell(), "sha256": digest.hexdigest()}


def read(output: ArtifactStore) -> dict[str, Any] | None:
    """The manifest of an output; None where there is none, or it is damaged.

    Raises:
        OSError: it can't be read now.
    """
    found = read_whole(output)
    return None if found is None else found[1]


def read_whole(output: ArtifactStore) -> tuple[bytes, dict[str, Any]] | None:
    """The bytes of the manifest of an output, and what they say, as `read`."""
    try:
        with output.open(NAME) as file:
            data = file.read()
        document = json.loads(data)
        return (data, document) if set(document) >= _NEEDED else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def complete(output: ArtifactStore, manifest: Mapping[str, Any]) -> bool:
    """Return whether every file that the manifest lists exists in its full length."""
    try:
        return all(output.size(row["name"]) == row["bytes"] for row in manifest["artifacts"])
    except OSError:
        return False


def remove_results(output: ArtifactStore, keep: set[str]) -> None:
    """Take away what an earlier run left, manifest first: none of it may be taken for the new run's."""
    manifest = read(output)
    output.delete(NAME)
    for row in (*manifest["artifacts"], *manifest.get("derived", ())) if manifest else ():
        if row["name"] not in keep:
            _remove(output, row["name"])


def _remove(output: ArtifactStore, name: str) -> None:
    """Remove a file; a name that leads out of the output is left alone."""
    try:
        checked_name(name)
    except OSError:
        return
    output.delete(name)
