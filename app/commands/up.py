"""`gateway up`: build the starter models in a folder of the user's unless they are there, then serve them."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import extras, installation
from app.api.server import uvicorn_options
from app.hints import did_you_mean
from app.process import preflight
from app.settings import Settings, environment, from_environment, unknown_variables
from routing import overlay
from routing.catalogue import Branch, Catalogue, ModelSpec, variants_in, with_twins

if TYPE_CHECKING:
    from export.manifest import Record
    from export.plan import Places

LICENCE = "AGPL-3.0 (https://ultralytics.com/license)"
EPILOG = f"""\
--weights:
  auto     Ultralytics' official weights, {LICENCE}; if the download fails,
           random ones (with a warning, and marked in every answer of the gateway)
  random   seeded weights to test the setup; they recognise nothing
  PATH     a checkpoint file of YOLO11, or a folder with yolo11n.pt; the licence is the file's own
Without this option, existing models are served unchanged, and missing ones are built as with auto.
GATEWAY_PRECISION=fp16 converts them as well, and lists the FP16 branches in your own catalogue (GATEWAY_CATALOGUE).

exit codes: 0: ended by a signal, after serving; 1: the models can't be built; 2: the command line or a setting is
wrong; 130: interrupted while building (run it again to resume)
"""
_SET, _FAMILY, _VARIANT = "starter", "detect", "n"
_ELSEWHERE = "--weights PATH takes a checkpoint such as yolo11n.pt; --weights random needs none, and recognises nothing"
_ADVICE = "For real answers: gateway up --weights PATH (a checkpoint like yolo11n.pt), or --weights auto when online."
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes, to a parser of its own."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="folder in which models are built (default: the user's cache folder)",
    )
    parser.add_argument("--weights", metavar="auto|random|PATH", help="weights to build the models from")
    parser.add_argument("--variant", help="variant of YOLO11: n, s, m, l or x (GATEWAY_VARIANT; default n)")
    parser.add_argument("--build-only", action="store_true", help="build the models without serving them")
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (GATEWAY_PORT)")
    parser.add_argument("--workers", type=int, help="processes that serve (GATEWAY_WORKERS)")
    parser.add_argument("--log-level", help="debug, info, warning or error (GATEWAY_LOG_LEVEL)")


def up(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    if any(extras.missing(extra) for extra in ("embedded", "repository", "starter")):
        package = installation.package("starter")
        return _refuse(f"builds and serves models with ONNX and ONNX Runtime: pip install {package}", USAGE)
    folder = (parsed.models or installation.models()).expanduser().absolute()
    settings = _settings(parsed, folder)
    catalogue = overlay.load(settings.own_catalogue)
    if wrong := _wrong(settings, catalogue) or (None if parsed.build_only else _taken(settings)):
        return _refuse(wrong, USAGE)
    try:
        variant = str(catalogue[_FAMILY].variant_or_default(settings.variant))
        code = _build(folder, parsed.weights, variant, catalogue)
        if not code and settings.precision == "fp16":
            code = _halve(folder, variant, catalogue, settings)
    except OSError as error:
        where = error.filename or folder
        return _refuse(f"{where}: {error.strerror or error}; --models names another folder", FAILED)
    except KeyboardInterrupt:
        print(flush=True)  # the line of a model isn't finished
        return _refuse("interrupted; run it again to go on", INTERRUPTED)
    if code or parsed.build_only:
        return code
    from app.commands.serve import serve  # noqa: PLC0415  # takes a second, and the models come first

    return serve(settings)


def _refuse(words: str, code: int) -> int:
    print(f"gateway up: {words}", file=sys.stderr)
    return code


def _settings(parsed: argparse.Namespace, folder: Path) -> Settings:
    """Take settings from the command line, then the environment, then defaults for a folder without a checkout."""
    flags = ("host", "port", "workers", "log_level", "variant")
    given: dict[str, Any] = {
        name: getattr(parsed, name) for name in flags if getattr(parsed, name) is not None
    }
    defaults: dict[str, Any] = {
        "variant": _VARIANT,
        "profiles_folder": installation.PROFILES,
        "videos_folder": installation.videos(),
        "repository": folder / "repository",
        "manifest": folder / "manifest.json",
    }
    there = from_environment()
    return Settings(**{name: value for name, value in defaults.items() if name not in there} | given)


def _wrong(settings: Settings, catalogue: Catalogue) -> str | None:
    """Return the reason why serving would fail, before minutes are spent on models."""
    there = from_environment()
    if settings.engine != "embedded":
        return "serves on the embedded engine: unset GATEWAY_ENGINE, or run `gateway serve`"
    for name in ("repository", "manifest"):
        if name in there:
            return f"serves what it builds: unset GATEWAY_{name.upper()}, or run `gateway serve`"
    family = catalogue[_FAMILY]
    if not any(family.named(word) for word in variants_in(settings.variant)):
        hint = did_you_mean(str(settings.variant), family.variants)
        return f"--variant: is one of {', '.join(family.variants)}{hint}"
    ahead = settings.model_copy(update={"repository": None, "manifest": None})  # they are built first
    faults = [
        *unknown_variables(environment()),
        *preflight.faults(ahead, catalogue),
        *uvicorn_options.faults(settings),
    ]
    return faults[0] if faults else None


def _taken(settings: Settings) -> str | None:
    """Return the reason why the port can't be taken, or None."""
    try:
        sockets = uvicorn_options.listen(settings)
    except OSError as error:
        return str(error)
    for sock in sockets:
        sock.close()
    return None


