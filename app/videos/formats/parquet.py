"""One Parquet table per component; docs/outputs.md describes the columns."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.media.npz import Archive
from app.videos.components.base import Component
from app.videos.formats.base import Finished, Format, frames_per_block

if TYPE_CHECKING:
    import pyarrow as pa

_COMMON = ("frame_indices", "times_s")


class ParquetFormat(Format):
    """Tables that pandas, Polars and DuckDB open."""

    name, extra = "parquet", "tables"

    def files(self, finished: Finished) -> Sequence[str]:
        return [_beside(name) for _, name in finished.artifacts()]

    def make(self, finished: Finished) -> None:
        for component, name in finished.artifacts():
            with finished.output.writing(_beside(name)) as file, finished.opened(name) as archive:
                _write(file, ArtifactTable(archive, component))


class ArtifactTable:
    """The table of one artefact: its metadata, and its rows some frames at a time.

    Args:
        archive: the artefact, which stays open as long as rows are read.
        component: that has made it.
    """

    def __init__(self, archive: Archive, component: type[Component]) -> None:
        self._archive = archive
        self._component = component
        self._meta: dict[str, Any] = json.loads(str(archive.whole("meta_json")))
        self._texts: dict[str, list[str]] = {
            name: archive.whole(name).tolist() for name in _matching(archive.names, component.table_texts)
        }

    def metadata(self) -> dict[str, str]:
        """Return what a file says of all its rows: the layout's version, the component, and the texts that numbers
        refer to.
        """
        return {
            "gateway.schema_version": str(ParquetFormat.version),
            "gateway.component": self._component.name,
            **{f"gateway.{name}": json.dumps(values) for name, values in self._texts.items()},
        }

    def made_by(self) -> dict[str, str]:
        """Return what a file of this artefact alone says beside that: the artefact's `meta_json`."""
        return {"gateway.meta": json.dumps(self._meta, sort_keys=True)}

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the rows; all blocks have one schema."""
        return _tables(self._archive, self._component, self._meta, self._texts)


def _beside(name: str) -> str:
    return name.removesuffix(".npz") + ".parquet"


def _write(file: BinaryIO, source: ArtifactTable) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415  # an extra, see `ParquetFormat.extra`

    told = {**source.metadata(), **source.made_by()}
    writer: pq.ParquetWriter | None = None
    try:
        for table in source.blocks():
            if writer is None:
                writer = pq.ParquetWriter(
                    file, table.schema.with_metadata(told), compression="zstd", store_schema=True
                )
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _tables(
    archive: Archive, component: type[Component], meta: Mapping[str, Any], texts: Mapping[str, list[str]]
) -> Iterator[pa.Table]:
    import pyarrow as pa  # noqa: PLC0415  # as above

    names = _shown(archive, component)
    model = str(meta["resolved_model_mapping"].get(component.name, ""))
    digests = {used["model_name"]: used["weights_digest"] for used in meta["models_used"]}
    digest = "+".join(digests.get(name, "unknown") for name in model.split("+"))
    wanted = [*_COMMON, *names]
    for block in archive.blocks(wanted, frames_per_block(archive, wanted)):
        of_frame, columns = component.table_rows(
            {name: block[name] for name in ("frame_indices", *names)}, texts
        )
        count = len(of_frame)
        table = {
            "video_id": pa.repeat(pa.scalar(meta["video_id"], pa.string()), count),
            "frame_index": pa.array(block["frame_indices"][of_frame]),
            "time_s": pa.array(block["times_s"][of_frame]),
            **{name: _column(values) for name, values in columns.items()},
            "model_name": pa.repeat(pa.scalar(model, pa.string()), count),
            "model_digest": pa.repeat(pa.scalar(digest, pa.string()), count),
        }
        yield pa.table(table)


def _shown(archive: Archive, component: type[Component]) -> list[str]:
    """Return the arrays that a table has: the component's own choice, or all numbers with a row per frame.

    A map per frame is no cell of a table.
    """
    if component.table_arrays is not None:
        return _matching(archive.names, component.table_arrays)
    rows, _ = archive.shape("frame_indices")
    shapes = {name: archive.shape(name) for name in archive.names if name not in _COMMON}
    return [
        name
        for name, (shape, dtype) in shapes.items()
        if shape[:1] == rows and len(shape) <= 2 and dtype.kind in "biuf"
    ]


def _column(values: NDArray[Any]) -> pa.Array:
    """Return an Arrow array: masked values and NaN are null, a second axis makes lists of a fixed size."""
    import pyarrow as pa  # noqa: PLC0415  # as above

    if values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    if values.dtype.kind == "U":
        return pa.array(values.tolist(), pa.string())
    if values.dtype.kind == "f":
        values = np.ma.masked_invalid(values)
    mask = np.ma.getmaskarray(values)
    return pa.array(np.ma.getdata(values), mask=mask)
