"""Names of the files of an output, beside those of the outcomes and the attempts."""

from __future__ import annotations

INDEX = "index.parquet"
TABLES = "tables"
RUN = "run"
TABLES_STATE = "run/tables/state.json.gz"
TABLES_LOCKS = "run/tables"
