"""An analyst: what it does with a video, what it keeps of an earlier run, and where it reads and writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from support.analysis import ARTIFACTS, arrays, numbers, patches, pipeline_set, profile, same_numbers
from support.models import repository as models
from support.servers.s3 import S3Server, reachable

from app.pipelines.pipeline_set import PipelineSet
from app.videos.analysis import Cancelled, Options
from app.videos.analyst import Analyst, Finding, LoadedSuite
from app.videos.formats.derived import FORMATS
from app.videos.run_state import Progress
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import FolderStore
from app.videos.stores.opened import open_store
from app.videos.stores.sources import Source

OPTIONS = Options(chunk_frames=3, chunk_s=1e9, first_chunk_s=1e9)
DEPTH = "core_depth_midas/depth.npz"


@pytest.fixture(scope="module")
def pipelines(all_families: Path) -> Iterator[PipelineSet]:
    """Every family on ONNX Runtime."""
    with pipeline_set(all_families) as made:
        yield made


@pytest.fixture(scope="module")
def changed(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineSet]:
    """The same with other weights for depth."""
    root = tmp_path_factory.mktemp("changed") / "models"
    shutil.copytree(all_families, root)
    models.change_weights(root, "midas_256")
    with pipeline_set(root) as made:
        yield made


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames at 25 a second."""
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4")


def analyst(pipelines: PipelineSet, **how: Any) -> Analyst:
    return Analyst(profile(), LoadedSuite(pipelines, OPTIONS), **how)


def run(
    pipelines: PipelineSet, video: Path, output: ArtifactStore | Path, report: Any = None, **how: Any
) -> Finding:
    sink = FolderStore(output) if isinstance(output, Path) else output
    with analyst(pipelines, **how) as made:
        return made.run(Source(video.name, str(video)), sink, report)


