"""Whole videos: what their artefacts hold, on every engine; interrupted, repeated, damaged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import videos
from support.analysis import (
    ARTIFACTS,
    PROFILES,
    arrays,
    numbers,
    opened,
    patches,
    pipeline_set,
    profile,
    same_numbers,
)

from app.errors import GatewayError, InvalidVideo, WeightsMissing
from app.families import FAMILIES
from app.media.image import ImageLimits
from app.media.resizers.pillow import PillowResizer
from app.pipelines.embedding_cache import EmbeddingCache
from app.pipelines.pipeline_set import PipelineParts, PipelineSet, Resizing
from app.videos.analysis import Cancelled, Input, Options, VideoAnalysis
from app.videos.components.depth import preview_stride
from app.videos.profile import Profile
from app.videos.run_state import Progress
from app.videos.stores.folder import FolderStore
from deploy.local.triton_server import TritonServer

# By number alone: a slow machine would cut them by time as well.
SMALL_CHUNKS = Options(chunk_frames=3, chunk_s=1e9, first_chunk_s=1e9)
COMMON = {
    "producer", "producer_version", "schema_version", "created_at", "video_id", "run_id", "config_hash", "status",
    "models_used", "model_signature", "resolved_model_mapping", "stage_timings_ms",
}  # fmt: skip


@pytest.fixture(scope="module", params=["embedded", pytest.param("triton", marks=pytest.mark.triton)])
def pipelines(
    request: pytest.FixtureRequest, all_families: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PipelineSet]:
    """Every family, on ONNX Runtime here and on a real Triton."""
    if request.param == "embedded":
        with pipeline_set(all_families) as made:
            yield made
        return
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with (
        TritonServer(all_families, log) as server,
        pipeline_set(all_families, engine="triton", triton_url=server.grpc_url) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def embedded(all_families: Path) -> Iterator[PipelineSet]:
    """Every family on ONNX Runtime."""
    with pipeline_set(all_families) as made:
        yield made


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames at 25 a second."""
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4")


def analyse(
    pipelines: PipelineSet, video: Path, output: Path, asked: Profile | None = None, **how: Any
) -> dict[str, Any]:
    analysis = VideoAnalysis(pipelines, asked or profile(), FolderStore(output), video.name, SMALL_CHUNKS)
    with opened(video) as given:
        return analysis.run(given, **how)


