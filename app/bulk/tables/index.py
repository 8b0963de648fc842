"""`index.parquet`: one row per video."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from app.bulk.layout import INDEX
from app.bulk.outcomes import Outcome
from app.bulk.recorded import Recorded
from app.bulk.summary import moment

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"
_GROUP_ROWS = 8192
_TEXTS = ("name", "uri", "id", "state", "code", "reason")
_DIGESTS = ("sha256", "config_hash", "model_signature", "run_id")
_TIMES = ("started_at", "finished_at")
_FROM = b"gateway.segments"


def write_index(recorded: Recorded) -> bool:
    """Write the index unless it is that of these rows already; return True if it was written.

    Raises:
        OSError: it can't be written.
    """
    import pyarrow as pa  # noqa: PLC0415  # an extra: bulk
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    made_from = _made_from(recorded)
    if _is_current(recorded, made_from):
        return False
    schema = _schema()
    told = {b"gateway.schema_version": SCHEMA_VERSION.encode(), _FROM: made_from}
    with (
        recorded.store.writing(INDEX) as file,
        pq.ParquetWriter(file, schema.with_metadata(told), compression="zstd") as writer,
    ):
        for rows in _batches(recorded.newest()):
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return True


def _made_from(recorded: Recorded) -> bytes:
    """Return a digest of the names of the segments, which never change once they are written.

    Their number of rows is part of it: this version may read rows that an earlier one took for damaged.
    """
    return hashlib.sha256(json.dumps([recorded.segments, recorded.rows]).encode()).hexdigest().encode()


def _is_current(recorded: Recorded, made_from: bytes) -> bool:
    import pyarrow as pa  # noqa: PLC0415  # as above
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    with contextlib.suppress(FileNotFoundError, pa.ArrowInvalid), recorded.store.open(INDEX) as file:
        return (pq.read_metadata(file).metadata or {}).get(_FROM) == made_from
    return False


def _schema() -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415  # as above

    return pa.schema(
        [
            *((name, pa.string()) for name in _TEXTS),
            ("attempts", pa.int32()),
            ("frames", pa.int64()),
            ("seconds", pa.float64()),
            ("bytes", pa.int64()),
            *((name, pa.string()) for name in _DIGESTS),
            *((name, pa.timestamp("ms")) for name in _TIMES),
        ]
    )


def _batches(outcomes: Iterator[Outcome]) -> Iterator[Sequence[dict[str, Any]]]:
    while rows := [_row(outcome) for outcome in islice(outcomes, _GROUP_ROWS)]:
        yield rows


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        **{name: getattr(outcome, name) for name in (*_TEXTS, *_DIGESTS)},
        "attempts": outcome.attempts,
        "frames": outcome.frames,
        "seconds": outcome.seconds,
        "bytes": outcome.bytes,
        **{name: _naive(getattr(outcome, name)) for name in _TIMES},
    }


def _naive(text: str | None) -> datetime | None:
    """Return a time of a row in UTC without a zone, which every reader shows alike."""
    at = moment(text)
    return None if at is None else at.replace(tzinfo=None)
