"""The catalogue of families and branches: frozen, and checked whole when it is loaded.

The data stands in `branches.toml`; nothing else in the project writes a size, a threshold or a tensor name.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

TIERS = ("small", "medium", "large")
DATATYPE_BYTES = MappingProxyType({"UINT8": 1, "INT64": 8, "FP32": 4})
CATALOGUE_PATH = Path(__file__).with_name("branches.toml")

Fit = Literal["letterbox", "stretch", "crop"]
ModelKind = Literal["ensemble", "preprocess", "onnx"]


class CatalogueError(ValueError):
    """The catalogue contradicts itself; the message names the place."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a contract: name, Triton datatype (`UINT8`, `INT64`, `FP32`) and fixed shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DATATYPE_BYTES[self.datatype]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the Triton repository: a folder with a `config.pbtxt`."""

    name: str
    kind: ModelKind
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """How a frame becomes the input: the fit into the square, then `(x / scale - mean) / std` per channel."""

    fit: Fit
    interpolation: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """One Triton model of a family with ONE fixed input size.

    `models` are the repository's models behind it, in the order in which a frame meets them; the first is the
    branch itself. `weights_model` is the one that holds the trained weights.
    """

    name: str
    family: str
    tier: str | None
    size: int | None
    variant: str | None
    max_side: int | None
    model_size: int | None
    required: bool
    when_ready: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    models: tuple[ModelSpec, ...]

    @property
    def weights_model(self) -> str:
        return self.models[-1].name

    @property
    def preprocess_model(self) -> str | None:
        return next((model.name for model in self.models if model.kind == "preprocess"), None)


@dataclass(frozen=True)
class Family:
    """One task served by one kind of model, with its branches from small to large (and by variant)."""

    name: str
    title: str
    component: str
    folder: str
    ensemble: bool
    prepare: Prepare | None
    variants: tuple[str, ...]
    default_variant: str | None
    min_short_side: int | None
    labels: tuple[str, ...]
    branches: tuple[Branch, ...]

    def of_variant(self, variant: str | None) -> tuple[Branch, ...]:
        """Branches of one variant, ascending by size."""
        return tuple(branch for branch in self.branches if branch.variant == variant)

    def branch(self, name: str) -> Branch | None:
        return next((branch for branch in self.branches if branch.name == name), None)


@dataclass(frozen=True)
class Catalogue:
    """Every family, by name."""

    families: Mapping[str, Family]

    def __getitem__(self, family: str) -> Family:
        return self.families[family]

    @cached_property
    def branches(self) -> Mapping[str, Branch]:
        return {b.name: b for family in self.families.values() for b in family.branches}

    @cached_property
    def models(self) -> Mapping[str, ModelSpec]:
        """Every model of the Triton repository, by name."""
        return {model.name: model for branch in self.branches.values() for model in branch.models}

    def ready_checklist(self, *, required: bool, variant: str) -> tuple[str, ...]:
        """Names on the READY checklist, sorted: those that must be READY, or those that may be.

        Args:
            required: which of the two lists.
            variant: of a family with variants, the one that the checklist speaks of (the baseline's is `x`).
        """
        return tuple(
            sorted(
                model.name
                for branch in self.branches.values()
                if branch.required is required and branch.variant in (None, variant)
                for model in branch.models
            )
        )


def load(path: Path = CATALOGUE_PATH) -> Catalogue:
    """Read and check a catalogue file.

    Raises:
        CatalogueError: it is no catalogue; the message names the family and the fault.
    """
    return parse(tomllib.loads(path.read_text(encoding="utf-8")), path.parent / "labels")


def parse(document: Mapping[str, Any], labels_folder: Path) -> Catalogue:
    """Build a catalogue from its TOML document; `labels_folder` holds the files that `labels` names."""
    _known(document, {"schema_version", "family"}, "the catalogue")
    if document.get("schema_version") != 1:
        raise CatalogueError("schema_version must be 1")
    families: dict[str, Family] = {}
    for table in document.get("family", ()):
        family = _family(table, labels_folder)
        if family.name in families:
            raise CatalogueError(f"family {family.name} stands twice")
        families[family.name] = family
    _unique([branch.name for family in families.values() for branch in family.branches])
    return Catalogue(MappingProxyType(families))


_FAMILY_KEYS = {f.name for f in fields(Family)} - {"branches"} | {"input", "output", "branch"}
_BRANCH_KEYS = {
    "name", "preprocess", "tier", "size", "max_side", "model_size", "required", "when_ready",
}  # fmt: skip


def _family(table: Mapping[str, Any], labels_folder: Path) -> Family:
    name = str(table.get("name", "?"))
    _known(table, _FAMILY_KEYS, f"family {name}")
    try:
        family = Family(
            name=name,
            title=table["title"],
            component=table["component"],
            folder=table["folder"],
            ensemble=table["ensemble"],
            prepare=_prepare(table.get("prepare")),
            variants=tuple(table.get("variants", ())),
            default_variant=table.get("default_variant"),
            min_short_side=table.get("min_short_side"),
            labels=_labels(labels_folder, table.get("labels")),
            branches=tuple(_branches(table)),
        )
    except (KeyError, TypeError) as error:
        raise CatalogueError(f"family {name}: {error!r}") from error
    _check_family(family)
    return family