def read(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return document


def digests_are_right(store: ArtifactStore, manifest: Any) -> bool:
    def digest(file: BinaryIO) -> str:
        with file:
            return hashlib.sha256(file.read()).hexdigest()

    return all(digest(store.open(row["name"])) == row["sha256"] for row in manifest["artifacts"])


def test_a_video_is_analysed_once(pipelines: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Done, it is skipped; formats are made of what is there; `force` repeats it."""
    first = run(pipelines, video, tmp_path)
    assert (first.status, first.made, first.manifest) == ("ok", (), read(tmp_path))
    assert {row["name"] for row in first.manifest["artifacts"]} == ARTIFACTS
    assert {row["run_id"] for row in first.manifest["artifacts"]} == {first.manifest["run_id"]}
    assert first.manifest["kept"] == []
    again = run(pipelines, video, tmp_path)
    assert (again.status, again.manifest) == ("skipped", first.manifest)
    more = run(pipelines, video, tmp_path, formats=[FORMATS["coco"]])
    assert (more.status, list(more.made)) == ("ok", ["core_object_detections/detections.coco.json"])
    forced = run(pipelines, video, tmp_path, force=True)
    assert (forced.status, forced.manifest == first.manifest) == ("ok", False)


def test_ids_and_names_are_those_of_the_source(pipelines: PipelineSet, video: Path, tmp_path: Path) -> None:
    """The manifest names the video as it was asked for."""
    with analyst(pipelines) as made:
        finding = made.run(Source("cam 1/ü.mp4", str(video), "row-7"), FolderStore(tmp_path))
    assert (finding.manifest["input"]["name"], finding.manifest["video_id"]) == ("cam 1/ü.mp4", "row-7")


def test_changed_weights_run_their_component_only(
    pipelines: PipelineSet, changed: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """The other artefacts stay byte for byte, and the manifest says so."""
    before = run(pipelines, video, tmp_path / "both").manifest
    depth = arrays(tmp_path / "both" / DEPTH)["depth_mean"]
    kept = {path: path.read_bytes() for path in (tmp_path / "both").rglob("*.npz") if DEPTH not in str(path)}
    finding = run(changed, video, tmp_path / "both")
    manifest = finding.manifest
    assert finding.status == "ok"
    others = ["core_clip", "core_optical_flow", "core_object_detections", "places365"]
    assert sorted(manifest["kept"]) == sorted(others)
    assert {path: path.read_bytes() for path in kept} == kept
    made_by = {row["name"]: row["run_id"] for row in manifest["artifacts"]}
    assert {name for name, run_id in made_by.items() if run_id == manifest["run_id"]} == {DEPTH}
    assert {run_id for name, run_id in made_by.items() if name != DEPTH} == {before["run_id"]}
    run(changed, video, tmp_path / "whole")
    assert same_numbers(tmp_path / "both", tmp_path / "whole")
    whole = read(tmp_path / "whole")
    for key in ("model_signature", "models_used", "resolved_model_mapping", "warnings", "frames", "run_id"):
        assert manifest[key] == whole[key], key
    assert set(manifest["stage_timings_ms"]) == set(whole["stage_timings_ms"])
    assert digests_are_right(FolderStore(tmp_path / "both"), manifest)
    assert run(changed, video, tmp_path / "both").status == "skipped"
    assert not np.array_equal(arrays(tmp_path / "both" / DEPTH)["depth_mean"], depth)


class Dies(Exception):
    """The process ends here."""


def test_a_run_of_some_components_resumes(
    pipelines: PipelineSet, changed: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """Broken off, it goes on at its last chunk, and still keeps the others."""
    run(pipelines, video, tmp_path / "both")

    def die(progress: Progress) -> None:
        if progress.frames == 8:
            raise Dies

    with pytest.raises(Dies):
        run(changed, video, tmp_path / "both", die)
    manifest = run(changed, video, tmp_path / "both").manifest
    assert (manifest["frames"]["resumed"], len(manifest["kept"])) == (6, 4)
    run(changed, video, tmp_path / "whole")
    assert same_numbers(tmp_path / "both", tmp_path / "whole")


def _older(manifest: dict[str, Any]) -> None:
    for row in manifest["artifacts"]:
        del row["component"], row["model_signature"]


def _other_version(manifest: dict[str, Any]) -> None:
    manifest["producer_version"] = "0.0.1"


def _partial(manifest: dict[str, Any]) -> None:
    manifest["status"] = "partial"


def _fewer_frames(manifest: dict[str, Any]) -> None:
    manifest["frames"]["sampled"] = 11


@pytest.mark.parametrize("edit", [_older, _other_version, _partial, _fewer_frames])
def test_what_cannot_be_trusted_is_run_whole(
    pipelines: PipelineSet, changed: PipelineSet, video: Path, tmp_path: Path, edit: Any
) -> None:
    """Manifests that say too little, or speak of other frames or another version, keep nothing."""
    run(pipelines, video, tmp_path)
    manifest = read(tmp_path)
    edit(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = run(changed, video, tmp_path).manifest
    assert found["kept"] == []
    assert {row["run_id"] for row in found["artifacts"]} == {found["run_id"]}
    assert found["frames"]["sampled"] == 12


def test_cancelling_ends_all_runs(pipelines: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Results so far are kept; the analyst runs nothing any more, another one resumes."""
    with analyst(pipelines) as made:

        def cancel(progress: Progress) -> None:
            if progress.frames == 6:
                other = threading.Thread(target=made.cancel)
                other.start()
                other.join()

        with pytest.raises(Cancelled):
            made.run(Source("v", str(video)), FolderStore(tmp_path), cancel)
        with pytest.raises(Cancelled):
            made.run(Source("v", str(video)), FolderStore(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert run(pipelines, video, tmp_path).manifest["frames"]["resumed"] >= 3


def test_attempts_at_once_publish_one_result(pipelines: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Two attempts at one video share no checkpoint, and the manifest lists the files that stand."""
    both, findings = threading.Barrier(2), []

    def together(progress: Progress) -> None:
        if progress.frames == 3:
            both.wait()

    def attempt() -> None:
        findings.append(run(pipelines, video, tmp_path / "out", together))

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [finding.status for finding in findings] == ["ok", "ok"]
    manifest = read(tmp_path / "out")
    assert digests_are_right(FolderStore(tmp_path / "out"), manifest)
    left = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert left == {*ARTIFACTS, "manifest.json"}


class Overtaken(FolderStore):
    """A folder into which another attempt publishes just before this one's manifest."""

    def __init__(self, folder: Path, other: Any) -> None:
        super().__init__(folder)
        self._other = other

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        other, self._other = self._other, None
        if other is not None:
            other()
        return super().put(name, data, only_if_absent=only_if_absent)


class Last(FolderStore):
    """A folder whose writer dies as soon as the manifest stands."""

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        super().put(name, data, only_if_absent=only_if_absent)
        (self.folder / ".partial.lock").touch()
        raise Dies


def test_chunks_that_a_dead_process_left_go(
    pipelines: PipelineSet, changed: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """The video is done, so nobody needs them: the run that skips it removes them, and no chunks of another run."""
    with pytest.raises(Dies):
        run(pipelines, video, Last(tmp_path))
    assert list(tmp_path.glob(".partial/chunk-*.npz"))
    half = tmp_path / "core_object_detections" / ".detections.npz.abcd_123.new"
    half.touch()
    os.utime(half, (0, 0))
    assert run(pipelines, video, tmp_path).status == "skipped"
    assert list(tmp_path.glob(".partial*")) == []
    assert not half.exists()

    def die(progress: Progress) -> None:
        if progress.frames == 8:
            raise Dies

    with pytest.raises(Dies):
        run(changed, video, tmp_path, die)
    assert run(pipelines, video, tmp_path).status == "skipped"
    assert run(changed, video, tmp_path).manifest["frames"]["resumed"] == 6


def test_an_attempt_that_is_overtaken_leaves_a_whole_result(
    pipelines: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """Files of two attempts never stand under one manifest."""
    out = tmp_path / "out"
    store = Overtaken(out, lambda: run(pipelines, video, out))
    finding = run(pipelines, video, store)
    assert read(out) == finding.manifest
    assert digests_are_right(store, finding.manifest)


def test_an_attempt_that_comes_late_takes_the_other_s_result(
    pipelines: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """Nothing is published twice."""
    found: list[Finding] = []

    def other(progress: Progress) -> None:
        if progress.frames == 12:
            found.append(run(pipelines, video, tmp_path / "out"))

    late = run(pipelines, video, tmp_path / "out", other)
    assert late.manifest == found[0].manifest == read(tmp_path / "out")


def test_a_suite_is_closed_by_its_analyst(pipelines: PipelineSet) -> None:
    """The analyst owns the suite that it was given."""
    closed: list[bool] = []

    class Closing(LoadedSuite):
        def close(self) -> None:
            closed.append(True)

    with Analyst(profile(), Closing(pipelines)):
        pass
    assert closed == [True]


def test_faults_are_raised(pipelines: PipelineSet, tmp_path: Path) -> None:
    """A missing file is an OSError in plain words, and nothing is written."""
    with pytest.raises(FileNotFoundError):
        run(pipelines, tmp_path / "missing.mp4", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """An S3 server with a bucket."""
    with S3Server() as server:
        server.bucket("corpus")
        with reachable(server):
            yield server


def test_from_bucket_to_bucket(
    pipelines: PipelineSet, changed: PipelineSet, video: Path, tmp_path: Path, bucket: S3Server
) -> None:
    """The same arrays as from a file into a folder; what is done is skipped, changed weights re-run their part."""
    bucket.client().upload_file(str(video), "corpus", "in/ü 1.mp4")
    store = open_store("s3://corpus/out/ü 1.mp4")
    source = Source("ü 1.mp4", "s3://corpus/in/ü 1.mp4")
    with analyst(pipelines, formats=[FORMATS["parquet"], FORMATS["mp4"]]) as made:
        finding = made.run(source, store)
        assert finding.status == "ok"
        assert made.run(source, store).status == "skipped"
    assert finding.manifest["input"]["url"] == source.uri
    assert digests_are_right(store, finding.manifest)
    with analyst(changed) as made:
        again = made.run(source, store)
    assert len(again.manifest["kept"]) == 4
    run(changed, video, tmp_path / "local")
    for stored in store.list():
        copy = tmp_path / "copy" / stored.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with store.open(stored.name) as file:
            copy.write_bytes(file.read())
    assert numbers(tmp_path / "copy")
    assert same_numbers(tmp_path / "copy", tmp_path / "local")
    assert {stored.name for stored in store.list()} == {*ARTIFACTS, "manifest.json"}


def test_what_is_done_is_not_fetched_again(
    pipelines: PipelineSet, video: Path, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag of the object tells; formats that need no video are made, and another content is analysed."""
    bucket.client().upload_file(str(video), "corpus", "in/a.mp4")
    store, source = open_store("s3://corpus/out/a.mp4"), Source("a.mp4", "s3://corpus/in/a.mp4")
    with analyst(pipelines) as made:
        first = made.run(source, store)

    def opened(*_: object) -> None:
        raise AssertionError("nothing has to be fetched")

    with monkeypatch.context() as patched:
        patched.setattr(Source, "opened", opened)
        with analyst(pipelines) as made:
            assert made.run(source, store).status == "skipped"
        with analyst(pipelines, formats=[FORMATS["coco"]]) as made:
            assert made.run(source, store).made
    bucket.client().put_object(Bucket="corpus", Key="in/a.mp4", Body=video.read_bytes() + b"\0" * 8)
    with analyst(pipelines) as made:
        again = made.run(source, store)
    assert (again.status, again.manifest["kept"]) == ("ok", [])
    assert again.manifest["input"]["etag"] != first.manifest["input"]["etag"]


def test_a_run_into_a_bucket_resumes(
    pipelines: PipelineSet, video: Path, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints lie on this host until it is done, and are gone then."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = open_store(f"{bucket.bucket('resumed')}/a.mp4")

    def die(progress: Progress) -> None:
        if progress.frames == 8:
            raise Dies

    with pytest.raises(Dies):
        run(pipelines, video, store, die)
    assert list(store.list()) == []
    assert run(pipelines, video, store).manifest["frames"]["resumed"] == 6
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_object_is_said(pipelines: PipelineSet, tmp_path: Path, bucket: S3Server) -> None:
    """The error is that of a missing file."""
    with analyst(pipelines) as made, pytest.raises(FileNotFoundError, match="no such bucket or object"):
        made.run(Source("x", "s3://corpus/in/missing.mp4"), FolderStore(tmp_path / "out"))
