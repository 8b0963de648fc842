"""The part of `gateway bulk run` that knows profiles, settings and models."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from app.bulk.corpus.choice import Chosen
from app.bulk.driver import Driver, Observe, Run, Totals, new_run_id
from app.bulk.executors.base import Executor, MakeWorker
from app.bulk.outcomes import Outcome
from app.commands.analysis_backend import settings_for
from app.commands.bulk.executors import on_nodes, workers_of
from app.commands.bulk.finishing import write_tables
from app.commands.bulk.progress import Progress, summary
from app.commands.bulk.views import create_view
from app.commands.bulk.worker import MakeAnalysisWorker
from app.commands.video_threads import Stop
from app.families import FAMILIES
from app.metrics.bulk import BulkMetrics
from app.settings import environment
from app.videos.names import shown
from app.videos.profile import Profile
from app.videos.profile_documents import ProfileReader, check_prompts
from app.videos.stores.opened import is_remote, local_path, open_store

OK, FAILED, PARTIAL, INTERRUPTED = 0, 1, 3, 130


def run(parsed: argparse.Namespace, entries: Chosen, executor: Executor) -> int:
    """Run the videos; answers the exit code.

    Raises:
        GatewayError: the profile can't be used.
        RuntimeError: a setting can't be used.
        OSError: the output can't be used.
    """
    profile = ProfileReader(FAMILIES.components).load(parsed.profile, environment(), sys.maxsize)
    settings = settings_for(
        profile, repository=parsed.repository, engine=parsed.engine, triton_url=parsed.triton_url,
        workers=workers_of(parsed) if parsed.on == "local" else 1,
    )  # fmt: skip
    if parsed.on == "ray":
        settings = on_nodes(settings, parsed.worker_cpus, node_triton=parsed.node_triton)
    check_prompts(profile, settings.max_prompts)
    if parsed.on == "local" and settings.engine == "embedded":
        _check_repository(settings.repository)
    output = parsed.output if is_remote(parsed.output) else str(local_path(parsed.output).absolute())
    make = MakeAnalysisWorker(settings, json.dumps(profile.to_dict()), output, force=parsed.force)
    run = _described(parsed, profile)
    store = open_store(output)
    driver = Driver(store, executor, run)
    driver.begin()
    progress = Progress()
    with _metrics(parsed.metrics_port, settings.host) as count, _stopping(driver):
        totals = _shown(driver, entries, make, progress, count, as_json=parsed.json)
    out = sys.stderr if parsed.json else sys.stdout
    for text in summary(progress, output):
        print(text, file=out)
    if parsed.tables and not totals.interrupted:
        try:
            print(write_tables(store, run.run_id), file=out)
        except KeyboardInterrupt:
            print("tables: interrupted; `gateway bulk tables` goes on with them", file=out)
            return INTERRUPTED
    return _exit_code(totals)


def _check_repository(repository: Path | None) -> None:
    """Refuse a folder that is not there before every video fails for that reason.

    Raises:
        RuntimeError: it is not there.
    """
    if repository is not None and not repository.is_dir():
        raise RuntimeError(f"there is no folder {repository} with models: name one with --repository")


def _described(parsed: argparse.Namespace, profile: Profile) -> Run:
    return Run(
        new_run_id(), profile.name, profile.config_hash, [shown(source) for source in parsed.source],
        parsed.on, parsed.shard, parsed.only, parsed.force,
    )  # fmt: skip


def _shown(
    driver: Driver, entries: Chosen, make: MakeWorker, progress: Progress, count: Observe, *, as_json: bool
) -> Totals:
    """Run the videos under the view that suits standard output."""
    view = create_view(progress, as_json=as_json)

    def observe(outcome: Outcome, totals: Totals) -> None:
        progress.add(outcome, totals)
        count(outcome, totals)
        view.add(outcome, totals)

    with view.shown():
        totals = driver.run(entries, make, observe)
    progress.totals = totals
    return totals


@contextlib.contextmanager
def _stopping(driver: Driver) -> Iterator[None]:
    """Context manager under which Ctrl-C and SIGTERM stop the run; a second Ctrl-C ends the process."""
    stop = Stop()
    with stop.on_signals(), stop.cancelling(driver.stop):
        yield


@contextlib.contextmanager
def _metrics(port: int | None, host: str) -> Iterator[Observe]:
    """Yield what counts a row; the metrics are served if a port is given.

    Raises:
        RuntimeError: the port can't be used.
    """
    metrics = BulkMetrics()

    def count(outcome: Outcome, totals: Totals) -> None:
        metrics.add(outcome.state, outcome.frames if outcome.worked else 0, outcome.seconds)
        if totals.expected is not None:
            metrics.set_left(max(0, totals.expected - totals.videos))

    with contextlib.ExitStack() as serving:
        if port is not None:
            try:
                serving.enter_context(metrics.served(host, port))
            except (OSError, OverflowError) as error:
                raise RuntimeError(f"--metrics-port: {host}:{port} can't be used: {error}") from error
        yield count


def _exit_code(totals: Totals) -> int:
    if totals.interrupted:
        return INTERRUPTED
    if totals.failed:
        return FAILED
    return PARTIAL if totals.states["partial"] else OK
