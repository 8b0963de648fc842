"""The catalogue of families and branches: frozen, and checked whole when it is loaded.

The data stands in `branches.toml`; nothing else in the project writes a size, a threshold or a tensor name. What
users add to it, `routing/overlay.py` reads.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from routing.accelerators import Accelerator, accelerator_of

TIERS = ("small", "medium", "large")
DATATYPE_BYTES = MappingProxyType({"UINT8": 1, "INT64": 8, "FP32": 4})
CATALOGUE_PATH = Path(__file__).with_name("branches.toml")
# The variant of a family that names none: what `variant=` says to have it where another one is the default.
STANDARD = "standard"

INTERPOLATIONS = ("linear", "bicubic")
Fit = Literal["letterbox", "stretch", "crop"]
ModelKind = Literal["ensemble", "preprocess", "onnx"]
Precision = Literal["fp32", "fp16"]


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
    """One model of the Triton repository: a folder with a `config.pbtxt`.

    `mapped`: others made it, so that it may take more than one frame at a time or more than one size; one frame of one
    size is asked of it. `classes`: in words, the names that the size of its output follows from. `accelerator`: runs
    it, where the engine has that.
    """

    name: str
    kind: ModelKind
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    mapped: bool = False
    classes: str = ""
    accelerator: Accelerator | None = None


@dataclass(frozen=True, slots=True)
class Prepare:
    """Preparation of the input: the fit into the square, then `(x / scale - mean) / std` per channel.

    `crop_ratio`: with fit `crop`, the part of the shorter side that the square shows.
    """

    fit: Fit
    interpolation: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: int = 0
    crop_ratio: float = 1.0

    @property
    def fits(self) -> tuple[Fit, ...]:
        """Return the fits that a caller may request, the default first: a frame that is cropped may also be
        squeezed whole.

        A map of the frame (depth, flow) must cover all of it, and boxes need its aspect ratio.
        """
        return ("crop", "stretch") if self.fit == "crop" else (self.fit,)


@dataclass(frozen=True, slots=True)
class Branch:
    """One Triton model of a family with ONE fixed input size.

    `models` are the repository's models behind it, in the order in which a frame meets them; the first is the
    branch itself. `weights_model` is the one that holds the trained weights.

    `compact` is the branch's twin that takes UINT8 pixels and has the same weights model, if there is one; `twin_of` is
    the name of the branch whose twin this is.

    `labels` are the class names of its variant, in the order of its output; `prepare` and `min_short_side` as for the
    family. `own`: a user's catalogue has it, ours doesn't.

    `precision` is that of the weights: FP16 branches take and give the same tensors as FP32 ones. `alternate` is the
    same branch in the other precision, if both are in the catalogue; it serves callers who name it. `alternate_of` is
    the name of the branch whose alternate this is.

    `versions` are further versions of the branch, each a branch of its own with models of its own; they serve who asks
    for them, and the share of requests that a rollout gives them. `version_of` is the name of the branch whose further
    version this is, and `version` its number; None: the number of the version folder that is served.
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
    compact: Branch | None = None
    twin_of: str | None = None
    labels: tuple[str, ...] = ()
    prepare: Prepare | None = None
    min_short_side: int | None = None
    own: bool = False
    precision: Precision = "fp32"
    alternate: Branch | None = None
    alternate_of: str | None = None
    versions: tuple[Branch, ...] = ()
    version_of: str | None = None
    version: str | None = None

    @property
    def weights_model(self) -> str:
        return self.models[-1].name

    @property
    def same_weights(self) -> tuple[str, ...]:
        """Names of the branches that run on these weights: this one, or a branch and its twin, in this order."""
        if self.twin_of is not None:
            return self.twin_of, self.name
        return (self.name,) if self.compact is None else (self.name, self.compact.name)

    @property
    def accelerator(self) -> Accelerator | None:
        return self.models[-1].accelerator

    @property
    def preprocess_model(self) -> str | None:
        return next((model.name for model in self.models if model.kind == "preprocess"), None)