def test_artefacts_are_as_the_contract_lists_them(
    pipelines: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """Every artefact opens without pickle and has the contract's keys, dtypes and shapes."""
    manifest = analyse(pipelines, video, tmp_path)
    assert {row["name"] for row in manifest["artifacts"]} == ARTIFACTS
    n, m = 12, 8  # the test detector sees a box in each of a patch's four cells
    f, i = np.float32, np.int32
    statistics = ["mean", "std", "p05", "p95", "range_robust", "complexity_score"]
    directions = [f"flow_dir_{name}" for name in ("sin_mean", "cos_mean", "dispersion")]
    motion = ["dt_seconds", "motion_norm_per_sec_mean", *directions]
    motion += [f"flow_{name}_per_sec_norm" for name in ("mag_std", "mag_p95", "dx_mean", "dy_mean")]
    expected: dict[str, dict[str, tuple[Any, tuple[int, ...]]]] = {
        "core_clip/embeddings.npz": {
            "frame_embeddings": (f, (n, 512)), "consecutive_cosine_prev": (f, (n,)),
            "words_text_embeddings": (f, (3, 512)), "words_scores": (f, (n, 3)),
        },
        "core_depth_midas/depth.npz": {
            **{f"depth_{name}": (f, (n,)) for name in statistics},
            "preview_depth_maps_norm": (f, (3, 256, 256)), "depth_maps": (f, (n, 256, 256)),
        },
        "core_optical_flow/flow.npz": dict.fromkeys(motion, (f, (n,))),
        "core_object_detections/detections.npz": {
            "boxes": (f, (n, m, 4)), "boxes_norm": (f, (n, m, 4)), "centers_norm": (f, (n, m, 2)),
            "areas_frac": (f, (n, m)), "scores": (f, (n, m)), "class_ids": (i, (n, m)), "track_ids": (i, (n, m)),
            "valid_mask": (np.bool_, (n, m)), "det_count": (i, (n,)), "person_count": (i, (n,)),
        },
        "places365/places.npz": {"top_category_ids": (i, (n, 3)), "top_probabilities": (f, (n, 3))},
    }  # fmt: skip
    for name, columns in expected.items():
        found = arrays(tmp_path / name)
        for key, (dtype, shape) in {"frame_indices": (i, (n,)), "times_s": (f, (n,)), **columns}.items():
            assert (found[key].dtype, found[key].shape) == (dtype, shape), (name, key)
        assert set(json.loads(str(found["meta_json"]))) >= COMMON
    assert manifest["status"] == "ok"


def test_the_numbers_are_those_of_the_video(pipelines: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Frames, times, boxes, tracks, depths and scores are what was drawn and what the models compute."""
    analyse(pipelines, video, tmp_path)
    found = numbers(tmp_path)
    for component in ("core_clip", "core_depth_midas", "core_optical_flow", "core_object_detections"):
        assert found[f"{component}/frame_indices"].tolist() == list(range(12))
        np.testing.assert_allclose(found[f"{component}/times_s"], np.arange(12) / 25, atol=1e-6)
    boxes = {key.partition("/")[2]: array for key, array in found.items() if key.startswith("core_object")}
    assert boxes["det_count"].tolist() == [4] * 6 + [8] * 6
    assert np.isnan(boxes["boxes"][~boxes["valid_mask"]]).all()
    assert set(boxes["class_ids"][boxes["valid_mask"]]) == {0, 1}
    assert (boxes["person_count"] == (boxes["class_ids"] == 0).sum(1)).all()
    assert boxes["class_names"][0] == "0:person"
    embeddings, cosine = found["core_clip/frame_embeddings"], found["core_clip/consecutive_cosine_prev"]
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert np.isnan(cosine[0])
    np.testing.assert_allclose(cosine[1:], (embeddings[1:] * embeddings[:-1]).sum(1), atol=1e-6)
    scores = embeddings @ found["core_clip/words_text_embeddings"].T
    np.testing.assert_allclose(found["core_clip/words_scores"], scores, atol=1e-6)
    assert found["core_clip/words_prompts"].tolist() == ["a cat", "a dog", "a cat"]
    assert np.isnan(found["core_optical_flow/dt_seconds"][0])
    np.testing.assert_allclose(found["core_optical_flow/dt_seconds"][1:], 0.04, atol=1e-6)
    maps = found["core_depth_midas/depth_maps"]
    np.testing.assert_allclose(found["core_depth_midas/depth_mean"], maps.mean((1, 2)), atol=1e-5)
    assert found["core_depth_midas/preview_frame_indices"].dtype == np.int32
    assert found["core_depth_midas/preview_frame_indices"].tolist() == [0, 4, 8]


def test_ids_stay_with_their_objects(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """A patch keeps its id through the video, and the one that comes later gets another."""
    analyse(embedded, video, tmp_path)
    found = arrays(tmp_path / "core_object_detections" / "detections.npz")
    for class_id in (0, 1):
        members = (found["class_ids"] == class_id) & (found["track_ids"] >= 0)
        corners = {tuple(np.round(box / 16)) for box in found["boxes"][members][:, :2]}
        assert len(set(found["track_ids"][members])) == len(corners) > 0


def test_sampling_takes_a_subset_of_the_same_rows(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Every third frame's rows are those that every frame's run has; motion is that of the longer step."""
    analyse(embedded, video, tmp_path / "all")
    analyse(embedded, video, tmp_path / "some", profile("every: 3"))
    whole, some = numbers(tmp_path / "all"), numbers(tmp_path / "some")
    assert some["core_clip/frame_indices"].tolist() == [0, 3, 6, 9]
    np.testing.assert_array_equal(
        some["core_clip/frame_embeddings"], whole["core_clip/frame_embeddings"][::3]
    )
    np.testing.assert_array_equal(
        some["core_depth_midas/depth_maps"], whole["core_depth_midas/depth_maps"][::3]
    )
    np.testing.assert_allclose(some["core_optical_flow/dt_seconds"][1:], 0.12, atol=1e-6)


class Dies(Exception):
    """The process ends here."""


@pytest.mark.parametrize("at", [1, 4, 7, 11])
def test_an_interrupted_analysis_ends_the_same(
    embedded: PipelineSet, video: Path, tmp_path: Path, at: int
) -> None:
    """Broken off at any frame and run again, the arrays are those of an undisturbed run, to the bit."""
    analyse(embedded, video, tmp_path / "undisturbed")

    def report(progress: Progress) -> None:
        if progress.frames == at:
            raise Dies

    with pytest.raises(Dies):
        analyse(embedded, video, tmp_path / "broken", report=report)
    assert not (tmp_path / "broken" / "manifest.json").exists()
    seen: list[Progress] = []
    manifest = analyse(embedded, video, tmp_path / "broken", report=seen.append)
    assert manifest["frames"]["resumed"] == at // 3 * 3 - (3 if at % 3 == 0 else 0)
    assert len(seen) == 12 - manifest["frames"]["resumed"]
    assert same_numbers(tmp_path / "undisturbed", tmp_path / "broken")
    assert not (tmp_path / "broken" / ".partial").exists()


def test_a_damaged_chunk_is_done_again(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Checkpoints are verified before they are used."""
    analyse(embedded, video, tmp_path / "undisturbed")

    def report(progress: Progress) -> None:
        if progress.frames == 8:
            raise Dies

    with pytest.raises(Dies):
        analyse(embedded, video, tmp_path / "broken", report=report)
    second = tmp_path / "broken" / ".partial" / "chunk-000001.npz"
    second.write_bytes(second.read_bytes()[:-100])
    assert analyse(embedded, video, tmp_path / "broken")["frames"]["resumed"] == 3
    assert same_numbers(tmp_path / "undisturbed", tmp_path / "broken")


def test_what_another_profile_began_is_not_gone_on_with(
    embedded: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """Chunks belong to one input, one configuration and one set of models."""

    def report(progress: Progress) -> None:
        if progress.frames == 8:
            raise Dies

    with pytest.raises(Dies):
        analyse(embedded, video, tmp_path, report=report)
    assert analyse(embedded, video, tmp_path, profile("every: 2"))["frames"]["resumed"] == 0


def test_a_run_never_mixes_two_resizers(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """A run that another resizer began is begun again, and one that it ended doesn't pass for done."""
    resizing = Resizing(_Other())
    others = PipelineSet(
        PipelineParts(embedded.router, embedded.metrics, ImageLimits(), EmbeddingCache(0), resizing),
        FAMILIES.pipelines,
    )

    def report(progress: Progress) -> None:
        if progress.frames == 8:
            raise Dies

    with pytest.raises(Dies):
        analyse(embedded, video, tmp_path, report=report)
    manifest = analyse(others, video, tmp_path)
    assert manifest["frames"]["resumed"] == 0
    prepared = {used["model_name"]: used.get("prepare") for used in manifest["models_used"]}
    assert prepared["midas_256"] == {"library": "other", "version": "1", "filter": "bicubic, antialiased"}
    assert prepared["clip_text"] is None
    with opened(video) as given:
        assert VideoAnalysis(others, profile(), FolderStore(tmp_path), "x").done(given) is not None
        assert VideoAnalysis(embedded, profile(), FolderStore(tmp_path), "x").done(given) is None


class _Other(PillowResizer):
    library, version = "other", "1"


def test_a_video_that_is_done_is_known(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Same input, same configuration, same models: done. Anything else, or a missing file: not."""
    manifest = analyse(embedded, video, tmp_path)

    def done(asked: Profile, sha256: str = manifest["input"]["sha256"]) -> bool:
        analysis = VideoAnalysis(embedded, asked, FolderStore(tmp_path), "x")
        with video.open("rb") as file:
            return analysis.done(Input(file, "x", 1, sha256)) is not None

    assert done(profile())
    assert not done(profile("every: 2"))
    assert not done(profile(), "0" * 64)
    (tmp_path / "core_clip" / "embeddings.npz").unlink()
    assert not done(profile())


def test_other_weights_are_another_run(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """A manifest of other weights doesn't pass for done."""
    analyse(embedded, video, tmp_path)
    path = tmp_path / "manifest.json"
    document = json.loads(path.read_text())
    document["model_signature"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(document))
    with opened(video) as given:
        assert VideoAnalysis(embedded, profile(), FolderStore(tmp_path), "x").done(given) is None


def test_artefacts_of_components_that_left_are_removed(
    embedded: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """After a run with fewer components nothing of the older one stands beside the new manifest."""
    analyse(embedded, video, tmp_path)
    fewer = PROFILES.parse("components: {core_optical_flow: {}}")
    manifest = analyse(embedded, video, tmp_path, fewer)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"manifest.json", "core_optical_flow/flow.npz"}
    assert manifest["resolved_model_mapping"] == {"core_optical_flow": "raft_256"}


def test_cancelling_keeps_what_is_done(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """A cancelled analysis says so, and the next one goes on."""
    analysis = VideoAnalysis(embedded, profile(), FolderStore(tmp_path), "x", SMALL_CHUNKS)

    def report(progress: Progress) -> None:
        if progress.frames == 6:
            other = threading.Thread(target=analysis.cancel)
            other.start()
            other.join()

    with opened(video) as given, pytest.raises(Cancelled):
        analysis.run(given, report)
    assert analyse(embedded, video, tmp_path)["frames"]["resumed"] >= 3


def test_a_video_that_breaks_off_is_partial(embedded: PipelineSet, tmp_path: Path) -> None:
    """The decoded part is there, and the manifest and every artefact say that it is partial."""
    whole = patches(tmp_path / "whole.mkv", 60)
    broken = videos.cut(whole, 0.5)
    manifest = analyse(embedded, broken, tmp_path / "out")
    assert manifest["status"] == "partial"
    assert manifest["fault"]["code"] == "invalid_video"
    frames = manifest["frames"]["sampled"]
    assert 0 < frames < 60
    meta = json.loads(str(arrays(tmp_path / "out" / "core_clip" / "embeddings.npz")["meta_json"]))
    assert meta["status"] == "partial"


def test_no_frame_within_the_sampling_is_an_error(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """Empty artefacts would look like a result."""
    with pytest.raises(InvalidVideo):
        analyse(embedded, video, tmp_path, profile("start_s: 100"))
    assert not (tmp_path / "manifest.json").exists()


def test_a_branch_that_is_missing_fails_fast_unless_the_profile_allows_another(
    embedded: PipelineSet, video: Path, tmp_path: Path
) -> None:
    """`error` names the branch before a frame is run; `fallback` takes the smaller one and says `degraded`."""
    text = "components: {{core_depth_midas: {{branch: midas_384}}}}\non_missing: {}\n"
    with pytest.raises(WeightsMissing, match="midas_384"):
        analyse(embedded, video, tmp_path, PROFILES.parse(text.format("error")))
    manifest = analyse(embedded, video, tmp_path, PROFILES.parse(text.format("fallback")))
    assert manifest["degraded"]
    assert manifest["resolved_model_mapping"] == {"core_depth_midas": "midas_256"}


def test_the_analysis_size_steers_routing_alone(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """With an analysis width of 640 the medium detector serves the 320-pixel video; boxes stay in its own pixels."""
    text = "components: {core_object_detections: {}}\nanalysis: {width: 640}\n"
    manifest = analyse(embedded, video, tmp_path, PROFILES.parse(text))
    assert manifest["resolved_model_mapping"] == {"core_object_detections": "yolo11n_640"}
    assert np.nanmax(arrays(tmp_path / "core_object_detections" / "detections.npz")["boxes"]) <= 320


def test_check_refuses_what_will_never_work(embedded: PipelineSet, video: Path, tmp_path: Path) -> None:
    """A submitted video is looked at before it is queued."""
    with video.open("rb") as file:
        VideoAnalysis(embedded, profile(), FolderStore(tmp_path), "x").check(file)
        wrong = PROFILES.parse("components: {core_object_detections: {classes: [unicorn]}}")
        with pytest.raises(GatewayError, match="unicorn"):
            VideoAnalysis(embedded, wrong, FolderStore(tmp_path), "x").check(file)


@pytest.mark.parametrize("most", [1, 3, 8])
def test_previews_are_spread_and_few(most: int) -> None:
    """At most so many frames are kept, evenly spread, and each was kept when it came."""
    for frames in range(1, 200):
        stride = preview_stride(frames, most)
        kept = [n for n in range(frames) if n % stride == 0]
        assert 1 <= len(kept) <= most
        assert all(n % preview_stride(n + 1, most) == 0 for n in kept)
