"""`gateway bulk run`: start the workers before all that takes time, so that the first video begins soon."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
from dataclasses import asdict, replace

from app.bulk.corpus.choice import Choice, Chosen, Shard
from app.bulk.corpus.corpus import Corpus
from app.bulk.corpus.tables import Columns
from app.commands.bulk.executors import create_executor
from app.errors import GatewayError
from app.videos.names import encodable, shown

OK, FAILED, USAGE = 0, 1, 2


def bulk(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that can't show a name shows its escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        entries = _entries(parsed)
        if parsed.dry_run:
            return _list(entries, as_json=parsed.json)
        with contextlib.closing(create_executor(parsed)) as executor:
            from app.commands.bulk.running import run  # noqa: PLC0415  # a second, in which the workers start

            return run(parsed, entries, executor)
    except (GatewayError, RuntimeError) as error:
        print(f"gateway bulk: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"gateway bulk: {parsed.output}: {error.strerror or 'it cannot be used'}", file=sys.stderr)
        return USAGE


def _entries(parsed: argparse.Namespace) -> Chosen:
    """Return the entries that the sources and the options name.

    Raises:
        RuntimeError: a source or an option can't be used.
    """
    try:
        shard = None if parsed.shard is None else Shard.parse(parsed.shard)
    except ValueError as error:
        raise RuntimeError(f"--shard: {error}") from error
    corpus = Corpus(parsed.source, parsed.relative_to, Columns(parsed.uri_column, parsed.id_column))
    return Chosen(corpus, Choice(shard, parsed.sample, parsed.limit))


def _list(entries: Chosen, *, as_json: bool) -> int:
    """Print every video and the name that it gets, for --dry-run."""
    faults = 0
    for entry in entries:
        faults += entry.fault is not None
        if as_json:
            print(json.dumps(asdict(replace(entry, uri=encodable(entry.uri)))))
        else:
            print(f"{entry.name} <- {shown(entry.uri)}" + (f": {entry.fault}" if entry.fault else ""))
    return FAILED if faults else OK
