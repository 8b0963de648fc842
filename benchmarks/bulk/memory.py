"""Measure the memory of the process that drives a bulk run, for lists of different lengths.

    python -m benchmarks.bulk.memory [--entries 100,50000]

Each length runs in a process of its own: a CSV of so many rows, the local executor with one worker that does nothing,
and the rows in a temporary output. Printed as JSON: the driver's peak resident memory in MB, and its ratio to the
first.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from app.bulk.corpus.corpus import Corpus
from app.bulk.driver import Driver, Run, new_run_id
from app.bulk.executors.local import LocalExecutor
from app.videos.stores.folder import FolderStore
from benchmarks.bulk.idle import MakeIdle


def drive(entries: int) -> float:
    """Run a list of so many entries in this process; return its peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "list.csv"
        with table.open("w") as file:
            file.write("id,uri\n")
            file.writelines(f"{n},s3://corpus/camera{n % 100:03d}/{n:08d}.mp4\n" for n in range(entries))
        executor = LocalExecutor(1)
        run = Run(new_run_id(), "none", "none", [str(table)], "local")
        driver = Driver(FolderStore(Path(folder) / "out"), executor, run)
        driver.begin()
        totals = driver.run(Corpus([str(table)]), MakeIdle(), lambda *_: None)
        executor.close()
        assert totals.states["done"] == entries
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", default="100,50000", help="lengths of the lists, separated by commas")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.one is not None:
        print(drive(parsed.one))
        return
    measured = {}
    for entries in map(int, parsed.entries.split(",")):
        command = [sys.executable, "-m", "benchmarks.bulk.memory", "--one", str(entries)]
        measured[entries] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    first = next(iter(measured.values()))
    rows = {n: {"peak_mb": round(mb, 1), "ratio": round(mb / first, 3)} for n, mb in measured.items()}
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