@dataclass(frozen=True)
class Family:
    """One task served by one kind of model, with its branches from small to large (and by variant), without twins.

    `prepare`, `min_short_side` and `labels` are those of its own variants; a user's variant may have others. A family
    that a user's catalogue leaves out has no branches.
    """

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

    def variant_or_default(self, variant: str | None) -> str | None:
        """`variant`, or the one of several separated by commas, that the family has; else its own default.

        None stands for the variant of a family that names none.
        """
        named = (self.named(word) for word in variants_in(variant))
        return next((found[0] for found in named if found), self.default_variant)

    def named(self, variant: str) -> tuple[str | None, ...]:
        """The variant of this name, or nothing; None stands for the one without a name, called `standard`."""
        if variant in self.variants:
            return (variant,)
        return (None,) if variant == STANDARD and self.of_variant(None) else ()

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Values of `variant=`, the family's own first."""
        return (*((STANDARD,) if self.variants and self.of_variant(None) else ()), *self.variants)

    def of_variant(self, variant: str | None) -> tuple[Branch, ...]:
        """Branches of one variant, ascending by size."""
        return tuple(branch for branch in self.branches if branch.variant == variant)

    def ladder(self, branch: Branch) -> tuple[Branch, ...]:
        """Branches of the variant of `branch`, ascending by size, in its precision as far as they exist in it."""
        usual = self.of_variant(branch.variant)
        return usual if branch.alternate_of is None else tuple(one.alternate or one for one in usual)

    @property
    def every_branch(self) -> tuple[Branch, ...]:
        """All branches that have a name, see `nameable`."""
        return nameable(self.branches)

    def branch(self, name: str) -> Branch | None:
        """By name; twins and alternates have names, too."""
        return next((branch for branch in self.every_branch if branch.name == name), None)


def variants_in(text: str | None) -> list[str]:
    """The variants of a list that is separated by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def with_twins(branches: Iterable[Branch]) -> tuple[Branch, ...]:
    """Branches, each followed by its twin if it has one."""
    return tuple(twin for branch in branches for twin in (branch, branch.compact) if twin is not None)


def nameable(branches: Iterable[Branch]) -> tuple[Branch, ...]:
    """Branches that callers may name: each with its twin, its further versions, and its alternate with the same."""
    pairs = ((branch, branch.alternate) for branch in branches)
    both = (branch for pair in pairs for branch in pair if branch is not None)
    return with_twins(one for branch in both for one in (branch, *branch.versions))


@dataclass(frozen=True)
class Catalogue:
    """Every family, by name."""

    families: Mapping[str, Family]

    def __getitem__(self, family: str) -> Family:
        return self.families[family]

    @cached_property
    def branches(self) -> Mapping[str, Branch]:
        """Every branch, twin and alternate, by name."""
        return MappingProxyType({b.name: b for family in self.families.values() for b in family.every_branch})

    @cached_property
    def models(self) -> Mapping[str, ModelSpec]:
        """Every model of the Triton repository, by name."""
        models = (model for branch in self.branches.values() for model in branch.models)
        return MappingProxyType({model.name: model for model in models})

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of all variants, each once."""
        return tuple(dict.fromkeys(v for family in self.families.values() for v in family.variant_names))

    def variant_fault(self, text: str | None) -> str | None:
        """Say why a list of default variants makes no sense; None: it does.

        Args:
            text: variants separated by commas, at most one per family.
        """
        for word in (words := variants_in(text)):
            if word not in self.variants:
                return f"is one of {', '.join(self.variants)}, or several of different families; not {word[:100]!r}"
        for family in self.families.values():
            both = [word for word in words if family.named(word)]
            if len(set(both)) > 1:
                return f"names {' and '.join(both)}, which are variants of one family ({family.name})"
        return None

    def checklist(self, variant: str) -> Mapping[str, Literal["required", "optional"]]:
        """Names on the READY checklist, and on which of its two lists each is; see `ready_checklist`."""
        return {
            **dict.fromkeys(self.ready_checklist(required=True, variant=variant), "required"),
            **dict.fromkeys(self.ready_checklist(required=False, variant=variant), "optional"),
        }

    def ready_checklist(self, *, required: bool, variant: str) -> tuple[str, ...]:
        """Names on the READY checklist, sorted: those that must be READY, or those that may be.

        Args:
            required: which of the two lists.
            variant: the one that the checklist speaks of in the family that has it (the baseline's is `x`), or
                several separated by commas; in others it speaks of the default one.
        """
        return tuple(
            sorted(
                model.name
                for family in self.families.values()
                for branch in family.of_variant(family.variant_or_default(variant))
                if branch.required is required
                for model in branch.models
            )
        )


