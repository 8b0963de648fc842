"""The embedded engine for a run: which folder, which of its branches, and one line that says so."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from app import extras
from app.commands.predict import repository
from app.commands.predict.errors import NoModels
from app.commands.predict.families.base import FamilyCommand
from app.commands.predict.gateway import Gateway
from app.commands.predict.inputs import Input
from app.commands.predict.repository import Size
from app.process.catalogue import load_catalogue
from app.settings import Settings, environment, unknown_variables
from routing.catalogue import Catalogue
from routing.policy import Wishes

_MOST_LOOKED_AT = 200  # pictures whose size decides what is loaded; of more, every size is expected


def embedded(parsed: argparse.Namespace, entries: Sequence[Input], note: Callable[[str], None]) -> Gateway:
    """The service in this process with the branches that the inputs need, loaded.

    Raises:
        NoModels, RuntimeError: it can't serve; the message says what to do.
    """
    settings, folder, catalogue = at_hand(parsed)
    command: FamilyCommand = parsed.predict
    family = catalogue[command.family]
    variant = repository.default_variant(folder, family, settings)
    pictures = [entry for entry in entries if entry.text is None]
    names: list[str] = []
    if pictures:
        names += repository.needed(folder, family, repository.wishes(parsed), variant, _sizes(pictures))
    if len(pictures) < len(entries) and command.text_family is not None:
        names += repository.needed(
            folder, catalogue[command.text_family], Wishes(version=parsed.model_version), variant, [None]
        )
    given: dict[str, Any] = {"variant": variant} if variant else {}
    return started(parsed, settings.model_copy(update={"repository": folder, **given}), names, note)


def at_hand(parsed: argparse.Namespace) -> tuple[Settings, Path, Catalogue]:
    """The settings of a service in this process, its folder of models and its catalogue.

    Raises:
        NoModels: there is no folder, or ONNX Runtime is missing.
    """
    missing = extras.missing("embedded")
    if missing is not None:
        raise NoModels(missing)
    settings = Settings(engine="embedded")
    folder = repository.find(parsed.repository, settings)
    return settings, folder, load_catalogue(settings, repository=folder)


def started(
    parsed: argparse.Namespace, settings: Settings, names: Sequence[str], note: Callable[[str], None]
) -> Gateway:
    """The service in this process, with these branches loaded.

    Raises:
        NoModels, RuntimeError: it can't serve; the message says what to do.
    """
    from app.commands.predict.embedded import EmbeddedGateway  # noqa: PLC0415  # the service takes a second

    names = list(names)
    gateway = EmbeddedGateway(_service(parsed, settings, names), parsed.timeout)
    faults = gateway.wait(names)
    if len(faults) == len(names):
        gateway.close()
        raise NoModels(f"no model can serve: {'; '.join(faults)}; build it again, or see `gateway doctor`")
    note(f"{gateway.title} ({', '.join(names)}); --url asks a running gateway instead")
    for unknown in unknown_variables(environment()):
        note(unknown)
    for fault in faults:
        note(f"not loaded: {fault}")
    for name in gateway.changed(names):
        note(
            f"{name}: its files differ from the digest in weights.json; build it again unless you changed them"
        )
    return gateway


def _service(parsed: argparse.Namespace, settings: Settings, names: Sequence[str]) -> Settings:
    """The service's settings without what belongs to a server: ports, keys, jobs, sessions, traces."""
    alone = {
        "models": ",".join(names),
        "rollout": "",
        "require_ready": "",
        "detect_input": "auto",
        "warmup": False,
        "rescan_s": 0.0,
        "workers": 1,
        "leases": parsed.jobs or settings.leases,
        "request_timeout_s": parsed.timeout,
        "video_timeout_s": 86400.0,
        "session_store": "memory",
        "videos_folder": None,
        "operate_port": None,
        "tls_cert": None,
        "tls_key": None,
        "tls_client_ca": None,
        "tracing_endpoint": None,
        "api_keys": None,
        "api_keys_file": None,
        "cors_origins": "",
        "shutdown_timeout_s": 1,
    }
    return settings.model_copy(update=alone)


def _sizes(pictures: Sequence[Input]) -> list[Size | None]:
    """Sizes of the pictures by their headers; None stands for one that isn't known before it is read."""
    if len(pictures) > _MOST_LOOKED_AT:
        return [None]
    return [_size(entry) for entry in pictures if entry.fault is None] or [None]


def _size(entry: Input) -> Size | None:
    if entry.path is None or not entry.path.is_file():
        return None
    try:
        with warnings.catch_warnings(), Image.open(entry.path) as picture:
            warnings.simplefilter("ignore")
            return picture.size
    except Exception:  # noqa: BLE001  # the service says what is wrong with it
        return None
