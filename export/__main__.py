"""`python -P -m export`: make the models and the repository that serves them."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

try:
    from export import artifacts, build, plan, repository, versions
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is missing: pip install '.[starter]'")
from export.errors import ExportError
from export.own import add as own
from export.own.request import Request
from routing import catalogue, overlay
from routing.catalogue import Catalogue, CatalogueError
from routing.versions import is_version

_EPILOG = """\
--weights:
  auto        pretrained; where they can't be had, random (said loudly, and in every answer of the gateway)
  pretrained  the official ones, downloaded into MODELS/checkpoints
  random      seeded and settled: for trying out the plumbing, they recognise nothing
  PATH        a checkpoint file, or a folder with yolo11n.pt, raft_large*.pth and the like
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (CatalogueError, ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m export", description=__doc__)
    commands = parser.add_subparsers(required=True)
    models = commands.add_parser(
        "models", help="export models", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models.add_argument("--set", dest="chosen", choices=plan.SETS, default="starter")
    models.add_argument("--weights", default="auto", metavar="auto|pretrained|random|PATH")
    models.add_argument(
        "--variants",
        type=_list,
        metavar="n,x,large",
        help="of YOLO11 (n to x) and RAFT (small, large), instead of the set's",
    )
    models.add_argument(
        "--families",
        type=_list,
        metavar="detect,depth",
        help="only these of the set, or with !detect all but that one; detect needs no PyTorch",
    )
    models.add_argument(
        "--precision",
        choices=get_args(catalogue.Precision),
        default="fp32",
        help="fp16 makes the FP32 models as well, which it converts, and names the FP16 branches in the catalogue",
    )
    models.add_argument(
        "--catalogue", type=Path, default=Path("catalogue"), metavar="DIR", help="your own catalogue"
    )
    models.add_argument(
        "--as-version",
        metavar="N",
        help="make version N of the branches beside the one that serves, which stays as it is (docs/replicas.md)",
    )
    models.set_defaults(run=_models)
    configs = commands.add_parser("repository", help="write every config.pbtxt and the preprocess graphs")
    configs.add_argument("--check", action="store_true", help="write nothing; fail if a config.pbtxt drifted")
    configs.set_defaults(run=_repository)
    add = commands.add_parser("add", help="what `gateway models add` runs where the family needs PyTorch")
    add.add_argument("weights", type=Path)
    add.add_argument("--family", required=True)
    add.add_argument("--name", required=True)
    add.add_argument("--sizes", type=_numbers, default=())
    add.add_argument("--labels", type=Path)
    add.add_argument("--catalogue", type=Path, default=Path("catalogue"))
    add.add_argument("--replace", action="store_true")
    add.set_defaults(run=_add)
    configs.add_argument(
        "--catalogue", type=Path, metavar="PATH", help="your own catalogue, whose accelerators are written"
    )
    beside = commands.add_parser("beside", help="publish an ONNX file as a further version of a branch")
    promoted = commands.add_parser(
        "promote", help="make a version of a branch the one that serves by default"
    )
    removed = commands.add_parser("remove", help="remove a version of a branch that isn't the default one")
    for command, run in ((beside, _beside), (promoted, _promote), (removed, _remove)):
        command.add_argument("branch", metavar="BRANCH")
        command.add_argument("version", metavar="N")
        command.add_argument("--catalogue", type=Path, default=Path("catalogue"), metavar="DIR")
        command.set_defaults(run=run)
    beside.add_argument("file", type=Path, metavar="FILE.onnx")
    for command in (models, configs, add, beside, promoted, removed):
        command.add_argument("--repository", type=Path, default=Path("triton/models"), metavar="DIR")
        command.add_argument("--models", type=Path, default=Path("models"), metavar="DIR")
    return parser


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _add(options: argparse.Namespace) -> int:
    request = Request(
        options.weights, options.family, options.name, _places(options), options.catalogue, options.sizes,
        options.labels, options.replace,
    )  # fmt: skip
    own.add(request, print)
    return 0


def _models(options: argparse.Namespace) -> int:
    known = catalogue.load()
    if options.as_version is not None:
        return _as_version(known, options)
    own = options.catalogue if options.catalogue.exists() else None
    texts = _texts(known, own, options.repository)
    wanted = plan.branches(known, options.chosen, options.variants, options.families)
    with _alone(_places(options)) as places:
        # The committed repository has them; another one could serve nothing without.
        repository.write_configs(texts, places.repository)
        failed = build.models(known, wanted, options.weights, places)
        if options.precision == "fp16":
            from export.half import models  # noqa: PLC0415  # needs ONNX Runtime, which configurations do without

            failed += models.models(wanted, places, options.catalogue)
        return 1 if failed else 0


def _as_version(known: Catalogue, options: argparse.Namespace) -> int:
    if options.precision != "fp32":
        raise ExportError("--as-version makes FP32 models; an FP16 branch has its own versions")
    if not is_version(options.as_version):
        raise ExportError("--as-version: N is a whole number from 1")
    wanted = plan.branches(known, options.chosen, options.variants, options.families)
    with _alone(_places(options)) as places:
        return 1 if versions.make(known, wanted, options.weights, options.as_version, places, print) else 0


def _beside(options: argparse.Namespace) -> int:
    with _alone(_places(options)) as places:
        digest = versions.add_file(_catalogue(options), options.branch, options.version, options.file, places)
    print(f"version {options.version} of {options.branch}: {digest}")
    return 0


def _promote(options: argparse.Namespace) -> int:
    with _alone(_places(options)) as places:
        before = versions.promote(_catalogue(options), options.branch, options.version, places)
    kept = "" if before is None else f"; version {before} is kept beside it"
    print(f"version {options.version} of {options.branch} is the default one{kept}")
    print("load the models again in Triton (docs/replicas.md), and start the gateways again")
    return 0


def _remove(options: argparse.Namespace) -> int:
    with _alone(_places(options)) as places:
        gone = versions.remove(_catalogue(options), options.branch, options.version, places)
    print(f"removed version {options.version} of {options.branch}: {', '.join(gone)}")
    return 0


def _catalogue(options: argparse.Namespace) -> Catalogue:
    return overlay.load(options.catalogue if options.catalogue.exists() else None)


def _texts(known: Catalogue, own: Path | None, folder: Path) -> dict[str, str]:
    """Return every config.pbtxt of our catalogue, as a user's changes it, and of further models that are there."""
    texts = repository.configs(known)
    if own is None:
        return texts
    theirs = repository.configs(overlay.load(own))
    return texts | {name: text for name, text in theirs.items() if name in texts or (folder / name).is_dir()}


def _repository(options: argparse.Namespace) -> int:
    known = catalogue.load()
    texts = _texts(known, options.catalogue, options.repository)
    if options.check:
        wrong = repository.drift(texts, options.repository)
        for name in wrong:
            print(f"{options.repository / name} isn't what routing/branches.toml says; run `make repository`")
        return 1 if wrong else 0
    with _alone(_places(options)) as places:
        written = repository.write_configs(texts, options.repository)
        print(f"{len(texts)} config.pbtxt under {options.repository}, {len(written)} written")
        build.preprocess_graphs(known, places, known.families)
    return 0


@contextlib.contextmanager
def _alone(places: plan.Places) -> Iterator[plan.Places]:
    """The folders, rid of what a killed run has left there, and nobody else's meanwhile.

    Raises:
        ExportError: another run works in them.
    """
    with artifacts.alone(places.models):
        for folder in (places.models, places.repository):
            artifacts.sweep(folder)
        yield places


def _places(options: argparse.Namespace) -> plan.Places:
    return plan.Places(options.repository, options.models)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unfinished files are removed then, too
    sys.exit(main())