def _build(folder: Path, weights: str | None, variant: str, catalogue: Catalogue) -> int:
    """Make what is missing under `folder`, say what is there then; 0, or an exit code.

    Raises:
        OSError: a file can't be read or written.
        KeyboardInterrupt: it was told to end; what is unfinished is removed.
    """
    from export import plan  # noqa: PLC0415  # an extra: starter
    from export.errors import ExportError  # noqa: PLC0415  # ditto

    places = plan.Places(folder / "repository", folder)
    wanted = plan.branches(catalogue, _SET, (variant,))
    sizes = ", ".join(str(branch.size) for branch in wanted)
    print(f"models: YOLO11{variant} at {sizes} pixels, in {folder}", flush=True)
    with _ended_by_sigterm():
        try:
            found = None if weights else _there(catalogue, wanted, places)
            if found is None:
                if weights is None and (source := _checkpoint_to_name(wanted, places)):
                    return _refuse(
                        f"a model is missing or damaged, and the other models were built from {source}: name that file "
                        "with --weights PATH, or another folder with --models",
                        FAILED,
                    )
                failed = _make(catalogue, wanted, weights or "auto", places)
                found = _there(catalogue, wanted, places)
                if failed or found is None:
                    return _refuse(f"not every model could be built\nhint: {_ELSEWHERE}", FAILED)
            else:
                print("already built: the files have the digests that they were built with", flush=True)
        except ExportError as error:
            return _refuse(f"{error}\nhint: {_ELSEWHERE}", FAILED)
    _say_weights(found)
    return 0


def _halve(folder: Path, variant: str, catalogue: Catalogue, settings: Settings) -> int:
    """Make the FP16 branches of the models that are there; 0, or an exit code.

    Raises:
        OSError, KeyboardInterrupt: see `_build`.
    """
    from export import artifacts, plan  # noqa: PLC0415  # as above
    from export.errors import ExportError  # noqa: PLC0415  # ditto
    from export.half import models  # noqa: PLC0415  # ditto

    places = plan.Places(folder / "repository", folder)
    wanted = plan.branches(catalogue, _SET, (variant,))
    listed = settings.catalogue
    if listed is None:
        return _refuse(
            "FP16 branches are listed in your own catalogue: unset GATEWAY_CATALOGUE, or name a folder", USAGE
        )
    print(f"GATEWAY_PRECISION=fp16: FP16 branches, listed in {listed / models.FILE}", flush=True)
    try:
        with _ended_by_sigterm(), artifacts.alone(places.models):
            failed = models.models(wanted, places, listed)
    except ExportError as error:
        return _refuse(str(error), FAILED)
    return _refuse("not every model could be converted to FP16", FAILED) if failed else 0


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that unfinished files are removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _there(catalogue: Catalogue, wanted: Sequence[Branch], places: Places) -> list[Record] | None:
    """The records of the models with weights; None where a file isn't there, or isn't as it was built.

    Official and random weights are also built again where this version builds them differently.
    """
    from export import manifest, repository  # noqa: PLC0415  # as above

    models = {spec.name: spec for branch in with_twins(wanted) for spec in branch.models}
    if set(repository.drift(repository.configs(catalogue), places.repository)) & {
        f"{name}/{repository.CONFIG_FILE}" for name in models
    }:
        return None
    found = []
    for name, spec in models.items():
        if spec.kind == "ensemble":
            continue
        record = manifest.read(name, places.repository)
        if record is None or not _current(record, spec):
            return None
        if record.provenance.weights != "none":
            found.append(record)
    return found


def _checkpoint_to_name(wanted: Sequence[Branch], places: Places) -> str | None:
    """Return the name of the checkpoint if only some of the models are there."""
    from export import manifest  # noqa: PLC0415  # as above

    records = [manifest.read(branch.weights_model, places.repository) for branch in wanted]
    names = [r.provenance.source.name for r in records if r and r.provenance.weights == "checkpoint"]
    return names[0] if names and None in records else None


def _current(record: Record, spec: ModelSpec) -> bool:
    """Return whether this version would build the model as it is; a user's own checkpoint is kept."""
    from export import preprocess  # noqa: PLC0415  # as above
    from export.exporters import EXPORTERS  # noqa: PLC0415  # ditto

    if record.provenance.weights == "none":
        return record.provenance == preprocess.provenance(spec)
    return (
        record.provenance.weights == "checkpoint"
        or record.provenance.exporter == EXPORTERS[_FAMILY].versions()
    )


def _make(catalogue: Catalogue, wanted: Sequence[Branch], weights: str, places: Places) -> int:
    """Build; the number of models that failed.

    Raises:
        ExportError: the weights aren't there, or another run is building in this folder.
    """
    from export import artifacts, build, repository  # noqa: PLC0415  # as above

    if weights in ("auto", "pretrained"):
        print(f"weights: official ones by Ultralytics, licensed {LICENCE}", flush=True)
    with artifacts.alone(places.models):
        for folder in (places.models, places.repository):
            artifacts.sweep(folder)
        repository.write_configs(repository.configs(catalogue), places.repository)
        return build.models(catalogue, wanted, weights, places, _ADVICE)


def _say_weights(records: Sequence[Record]) -> None:
    """Print the weights that are served, and their licence."""
    licences = {
        "pretrained": f"official ones by Ultralytics, licensed {LICENCE}",
        "checkpoint": f"the licence is that file's own; Ultralytics' weights are {LICENCE}",
        "random": "they recognise nothing; --weights auto tries to download official ones, --weights PATH takes a file",
    }
    for kind, source in dict.fromkeys((r.provenance.weights, r.provenance.source) for r in records):
        digest = f" (sha256:{source.sha256})" if source.sha256 else ""
        print(f"weights: {kind}, {source.name}{digest}: {licences[kind]}", flush=True)
