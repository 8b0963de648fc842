"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.models import repository as test_repository

if TYPE_CHECKING:
    from deploy.local.triton_server import TritonServer

with suppress(ModuleNotFoundError):  # the exporters' environment has no property tests
    from hypothesis import settings

    # How long an example takes is the machine's affair: the first one may import SciPy.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


# A machine that stops for seconds doesn't make a Triton hang. Tests of one that does say how long it may be silent.
os.environ.setdefault("GATEWAY_TRITON_SILENCE_S", "60")

# A file with one of these words starts servers, decoders or other programs, or runs whole commands.
_PROGRAMS = re.compile(
    r"TritonServer|RedisServer|redis_server|servers\.(?!gateway|raw_http|triton_server)|\bimport .*\bserver\b"
    r"|subprocess|Popen|multiprocessing|VideoReader|\bvideos\.|\bpatches\b|pytest\.mark\.(containers|export|wheel)"
    r"|cli import main|\binstall\("
)
_CUT_OFF = "this test starts a program"
_TESTS = Path(__file__).parent
# Of a test with more cases than this, `--fast` runs so many, spread evenly. Tests of the project's own files run whole.
_FAST_CASES = 12
_STARTS = ("subprocess.Popen", "os.fork", "os.posix_spawn")  # names of audit events
_in_a_test = pytest.StashKey[bool]()
_started = pytest.StashKey[bool]()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Fail a test that leaves this thread with a real-time priority.

    Whatever later tests start would inherit it, and keep everybody else from the processor.
    """
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail(f"{item.nodeid} has left a real-time priority", pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fast`, which `make test-fast` gives."""
    parser.addoption(
        "--fast",
        action="store_true",
        help="only files whose tests start no other program, and a sample of many cases",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that start programs, if asked."""
    if config.getoption("--fast") and collection_path.name.startswith("test_"):
        return True if _PROGRAMS.search(collection_path.read_text(encoding="utf-8")) else None
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Let tests be interrupted, and hold `--fast` to its word.

    With `--fast` a test that starts a program all the same is cut off there and skipped.
    """
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in the background of a shell; programs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--fast"):
        return

    def refuse(event: str, _: tuple[object, ...]) -> None:
        if event in _STARTS and config.stash.get(_in_a_test, False):
            config.stash[_started] = True
            raise RuntimeError(_CUT_OFF)

    sys.addaudithook(refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tell the time of tests from the time in which pytest starts processes of its own."""
    item.config.stash[_in_a_test], item.config.stash[_started] = True, False
    try:
        return (yield)
    finally:
        item.config.stash[_in_a_test] = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a test that was cut off as skipped, and one whose fixture an earlier test had cut off.

    pytest keeps the exception of a fixture that several tests share.
    """
    report = yield
    if report.failed and (item.config.stash.get(_started, False) or _CUT_OFF in str(report.longrepr)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, "starts a program")
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run files that start programs first: they wait a lot, and what is left for the end is short.

    Processes take whole files in this order (`--no-loadscope-reorder`). With `--fast`, tests of many cases are sampled.
    """
    if config.getoption("--fast"):
        kept = _sampled(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]
    rank = {path: _rank(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: rank[item.path])


def _sampled(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return at most `_FAST_CASES` cases of each test that isn't marked as long, the first one among them."""
    cases: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in (item for item in items if item.get_closest_marker("long") is None):
        cases.setdefault((item.path, item.nodeid.partition("[")[0]), []).append(item)
    kept = set()
    for (path, _), same in cases.items():
        step = 1 if path.parent == _TESTS else -(-len(same) // _FAST_CASES)
        kept.update(same[::step])
    return kept


def _rank(path: Path) -> float:
    """Order the longest files first: by how often a file that starts programs does so, then the other files."""
    text = path.read_text(encoding="utf-8")
    return -len(_PROGRAMS.findall(text))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small test repository, built once; don't write into it."""
    return test_repository.build(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real tritonserver over the test repository; tests that stop or hurt it start their own."""
    from deploy.local.triton_server import TritonServer  # noqa: PLC0415  # `make test-export` has no root on its path

    with TritonServer(repository, tmp_path_factory.mktemp("triton") / "triton.log") as server:
        yield server


@pytest.fixture(scope="session")
def all_families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test repository with a branch of every family; don't write into it."""
    names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
    return test_repository.build(tmp_path_factory.mktemp("all"), names)
