"""Networks of one's own of the other families, in the layouts that their makers publish. Imported where PyTorch is."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.exporters import EXPORTERS, Exporter
from export.manifest import Provenance
from export.own.request import Plan, Request, Variant
from export.weights import HUB_CONFIG, Weights, checkpoint, hub_folder
from routing.catalogue import Branch

_MOST_PIXELS = 4096


def clip(request: Request, _labels: tuple[str, ...] | None) -> Plan:
    """Plan the encoder of images and that of text.

    Raises:
        ExportError: the folder has no CLIP.
    """
    weights, config = _hub(request)
    vision = config.get("vision_config") or {}
    width, patch = config.get("projection_dim", 512), vision.get("patch_size", 32)
    side = vision.get("image_size", 224)
    if not all(type(number) is int and number > 0 for number in (width, patch, side)):
        raise ExportError(f"{request.weights / HUB_CONFIG} has no sizes of a CLIP")
    images = [
        {"name": f"{request.name}_image_{size}", "size": size}
        | ({"model_size": size // patch * patch} if size % patch else {})
        for size in _sizes(request, side, 1, least=patch)
    ]
    keys = {"dimension": width}
    variants = [
        Variant("clip_image", images, keys),
        Variant("clip_text", [{"name": f"{request.name}_text"}], keys),
    ]
    return _planned(request, variants, EXPORTERS["clip_image"], weights)


def depth(request: Request, _labels: tuple[str, ...] | None) -> Plan:
    """Plan a DPT.

    Raises:
        ExportError: the folder has none.
    """
    weights, config = _hub(request)
    if config.get("model_type") != "dpt":
        raise ExportError(f"{request.weights / HUB_CONFIG} describes a {config.get('model_type')}, not a DPT")
    # The exporter knows the two architectures by the branches that have them.
    alike = "midas_384" if config.get("is_hybrid") else "midas_256"
    variants = [Variant("depth", _named(request, 384, 32))]
    return _planned(
        request, variants, EXPORTERS["depth"], weights, lambda branch: replace(branch, name=alike)
    )


def flow(request: Request, _labels: tuple[str, ...] | None) -> Plan:
    """Plan a RAFT, small or large: the network that the weights fit.

    Raises:
        ExportError: they fit neither.
    """
    weights = checkpoint(request.weights, request.weights.name)
    raft = import_module("export.families.raft")
    faults = []
    for kind in ("small", "large"):
        try:
            raft.network(kind, weights)
        except ExportError as error:
            faults.append(str(error).splitlines()[0])
            continue
        as_ours = functools.partial(_of_kind, kind)
        return _planned(
            request, [Variant("flow", _named(request, 256, 8))], EXPORTERS["flow"], weights, as_ours
        )
    raise ExportError(faults[0])


def _of_kind(kind: str, branch: Branch) -> Branch:
    return replace(branch, variant=kind)


def places(request: Request, labels: tuple[str, ...] | None) -> Plan:
    """Plan a ResNet50 of scenes; `labels` are their names.

    Raises:
        ExportError: the weights are of another network, or the names aren't as many as its scenes.
    """
    weights = checkpoint(request.weights, request.weights.name)
    classes = import_module("export.families.places").classes_of(request.weights)
    if labels is None:
        raise ExportError(
            f"{request.weights} contains no names of its {classes} scenes: give --labels FILE, one name per line"
        )
    if len(labels) != classes:
        raise ExportError(f"--labels names {len(labels)} scenes, but {request.weights} has {classes}")
    variants = [Variant("places", _named(request, 224, 1), {}, labels)]
    return _planned(request, variants, EXPORTERS["places"], weights)


def _planned(
    request: Request,
    variants: Sequence[Variant],
    exporter: Exporter,
    weights: Weights,
    seen: Callable[[Branch], Branch] = lambda branch: branch,
) -> Plan:
    """Return a plan; `seen` is the branch as its exporter knows it."""

    def make(branch: Branch) -> bytes:
        try:
            return exporter.make()(seen(branch), weights)[0]
        except ExportError:
            raise
        except Exception as error:  # a network that torch can't trace at this size, whatever it raises
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise ExportError(f"{request.weights} can't be exported as {branch.name}: {said}") from error

    provenance: Provenance = exporter.provenance(weights)
    return Plan(variants, make, provenance, shared=exporter.shared)


def _hub(request: Request) -> tuple[Weights, dict[str, Any]]:
    """A folder in the hub's layout, and its configuration."""
    folder = request.weights
    if not folder.is_dir():
        raise ExportError(f"{folder} is no folder with {HUB_CONFIG} and the weights")
    weights = hub_folder(folder.absolute().parent, folder.absolute().name)
    return weights, _config(folder / HUB_CONFIG)


def _config(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise ExportError(f"{path} is no configuration")
    return document


def _named(request: Request, usual: int, multiple: int) -> list[dict[str, Any]]:
    sizes = _sizes(request, usual, multiple, least=64)
    return [{"name": f"{request.name}_{size}", "size": size} for size in sizes]


def _sizes(request: Request, usual: int, multiple: int, *, least: int) -> list[int]:
    sizes = sorted(set(request.sizes or (usual,)))
    for size in sizes:
        if size % multiple or not least <= size <= _MOST_PIXELS:
            raise ExportError(f"--sizes: {size} is no multiple of {multiple} from {least} to {_MOST_PIXELS}")
    return sizes