def load(path: Path = CATALOGUE_PATH) -> Catalogue:
    """Read and check a catalogue file.

    Raises:
        CatalogueError: it is no catalogue; the message names the family and the fault.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    return parse(document, path.parent / "labels")


def parse(document: Mapping[str, Any], labels_folder: Path) -> Catalogue:
    """Build a catalogue from its TOML document; `labels_folder` holds the files that `labels` names."""
    check_table(document, {"schema_version": int, "family": list}, "the catalogue")
    if document.get("schema_version") != 1:
        raise CatalogueError("schema_version must be 1")
    families: dict[str, Family] = {}
    for table in document.get("family", ()):
        check_table(table, _FAMILY_KEYS, "a family")
        family = _family(table, labels_folder)
        if family.name in families:
            raise CatalogueError(f"family {family.name} stands twice")
        families[family.name] = family
    return assemble(families)


def assemble(families: Mapping[str, Family]) -> Catalogue:
    """A catalogue of families that agree with each other.

    Raises:
        CatalogueError: there are none, or two have a model or a variant of one name.
    """
    if not families:
        raise CatalogueError("the catalogue has no family")
    _unique("model", [name for family in families.values() for name in own_models(family)])
    # Families of one component share a variant: text and images of one CLIP belong together.
    named = dict.fromkeys((v, family.component) for family in families.values() for v in family.variants)
    for family in families.values():
        _unique("variant", list(family.variants))
    _unique("variant", [variant for variant, _ in named])
    return Catalogue(MappingProxyType(dict(families)))


# Keys of each kind of table, and the type of their values.
_FAMILY_KEYS: Mapping[str, type] = {
    "name": str, "title": str, "component": str, "folder": str, "ensemble": bool, "prepare": dict,
    "variants": list, "default_variant": str, "min_short_side": int, "labels": str, "dimension": int,
    "input": list, "output": list, "compact": dict, "branch": list,
}  # fmt: skip
_BRANCH_KEYS: Mapping[str, type] = {
    "name": str, "variant": str, "preprocess": str, "tier": str, "size": int, "max_side": int, "model_size": int,
    "required": bool, "when_ready": bool, "accelerator": object,
}  # fmt: skip
_COMPACT_KEYS: Mapping[str, type] = {"name": str, "preprocess": str, "input": list}
_TENSOR_KEYS: Mapping[str, type] = {"name": str, "datatype": str, "shape": list}
_PREPARE_KEYS: Mapping[str, type] = {
    "fit": str, "interpolation": str, "pad": int, "crop_ratio": float, "scale": float, "mean": list, "std": list,
}  # fmt: skip


def _family(table: Mapping[str, Any], labels_folder: Path) -> Family:
    name = str(table.get("name", "?"))
    try:
        labels = read_labels(labels_folder, table.get("labels"))
        family = Family(
            name=name,
            title=table["title"],
            component=table["component"],
            folder=table["folder"],
            ensemble=table["ensemble"],
            prepare=prepare_of(name, table.get("prepare")),
            variants=tuple(table.get("variants", ())),
            default_variant=table.get("default_variant"),
            min_short_side=table.get("min_short_side"),
            labels=labels,
            branches=tuple(branches_of(table, labels)),
        )
    except (KeyError, TypeError) as error:
        raise CatalogueError(f"family {name}: {error!r}") from error
    _check_variants(family, table["branch"])
    check_family(family)
    return family


def prepare_of(family: str, table: Mapping[str, Any] | None) -> Prepare | None:
    if table is None:
        return None
    check_table(table, _PREPARE_KEYS, f"family {family}, prepare")
    if table["fit"] not in get_args(Fit):
        raise CatalogueError(f"family {family}: unknown fit {table['fit']}")
    if table["interpolation"] not in INTERPOLATIONS or (
        table["fit"] == "letterbox" and table["interpolation"] != "linear"
    ):
        raise CatalogueError(
            f"family {family}: interpolation {table['interpolation']} isn't known for this fit"
        )
    if not (table["scale"] > 0 and 0 < table.get("crop_ratio", 1) <= 1 and 0 <= table.get("pad", 0) <= 255):
        raise CatalogueError(
            f"family {family}: scale is positive, crop_ratio above 0 and at most 1, pad a grey level"
        )
    numbers = [*table["mean"], *table["std"]]
    if len(table["mean"]) != 3 or len(numbers) != 6 or not all(isinstance(n, int | float) for n in numbers):
        raise CatalogueError(f"family {family}: mean and std have one number a channel")
    if not all(table["std"]):
        raise CatalogueError(f"family {family}: std divides, so it isn't 0")
    return Prepare(**{**table, "mean": tuple(table["mean"]), "std": tuple(table["std"])})


def read_labels(folder: Path, name: str | None) -> tuple[str, ...]:
    """Read the class names in a file, one per line.

    Raises:
        CatalogueError: it can't be read, or a line is no name.
    """
    if name is None:
        return ()
    try:
        labels = tuple((folder / name).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise CatalogueError(f"labels {name}: {error}") from error
    check_labels(labels, name)
    return labels


def check_labels(labels: Iterable[object], where: str) -> None:
    """Refuse what is no list of class names.

    Raises:
        CatalogueError: one isn't printable text, or there is none.
    """
    number = 0
    for number, label in enumerate(labels, 1):
        if not (isinstance(label, str) and label.strip() and label.isprintable()):
            raise CatalogueError(f"labels {where}: line {number} is no class name, which is printable text")
    if number == 0:
        raise CatalogueError(f"labels {where}: there is no class name")


def branches_of(table: Mapping[str, Any], labels: tuple[str, ...]) -> Iterator[Branch]:
    """The branches of a family's table, variant by variant.

    Raises:
        CatalogueError, KeyError, TypeError: one makes no sense.
    """
    for variant in table.get("variants", (None,)):
        for row in table["branch"]:
            check_table(row, _BRANCH_KEYS, f"family {table['name']}, a branch")
            if row.get("variant", variant) == variant:
                yield branch_of(table, row, variant, labels)


def branch_of(
    table: Mapping[str, Any], row: Mapping[str, Any], variant: str | None, labels: tuple[str, ...]
) -> Branch:
    """One branch of a variant.

    Raises:
        CatalogueError, KeyError, TypeError: it makes no sense.
    """
    name = row["name"].replace("{variant}", str(variant))
    size = row.get("size")
    if any(row.get(key, 1) < 1 for key in ("size", "max_side", "model_size")):
        raise CatalogueError(f"branch {name}: sizes and thresholds are positive")
    if row.get("tier", TIERS[0]) not in TIERS:
        raise CatalogueError(f"branch {name}: unknown tier {row['tier']}")
    symbols = _symbols(table, size, labels)
    inputs = tuple(_tensor(t, symbols) for t in table["input"])
    outputs = tuple(_tensor(t, symbols) for t in table["output"])
    branch = Branch(
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
        labels=labels,
        prepare=prepare_of(table["name"], table.get("prepare")),
        min_short_side=table.get("min_short_side"),
    )
    compact = table.get("compact")
    if compact is not None:
        branch = replace(branch, compact=_twin(branch, table, compact, symbols))
    return accelerated(branch, accelerator_in(row, f"branch {name}"))


def accelerator_in(table: Mapping[str, Any], where: str) -> Accelerator | None:
    """Read the accelerator that a table names, if it names one.

    Raises:
        CatalogueError: there is no such accelerator, or it has no such option.
    """
    try:
        return accelerator_of(table.get("accelerator"))
    except ValueError as error:
        raise CatalogueError(f"{where}: {error}") from error


def accelerated(branch: Branch, accelerator: Accelerator | None) -> Branch:
    """Return the branch with this accelerator for the model that holds its weights, which its twin has in common."""
    compact = branch.compact
    model = replace(branch.models[-1], accelerator=accelerator)
    if compact is not None:
        compact = replace(compact, models=(*compact.models[:-1], model))
    return replace(branch, models=(*branch.models[:-1], model), compact=compact)


def _symbols(table: Mapping[str, Any], size: int | None, labels: tuple[str, ...]) -> dict[str, int]:
    """Meaning of the letters in shapes."""
    symbols = {} if size is None else {"S": size}
    if size is not None and size % 32 == 0:
        symbols["A"] = 21 * (size // 32) ** 2
    if labels:
        symbols |= {"C": len(labels), "4+C": 4 + len(labels)}
    if "dimension" in table:
        symbols["D"] = table["dimension"]
    return symbols


def _twin(
    branch: Branch, table: Mapping[str, Any], compact: Mapping[str, Any], symbols: Mapping[str, int]
) -> Branch:
    """An ensemble of a preprocess graph and the branch's own model."""
    check_table(compact, _COMPACT_KEYS, f"family {branch.family}, compact")
    if table.get("prepare") is None or any(tensor.datatype != "FP32" for tensor in branch.inputs):
        raise CatalogueError(f"family {branch.family}: compact is for models that take prepared FP32")
    name = compact["name"].replace("{branch}", branch.name)
    preprocess = compact["preprocess"].replace("{size}", str(branch.size))
    inputs = tuple(_tensor(t, symbols) for t in compact["input"])
    if len(inputs) != len(branch.inputs):
        raise CatalogueError(f"branch {name}: it has as many inputs as {branch.name}")
    middle = tuple(
        TensorSpec(_planar(outer.name), inner.datatype, inner.shape)
        for outer, inner in zip(inputs, branch.inputs, strict=True)
    )
    models = (
        ModelSpec(name, "ensemble", inputs, branch.outputs),
        ModelSpec(preprocess, "preprocess", inputs, middle),
        *branch.models,
    )
    return replace(branch, name=name, required=False, inputs=inputs, models=models, twin_of=branch.name)


