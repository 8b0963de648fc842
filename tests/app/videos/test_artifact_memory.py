"""Artefacts of long videos cost the memory of a block, whatever their padding would take."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.analysis import arrays
from support.paths import ROOT

from app.media.npz import text_blocks, write_npz
from app.videos.checkpoint import Checkpoint, Chunk, ChunkFolder
from app.videos.components.clip import ClipComponent
from app.videos.components.detect import padded

LABELS = ["person", "bicycle"]
MB = 1 << 20


def boxes(count: int) -> dict[str, np.ndarray]:
    """A frame's row with so many boxes, of alternating classes."""
    corners = np.arange(count, dtype=np.float32)[:, None] + np.array([0, 1, 4, 9], np.float32)
    return {
        "count": np.array([count], np.int32), "size": np.array([[100, 50]], np.float32), "boxes": corners,
        "scores": np.full(count, 0.5, np.float32), "class_ids": np.arange(count, dtype=np.int32) % 2,
        "track_ids": np.arange(count, dtype=np.int32),
    }  # fmt: skip


def kept(folder: Path, name: str, rows: list[dict[str, np.ndarray]], chunk_frames: int) -> Checkpoint:
    """A checkpoint with these rows, so many frames a chunk."""
    checkpoint = Checkpoint(ChunkFolder(folder), "key")
    for first in range(0, len(rows), chunk_frames):
        part = rows[first : first + chunk_frames]
        numbers = list(range(first, first + len(part)))
        chunk = Chunk(first, numbers, [n / 25 for n in numbers], {name: list(part)})
        checkpoint.write(chunk, {name: b""}, {})
    return checkpoint


