"""The command: every manifest of an output, a few at once, and a summary."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from app.commands.predict.errors import NoModels
from app.commands.predict.repository import find
from app.commands.verify.at_hand import AtHand, InFolder, OnTriton, Unreachable
from app.commands.verify.report import Totals, Verified
from app.process.catalogue import load_catalogue
from app.settings import Settings
from app.videos.names import shown
from app.videos.stores.opened import open_store
from app.videos.verification.files import Listing
from app.videos.verification.models import branches_of, compared

OK, WRONG, USAGE, INTERRUPTED = 0, 1, 2, 130
_AT_ONCE = 8
# The files that a bulk run keeps beside its videos; the first of them tells that there was one.
_RUN = "run/run.json"
_BOOKKEEPING = ("run/", "tables/", "index.parquet")


def verify(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    models: AtHand | None = None
    try:
        listing = Listing.of(open_store(parsed.output))
        models = None if parsed.files_only else _models(parsed)
        return _all(listing, models, parsed)
    except KeyboardInterrupt:
        return _refuse("interrupted", INTERRUPTED)
    except (Unreachable, NoModels) as error:
        return _refuse(str(error), USAGE)
    except OSError as error:
        return _refuse(f"{shown(parsed.output)}: {error.strerror or error}", USAGE)
    finally:
        if models is not None:
            models.close()


def _models(parsed: argparse.Namespace) -> AtHand | None:
    """Return the models that the command line names, else those of the settings; None if there are none.

    Raises:
        NoModels: the folder that is named does not exist.
    """
    given = {"engine": "triton", "triton_url": parsed.triton_url} if parsed.triton_url else {}
    settings = Settings(**given)
    catalogue = load_catalogue(settings, repository=parsed.repository)
    if settings.engine == "triton" and parsed.repository is None:
        return OnTriton(settings, catalogue)
    try:
        folder = find(parsed.repository, settings)
    except NoModels:
        if parsed.repository is not None:
            raise
        return None
    built = parsed.repository is not None or any(folder.glob("*/[1-9]*/model.onnx"))
    return InFolder(folder, catalogue) if built else None


def _all(listing: Listing, models: AtHand | None, parsed: argparse.Namespace) -> int:
    totals = Totals()

    def one(folder: str) -> Verified | None:
        return _one(listing, folder, models)

    for verified in _in_order(one, list(listing.folders())):
        if verified is not None:
            totals.add(verified)
            for line in (json.dumps(verified.to_dict()),) if parsed.json else verified.lines():
                print(line, flush=True)
    if not totals.manifests:
        return _refuse(f"{shown(parsed.output)}: there is no manifest of this program below it", USAGE)
    totals.unknown = listing.unknown(_BOOKKEEPING if _RUN in listing.sizes else ())
    place = None if models is None else models.place
    for line in (json.dumps(totals.to_dict(place)),) if parsed.json else totals.lines(place):
        print(line)
    return WRONG if totals.wrong(strict=parsed.strict) else OK


def _one(listing: Listing, folder: str, models: AtHand | None) -> Verified | None:
    checked = listing.check(folder)
    if checked is None:
        return None
    if models is None or checked.document is None:
        return Verified(checked, None)
    at_hand = {branch: models.of(branch) for branch in branches_of(checked.document)}
    return Verified(checked, compared(checked.document, at_hand))


def _in_order(work: Callable[[str], Verified | None], folders: Sequence[str]) -> Iterator[Verified | None]:
    """Yield the result for each folder in order; a few are worked on at once, and few results wait."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="verify") as threads:
        waiting: deque[Future[Verified | None]] = deque()
        try:
            for folder in folders:
                waiting.append(threads.submit(work, folder))
                if len(waiting) > _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _refuse(words: str, code: int) -> int:
    print(f"gateway verify: {words}", file=sys.stderr)
    return code