def _tensor(table: Mapping[str, Any], symbols: Mapping[str, int]) -> TensorSpec:
    check_table(table, _TENSOR_KEYS, "a tensor")
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


def own_models(family: Family) -> Iterator[str]:
    """Names that nothing else may have: a twin's last model is its branch's, and twins of one size share a graph."""
    twins = [branch.compact for branch in family.branches if branch.compact is not None]
    yield from (model.name for branch in family.branches for model in branch.models)
    yield from (twin.name for twin in twins)
    yield from (spec.name for spec in {twin.models[1] for twin in twins})
    for other in (branch.alternate for branch in family.branches if branch.alternate is not None):
        yield from (model.name for model in other.models if model.kind != "preprocess")
        yield from (() if other.compact is None else (other.compact.name,))


def check_family(family: Family) -> None:
    if family.default_variant not in (family.variants or (None,)):
        raise CatalogueError(f"family {family.name}: default_variant is none of its variants")
    for variant in family.variants or (None,):
        check_ladder(family.name, family.of_variant(variant))


def _check_variants(family: Family, rows: Iterable[Mapping[str, Any]]) -> None:
    names: tuple[object, ...] = family.variants  # as the document has them
    if not all(isinstance(name, str) and name for name in names):
        raise CatalogueError(f"family {family.name}: variants are a list of names")
    for row in rows:
        if "variant" in row and row["variant"] not in family.variants:
            raise CatalogueError(f"family {family.name}: {row['name']} is of a variant that it hasn't")


def check_ladder(family: str, branches: tuple[Branch, ...]) -> None:
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
        if lower.tier is None or upper.tier is None or TIERS.index(lower.tier) >= TIERS.index(upper.tier):
            raise CatalogueError(f"family {family}: tiers must rise, see {upper.name}")
    if branches[-1].max_side is not None:
        raise CatalogueError(f"family {family}: {branches[-1].name} must serve every larger frame")


def check_table(table: Any, keys: Mapping[str, type], where: str) -> None:
    """Known keys only, each of its type (a bool is no int; a float may be written as an int; `object` is any).

    Raises:
        CatalogueError: there is another one, or a value is of another type.
    """
    if not isinstance(table, Mapping):
        raise CatalogueError(f"{where} is no table")
    where = f"{where} ({table.get('name', '?')})"
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise CatalogueError(f"{where}: unknown key {', '.join(unknown)}")
    for key, value in table.items():
        if keys[key] is object:
            continue
        if type(value) not in ((int, float) if keys[key] is float else (keys[key],)):
            raise CatalogueError(f"{where}: {key} is no {keys[key].__name__}")


def _unique(kind: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CatalogueError(f"{kind} {', '.join(twice)} stands twice")
