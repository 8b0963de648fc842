"""Archives that are whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.analysis import arrays

from app.media.npz import Archive, Blocks, atomically, write_npz


def test_arrays_come_back_without_pickle(tmp_path: Path) -> None:
    """Numbers, flags, text, empty and scalar arrays are read with allow_pickle=False as they were written."""
    made = {
        "numbers": np.arange(6, dtype=np.float32).reshape(2, 3),
        "flags": np.array([True, False]),
        "names": np.array(["0:person", "1:ein Fahrrad"]),
        "none": np.zeros((0, 4), np.float32),
        "text": np.array('{"a": 1}'),
    }
    write_npz(tmp_path / "deep" / "all.npz", made)
    found = arrays(tmp_path / "deep" / "all.npz")
    assert list(found) == list(made)
    for name, array in made.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_blocks_make_one_array(tmp_path: Path) -> None:
    """An array that is written piece by piece equals the whole."""
    whole = np.random.default_rng(0).random((10, 3, 2), np.float32)
    blocks = Blocks(whole.shape, whole.dtype, (whole[start : start + 4] for start in (0, 4, 8)))
    write_npz(tmp_path / "a.npz", {"maps": blocks})
    np.testing.assert_array_equal(arrays(tmp_path / "a.npz")["maps"], whole)


def test_the_same_arrays_are_the_same_bytes(tmp_path: Path) -> None:
    """No time of writing stands in the archive."""
    made = {"a": np.arange(1000, dtype=np.float32)}
    write_npz(tmp_path / "1.npz", made)
    write_npz(tmp_path / "2.npz", made)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """An archive that breaks off half-way replaces nothing and leaves no litter."""
    path = tmp_path / "a.npz"
    write_npz(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((1, 2))
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_npz(path, {"b": Blocks((2, 2), np.dtype(np.float64), broken())})
    with pytest.raises(ValueError, match="1 rows were given for 2"):
        write_npz(path, {"b": Blocks((2, 2), np.dtype(np.float64), iter([np.zeros((1, 2))]))})
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(path, {"c": np.array([{}], dtype=object)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Nobody sees half a file under the name."""
    path = tmp_path / "x"
    with atomically(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_an_archive_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """The blocks are the array; arrays of different lengths are refused, and so is what is cut off."""
    arrays = {
        "a": np.arange(10, dtype=np.float32),
        "b": np.arange(40).reshape(10, 2, 2),
        "c": np.array(["x", "yy"]),
    }
    write_npz(tmp_path / "a.npz", arrays)
    with Archive(tmp_path / "a.npz") as archive:
        assert archive.names == ["a", "b", "c"]
        assert archive.shape("b") == ((10, 2, 2), np.dtype(np.int64))
        assert archive.whole("c").tolist() == ["x", "yy"]
        blocks = list(archive.blocks(("a", "b"), 4))
        assert [len(block["a"]) for block in blocks] == [4, 4, 2]
        for name in ("a", "b"):
            assert np.array_equal(np.concatenate([block[name] for block in blocks]), arrays[name])
        with pytest.raises(ValueError, match="different lengths"):
            next(archive.blocks(("a", "c"), 4))
