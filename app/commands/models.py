"""`gateway models`: serve models of one's own, and look after them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import extras, installation
from app.commands import model_fetch
from app.hints import did_you_mean
from app.settings import Settings, from_environment
from routing import overlay
from routing.catalogue import STANDARD, Branch, Catalogue, nameable
from routing.own_families import OWN_FAMILIES
from routing.versions import found_in, served_folder, with_versions

if TYPE_CHECKING:
    from export.own.request import Request

_WITHOUT_PYTORCH = ", ".join(row.name for row in OWN_FAMILIES.values() if not row.pytorch)
_WEIGHTS = "\n".join(
    textwrap.fill(row.weights, 118, initial_indent=f"  {row.name:8}", subsequent_indent=" " * 10)
    for row in OWN_FAMILIES.values()
)
EPILOG = f"""\
WEIGHTS of a family:
{_WEIGHTS}
All but {_WITHOUT_PYTORCH} need PyTorch, in this environment or in .venv-export of a checkout (`make models` makes one).

exit codes: 0: done; 1: it failed, or verify found a difference; 2: the command line or a setting is wrong
"""
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes, to a parser of its own."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser(
        "add",
        help="export weights and add them to the repository and the catalogue",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("weights", type=Path, metavar="WEIGHTS", help="a file or a folder, see below")
    add.add_argument("--family", required=True, choices=OWN_FAMILIES)
    add.add_argument("--name", required=True, help="name of the variant, as requests use it")
    add.add_argument("--sizes", type=_sizes, default=(), help="sides in pixels, separated by commas")
    add.add_argument(
        "--labels", type=Path, help="file of class names, one per line; overrides those in WEIGHTS"
    )
    add.add_argument("--replace", action="store_true", help="replace an existing model of this name")
    add.set_defaults(action=_add)
    rows = actions.add_parser("list", help="list the available variants")
    rows.set_defaults(action=_list)
    show = actions.add_parser("show", help="print the details of a variant")
    show.add_argument("name")
    show.set_defaults(action=_show)
    remove = actions.add_parser("remove", help="remove a variant that was added")
    remove.add_argument("name")
    remove.set_defaults(action=_remove)
    configs = actions.add_parser("configs", help="write the config.pbtxt of every model that is there")
    configs.set_defaults(action=_configs)
    verify = actions.add_parser("verify", help="compare the recorded digests with the files")
    verify.add_argument("names", nargs="*", metavar="NAME", help="variants (default: all)")
    verify.set_defaults(action=_verify)
    copy = model_fetch.add_action(actions)
    for action in (add, rows, show, remove, configs, verify, copy):
        action.add_argument("--repository", type=Path, help="the model repository (GATEWAY_REPOSITORY)")
        action.add_argument("--catalogue", type=Path, help="the folder of your catalogue (GATEWAY_CATALOGUE)")
    for action in (rows, show, verify):
        action.add_argument("--json", action="store_true", help="print JSON")


def models(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    settings = _settings(parsed)
    if parsed.action == model_fetch.run:
        return model_fetch.run(parsed, settings)
    return _managed(parsed, settings)


def _managed(parsed: argparse.Namespace, settings: Settings) -> int:
    """Run an action that builds models or reads them."""
    if extras.missing("repository") or extras.missing("embedded"):
        return _refuse(f"needs ONNX and ONNX Runtime: pip install {installation.package('starter')}", USAGE)
    if settings.repository is None or settings.catalogue is None:
        return _refuse("needs a repository and a catalogue: --repository and --catalogue", USAGE)
    from export.errors import ExportError  # noqa: PLC0415  # an extra: starter

    try:
        code: int = parsed.action(parsed, settings)
    except ExportError as error:
        return _refuse(str(error), FAILED)
    except OSError as error:
        return _refuse(f"{error.filename or settings.repository}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _refuse("interrupted; everything is as it was before", INTERRUPTED)
    return code


def _settings(parsed: argparse.Namespace) -> Settings:
    """Return the settings: the command line comes first, then the environment, then the folders of `gateway up`."""
    given = {name: getattr(parsed, name) for name in ("repository", "catalogue") if getattr(parsed, name)}
    there = from_environment() | given.keys()
    if installation.INSTALLED and "repository" not in there:
        given["repository"] = installation.models() / "repository"
    settings = Settings(**given)
    if "manifest" not in there and settings.repository != Settings.model_fields["repository"].default:
        beside = None if settings.repository is None else settings.repository.parent / "manifest.json"
        settings = settings.model_copy(update={"manifest": beside})
    return settings


def _refuse(words: str, code: int) -> int:
    print(f"gateway models: {words}", file=sys.stderr)
    return code


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _places(settings: Settings) -> tuple[Path, Path]:
    """The repository, and the folder of graphs and the manifest."""
    assert settings.repository is not None  # noqa: S101  # looked at before
    return settings.repository, (settings.manifest or Path("models/manifest.json")).parent


def _own(settings: Settings) -> Catalogue:
    there = settings.catalogue is not None and settings.catalogue.exists()
    catalogue = overlay.load(settings.catalogue if there else None)
    return with_versions(catalogue, found_in(_places(settings)[0], catalogue))


def _add(parsed: argparse.Namespace, settings: Settings) -> int:
    from export.own.add import add  # noqa: PLC0415  # as above
    from export.own.request import Request  # noqa: PLC0415  # as above
    from export.plan import Places  # noqa: PLC0415  # as above

    assert settings.catalogue is not None  # noqa: S101  # looked at before
    request = Request(
        parsed.weights, parsed.family, parsed.name, Places(*_places(settings)), settings.catalogue, parsed.sizes,
        parsed.labels, parsed.replace,
    )  # fmt: skip
    if OWN_FAMILIES[parsed.family].pytorch and not installation.INSTALLED:
        return _elsewhere(request, settings)
    added = add(request, print)
    _say(request, added.file, settings)
    return 0


def _say(request: Request, file: Path, settings: Settings) -> None:
    print(f"{request.name} is in {file}; a running service loads it at its next start")
    words = {
        "picture": installation.PICTURE,
        "host": settings.host,
        "port": settings.port,
        "name": request.name,
    }
    print(f"try it: {OWN_FAMILIES[request.family].sample.format(**words)}")


def _elsewhere(request: Request, settings: Settings) -> int:
    """Build it in a process with PyTorch, whose search path must not have a checkout's folder `triton/`."""
    python = Path(sys.executable if find_spec("torch") else ".venv-export/bin/python").absolute()
    if not python.is_file():
        return _refuse(
            f"{request.family} needs PyTorch: pip install {installation.package('export')}, or in a checkout "
            "`make .venv-export/.complete`",
            FAILED,
        )
    command = [str(python), "-P", "-m", "export", "add", str(request.weights), "--family", request.family,
               "--name", request.name, "--repository", str(request.places.repository),
               "--models", str(request.places.models), "--catalogue", str(request.catalogue)]  # fmt: skip
    if request.sizes:
        command += ["--sizes", ",".join(map(str, request.sizes))]
    if request.labels is not None:
        command += ["--labels", str(request.labels)]
    command += ["--replace"] * request.replace
    done = subprocess.run(command, check=False)  # noqa: S603  # our own program
    if done.returncode == 0:
        _say(request, request.catalogue / f"{request.name}.toml", settings)
    return done.returncode