@pytest.mark.parametrize("chunk_frames", [1, 3, 7, 100])
def test_padding_is_as_before(tmp_path: Path, chunk_frames: int) -> None:
    """However the frames were kept, the arrays are those of the definition, and the files the same bytes."""
    counts = [0, 2, 5, 0, 1, 3, 0]
    name = "core_object_detections"
    checkpoint = kept(tmp_path / "c", name, [boxes(count) for count in counts], chunk_frames)
    write_npz(tmp_path / "a.npz", padded(checkpoint.columns(name), LABELS))
    found = arrays(tmp_path / "a.npz")
    assert {key: (array.shape, array.dtype.str) for key, array in found.items()} == {
        "boxes": ((7, 5, 4), "<f4"), "boxes_norm": ((7, 5, 4), "<f4"), "centers_norm": ((7, 5, 2), "<f4"),
        "areas_frac": ((7, 5), "<f4"), "scores": ((7, 5), "<f4"), "class_ids": ((7, 5), "<i4"),
        "track_ids": ((7, 5), "<i4"), "valid_mask": ((7, 5), "|b1"), "det_count": ((7,), "<i4"),
        "person_count": ((7,), "<i4"), "class_names": ((2,), "<U9"),
    }  # fmt: skip
    for frame, count in enumerate(counts):
        row, valid = boxes(count), found["valid_mask"][frame]
        assert valid.tolist() == [True] * count + [False] * (5 - count)
        np.testing.assert_array_equal(found["boxes"][frame, :count], row["boxes"])
        np.testing.assert_allclose(
            found["boxes_norm"][frame, :count], row["boxes"] / [100, 50, 100, 50], 1e-6
        )
        np.testing.assert_array_equal(found["class_ids"][frame, :count], row["class_ids"])
        assert np.isnan(found["scores"][frame, count:]).all()
        assert np.isnan(found["areas_frac"][frame, count:]).all()
        assert (found["track_ids"][frame, count:] == -1).all()
    np.testing.assert_allclose(found["centers_norm"][1, 0], [0.02, 0.1])
    np.testing.assert_allclose(found["areas_frac"][1, 0], 0.04 * 0.16)
    assert found["det_count"].tolist() == counts
    assert found["person_count"].tolist() == [(count + 1) // 2 for count in counts]
    whole = kept(tmp_path / "w", name, [boxes(count) for count in counts], 50)
    write_npz(tmp_path / "b.npz", padded(whole.columns(name), LABELS))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_video_without_boxes_has_empty_arrays(tmp_path: Path) -> None:
    """M is 0 where no frame has a box."""
    checkpoint = kept(tmp_path / "c", "core_object_detections", [boxes(0)] * 3, 2)
    write_npz(tmp_path / "a.npz", padded(checkpoint.columns("core_object_detections"), LABELS))
    assert arrays(tmp_path / "a.npz")["boxes"].shape == (3, 0, 4)


_LONG = """
import resource, sys
from pathlib import Path
import numpy as np
from app.media.npz import write_npz
from app.videos.components.detect import padded
from test_artifact_memory import LABELS, boxes
folder, frames = Path(sys.argv[1]), int(sys.argv[2])
empty, crowded = boxes(1), boxes(20)

class Columns:
    def __init__(self):
        self.frames = frames
    def chunks(self, *names):
        for first in range(0, frames, 1000):
            rows = [empty] * 999 + [crowded if first == 0 else empty]
            yield tuple(np.concatenate([row[name] for row in rows]) for name in names)
    def blocks(self, name, dtype=None):
        from app.media.npz import Blocks
        (first,) = next(self.chunks(name))
        return Blocks((frames, *first.shape[1:]), np.dtype(dtype or first.dtype), (c for (c,) in self.chunks(name)))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
write_npz(folder / "long.npz", padded(Columns(), LABELS))
print(peak() - before)
"""


def test_one_crowded_frame_costs_a_long_video_no_memory(tmp_path: Path) -> None:
    """100,000 frames, 20 boxes in one of them: 0.1 GB of arrays take less than 64 MB of memory, and little disk."""
    command = [sys.executable, "-c", _LONG, tmp_path, "100000"]
    paths = os.pathsep.join(["tests/helpers", "tests/app/videos"])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64
    with zipfile.ZipFile(tmp_path / "long.npz") as archive:
        sizes = [(entry.file_size, entry.compress_size) for entry in archive.infolist()]
    assert sum(size for size, _ in sizes) > 110 * 10**6
    assert sum(size for _, size in sizes) < 50 * 10**6


@pytest.mark.parametrize("texts", [["a cat", "a dog", "x"], [""], ["", ""], ["émoji 🐈", "b"]])
def test_texts_in_blocks_are_numpy_s_array(tmp_path: Path, texts: list[str]) -> None:
    """Values and type are those of `numpy.array`."""
    write_npz(tmp_path / "a.npz", {"prompts": text_blocks(texts)})
    found = arrays(tmp_path / "a.npz")["prompts"]
    expected = np.array(texts)
    assert (found.dtype, found.tolist()) == (expected.dtype, expected.tolist())


def test_one_long_text_among_many_costs_no_memory(tmp_path: Path) -> None:
    """2,000 words and one text of 20,000 characters: 160 MB as an array, less than 16 MB on the way to the file."""
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom app.media.npz import text_blocks, write_npz\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "write_npz(Path(sys.argv[1]), {'p': text_blocks(['x' * 20000] + ['a'] * 2000)})\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, tmp_path / "t.npz"]
    paths = os.pathsep.join(["tests/helpers", "tests/app/videos"])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16


@pytest.mark.parametrize("chunk_frames", [1, 5, 1000])
def test_cosines_and_scores_don_t_depend_on_chunks(tmp_path: Path, chunk_frames: int) -> None:
    """Blocks of one size are multiplied, wherever the chunks end: the same numbers to the bit."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((2500, 16)).astype(np.float32)
    rows = [{"embedding": row[None]} for row in frames]
    checkpoint = kept(tmp_path / "c", "core_clip", rows[: 2500 if chunk_frames > 1 else 30], chunk_frames)
    clip = ClipComponent.__new__(ClipComponent)
    texts = rng.standard_normal((3, 16)).astype(np.float32)
    clip._texts = {"words": texts}
    clip._asked = type("Asked", (), {"prompts": {"words": ("a", "b", "c")}})()
    write_npz(tmp_path / "a.npz", clip.assemble(checkpoint.columns("core_clip")))
    found = arrays(tmp_path / "a.npz")
    count = checkpoint.frames
    np.testing.assert_array_equal(found["frame_embeddings"], frames[:count])
    expected = np.einsum("nd,nd->n", frames[1:count], frames[: count - 1])
    np.testing.assert_array_equal(found["consecutive_cosine_prev"][1:], expected)
    assert np.isnan(found["consecutive_cosine_prev"][0])
    blocks = [frames[first : min(first + 1024, count)] @ texts.T for first in range(0, count, 1024)]
    np.testing.assert_array_equal(found["words_scores"], np.concatenate(blocks))