def _prepare(table: Mapping[str, Any] | None) -> Prepare | None:
    if table is None:
        return None
    return Prepare(**{**table, "mean": tuple(table["mean"]), "std": tuple(table["std"])})


def _labels(folder: Path, name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    return tuple((folder / name).read_text(encoding="utf-8").splitlines())


def _branches(table: Mapping[str, Any]) -> Iterator[Branch]:
    for variant in table.get("variants", (None,)):
        for row in table["branch"]:
            _known(row, _BRANCH_KEYS, f"family {table['name']}, branch {row.get('name')}")
            yield _branch(table, row, variant)


def _branch(table: Mapping[str, Any], row: Mapping[str, Any], variant: str | None) -> Branch:
    name = row["name"].format(variant=variant)
    size = row.get("size")
    symbols = {} if size is None else {"S": size, "A": 21 * (size // 32) ** 2}
    inputs = tuple(_tensor(t, symbols) for t in table["input"])
    outputs = tuple(_tensor(t, symbols) for t in table["output"])
    return Branch(
        name=name,
        family=table["name"],
        tier=row.get("tier"),
        size=size,
        variant=variant,
        max_side=row.get("max_side"),
        model_size=row.get("model_size"),
        required=row["required"],
        when_ready=row.get("when_ready", False),
        inputs=inputs,
        outputs=outputs,
        models=tuple(_models(name, table, row, inputs, outputs)),
    )


def _tensor(table: Mapping[str, Any], symbols: Mapping[str, int]) -> TensorSpec:
    if table["datatype"] not in DATATYPE_BYTES:
        raise CatalogueError(f"tensor {table['name']}: unknown datatype {table['datatype']}")
    shape = tuple(d if isinstance(d, int) else symbols[d] for d in table["shape"])
    if any(d <= 0 for d in shape):
        raise CatalogueError(f"tensor {table['name']}: no dynamic axes, got {shape}")
    return TensorSpec(table["name"], table["datatype"], shape)


def _models(
    name: str,
    table: Mapping[str, Any],
    row: Mapping[str, Any],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Iterator[ModelSpec]:
    """The branch itself, then the models that an ensemble strings together."""
    if not table["ensemble"]:
        yield ModelSpec(name, "onnx", inputs, outputs)
        return
    yield ModelSpec(name, "ensemble", inputs, outputs)
    middle = inputs
    if table.get("prepare") is not None:
        side = row.get("model_size", row["size"])
        middle = tuple(TensorSpec(_planar(t.name), "FP32", (1, 3, side, side)) for t in inputs)
        preprocess = row.get("preprocess", f"preprocess_{name}")
        yield ModelSpec(preprocess, "preprocess", inputs, middle)
    onnx_inputs = tuple(
        TensorSpec(outer.name, inner.datatype, inner.shape)
        for outer, inner in zip(inputs, middle, strict=True)
    )
    yield ModelSpec(f"{name}_onnx", "onnx", onnx_inputs, outputs)


def _planar(name: str) -> str:
    """`INPUT0__0` -> `OUTPUT0__0`: a preprocess model answers an input under the same number."""
    return name.replace("INPUT", "OUTPUT")


def _check_family(family: Family) -> None:
    if family.default_variant is not None and family.default_variant not in family.variants:
        raise CatalogueError(f"family {family.name}: default_variant is none of its variants")
    for variant in family.variants or (None,):
        _check_ladder(family.name, family.of_variant(variant))


def _check_ladder(family: str, branches: tuple[Branch, ...]) -> None:
    """Sizes, thresholds and tiers rise together; only the last branch has no bound."""
    if not branches:
        raise CatalogueError(f"family {family}: it has no branches")
    if branches[0].when_ready:
        raise CatalogueError(f"family {family}: the smallest branch can't be when_ready")
    for lower, upper in itertools.pairwise(branches):
        if lower.size is None or upper.size is None or lower.size >= upper.size:
            raise CatalogueError(f"family {family}: sizes must rise, see {upper.name}")
        if lower.max_side is None or (upper.max_side or math.inf) <= lower.max_side:
            raise CatalogueError(f"family {family}: thresholds must rise, see {upper.name}")
        if TIERS.index(lower.tier or "") >= TIERS.index(upper.tier or ""):
            raise CatalogueError(f"family {family}: tiers must rise, see {upper.name}")
    if branches[-1].max_side is not None:
        raise CatalogueError(f"family {family}: {branches[-1].name} must serve every larger frame")


def _known(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        raise CatalogueError(f"{where}: unknown key {', '.join(unknown)}")


def _unique(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CatalogueError(f"branch {', '.join(twice)} stands twice")