def _list(parsed: argparse.Namespace, settings: Settings) -> int:
    rows = [row for row in _rows(settings) if row["own"] or row["built"]]
    if parsed.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        whose = "own" if row["own"] else "ours"
        sizes = ",".join(str(size) for size in row["sizes"] if size) or "-"
        print(
            f"{row['family']:11} {row['variant']:16} {whose:5} {sizes:14} "
            f"{row['classes'] or '-':>5}  {row['weights']}"
        )
    if not rows:
        print("no model is there: gateway models add --help")
    return 0


def _rows(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every variant of every family."""
    from export import manifest  # noqa: PLC0415  # an extra: starter

    repository, _ = _places(settings)
    for family in _own(settings).families.values():
        for variant in dict.fromkeys(branch.variant for branch in family.branches):
            branches = family.of_variant(variant)
            built = [
                b for b in branches if (served_folder(repository / b.weights_model) / "model.onnx").is_file()
            ]
            records = [
                record for b in built if (record := manifest.read(b.weights_model, repository)) is not None
            ]
            yield {
                "family": family.name,
                "variant": variant or STANDARD,
                "own": branches[0].own,
                "sizes": [branch.size for branch in branches],
                "built": [branch.name for branch in built],
                "classes": len(branches[0].labels) or None,
                "weights": ", ".join(dict.fromkeys(_from(record) for record in records)) or "not there",
            }


def _from(record: Any) -> str:
    return f"{record.provenance.weights} ({record.provenance.source.name})"


def _show(parsed: argparse.Namespace, settings: Settings) -> int:
    found = [_described(branch, settings) for branch in _of_variant(_own(settings), parsed.name)]
    if parsed.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for row in found:
        print(row["branch"])
        for key, value in row.items():
            if key != "branch" and value not in (None, []):
                print(f"  {key:12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return 0


def _of_variant(catalogue: Catalogue, name: str) -> list[Branch]:
    found = [
        branch
        for family in catalogue.families.values()
        for variant in family.named(name)
        for branch in family.of_variant(variant)
    ]
    if not found:
        from export.errors import ExportError  # noqa: PLC0415  # an extra: starter

        known = catalogue.variants
        raise ExportError(
            f"there is no variant {name}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    return found


def _described(branch: Branch, settings: Settings) -> dict[str, Any]:
    from export import manifest  # noqa: PLC0415  # as above

    record = manifest.read(branch.weights_model, _places(settings)[0])
    return {
        "branch": branch.name,
        "family": branch.family,
        "variant": branch.variant or STANDARD,
        "own": branch.own,
        "size": branch.size,
        "inputs": [f"{t.name} {t.datatype} {list(t.shape)}" for t in branch.inputs],
        "outputs": [f"{t.name} {t.datatype} {list(t.shape)}" for t in branch.outputs],
        "models": [spec.name for spec in branch.models],
        "labels": list(branch.labels),
        "weights": None if record is None else _from(record),
        "digest": None if record is None else record.digest,
        "state": _state(branch, settings),
    }


def _remove(parsed: argparse.Namespace, settings: Settings) -> int:
    from export.own.add import remove  # noqa: PLC0415  # as above

    assert settings.catalogue is not None  # noqa: S101  # looked at before
    gone = remove(parsed.name, settings.catalogue, *_places(settings))
    print(f"removed {parsed.name}: {', '.join(gone) or 'no model was there'}")
    print("a running service serves it until its next start")
    return 0


def _configs(parsed: argparse.Namespace, settings: Settings) -> int:
    from export import repository as configs  # noqa: PLC0415  # as above

    del parsed
    repository, _ = _places(settings)
    texts = configs.configs(_own(settings))
    there = {name: text for name, text in texts.items() if (repository / name).is_dir()}
    written = configs.write_configs(there, repository)
    print(f"{len(there)} models in {repository}, config.pbtxt written: {', '.join(written) or 'none'}")
    return 0


def _verify(parsed: argparse.Namespace, settings: Settings) -> int:
    catalogue = _own(settings)
    branches = (
        [branch for name in parsed.names for branch in _of_variant(catalogue, name)]
        if parsed.names
        else [b for f in catalogue.families.values() for b in f.branches if b.own or _built(b, settings)]
    )
    there = [branch for branch in nameable(branches) if not _absent_beside(branch, settings)]
    found = {branch.name: _state(branch, settings) for branch in there}
    if parsed.json:
        print(json.dumps(found, indent=2))
    for name, state in {} if parsed.json else found.items():
        print(f"{name:32} {state}")
    if not found:
        print("no model is there", file=sys.stderr)
    return 0 if all(state in _RIGHT for state in found.values()) else FAILED


_RIGHT = ("as noted", "somebody else's: no digest is noted")


def _absent_beside(branch: Branch, settings: Settings) -> bool:
    beside = branch.twin_of is not None or branch.alternate_of is not None
    return beside and not (_places(settings)[0] / branch.name).is_dir()


def _built(branch: Branch, settings: Settings) -> bool:
    return (served_folder(_places(settings)[0] / branch.weights_model) / "model.onnx").is_file()


def _state(branch: Branch, settings: Settings) -> str:
    """Compare the records of a branch's models with their files."""
    from export import manifest  # noqa: PLC0415  # as above

    repository, _ = _places(settings)
    checks: Mapping[str, Callable[[Path], bool]] = {
        "config.pbtxt is missing": lambda folder: (folder / "config.pbtxt").is_file(),
    }
    if branch.models[-1].mapped:
        return _RIGHT[1]
    for spec in branch.models:
        folder = repository / spec.name
        for fault, holds in checks.items():
            if not holds(folder):
                return f"{spec.name}: {fault}"
        if spec.kind == "ensemble":
            continue
        version = served_folder(folder)
        if not (version / "model.onnx").is_file():
            return f"{spec.name}: model.onnx is missing"
        if not (version / "weights.json").is_file():
            return f"{spec.name}: weights.json is missing"
        if manifest.read(spec.name, repository) is None:
            return f"{spec.name}: its files aren't those that weights.json names"
    return _RIGHT[0]
