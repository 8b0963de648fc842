"""A catalogue of one's own over ours: variants that are added, defaults that change, and what is left out.

One TOML file, or a folder of them. Every fault ends as a CatalogueError that begins with the file and the line.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from routing.accelerators import Accelerator
from routing.catalogue import (
    CATALOGUE_PATH,
    STANDARD,
    TIERS,
    Branch,
    Catalogue,
    CatalogueError,
    Family,
    ModelSpec,
    Precision,
    accelerated,
    accelerator_in,
    assemble,
    branch_of,
    check_labels,
    check_ladder,
    check_table,
    parse,
    prepare_of,
    read_labels,
)
from routing.precision import convertible, preferring, with_fp16

SCHEMA_VERSION = 1
LAYOUTS: Mapping[str, tuple[str, tuple[int | str, ...]]] = {
    "FP32 NCHW": ("FP32", (1, 3, "S", "S")),
    "UINT8 NHWC": ("UINT8", (1, "S", "S", 3)),
}
_TOP_KEYS: Mapping[str, type] = {
    "schema_version": int, "variant": list, "default": dict, "precision": dict, "leave_out": dict, "accelerate": list,
}  # fmt: skip
_VARIANT_KEYS: Mapping[str, type] = {
    "family": str, "name": str, "replace": bool, "labels": object, "dimension": int, "min_short_side": int,
    "prepare": dict, "layout": str, "inputs": list, "output": str, "branch": list,
}  # fmt: skip
_BRANCH_KEYS: Mapping[str, type] = {
    "name": str, "preprocess": str, "tier": str, "size": int, "max_side": int, "model_size": int, "required": bool,
    "when_ready": bool, "layout": str, "inputs": list, "output": str, "accelerator": object,
}  # fmt: skip
_PRECISION_KEYS: Mapping[str, type] = {"fp16": list}
_LEAVE_OUT_KEYS: Mapping[str, type] = {"families": list, "variants": list, "branches": list}
_ACCELERATE_KEYS: Mapping[str, type] = {"branches": list, "accelerator": object}
_MAPPING_KEYS = ("layout", "inputs", "output")
# Ladders of one, two and three sizes.
_TIERS = {1: ("medium",), 2: ("small", "medium"), 3: TIERS}
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# Of a model in somebody's repository: its folder. What routing reads as a size, a tier or a pattern can't be one.
_MODEL = re.compile(r"(?!\.)[\w.@:+ -]{1,200}")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_-]+)["']?\s*[=.]""")
Place = tuple[str | int, ...]


def load(own: Path | None, path: Path = CATALOGUE_PATH, precision: Precision = "fp32") -> Catalogue:
    """Our catalogue with a user's own over it.

    Args:
        own: a TOML file, or a folder of them; None: ours alone.
        path: of ours.
        precision: the one that routing prefers.

    Raises:
        CatalogueError: one makes no sense; the message names the file and the line.
    """
    return preferring(with_sources(() if own is None else read(own), path), precision)


def with_sources(sources: Sequence[Source], path: Path = CATALOGUE_PATH) -> Catalogue:
    """Our catalogue with files over it that have been read already; see `load`."""
    ours = read_document(path)
    catalogue = parse(ours, path.parent / "labels")
    return merge(catalogue, ours, sources) if sources else catalogue


def files_of(own: Path) -> list[Path]:
    """The TOML files of a user's catalogue, in the order of their names."""
    if own.is_dir():
        return sorted(path for path in own.glob("*.toml") if not path.name.startswith("."))
    return [own]


@dataclass(frozen=True)
class Source:
    """One file of a user's catalogue, and where its tables and keys stand.

    `labels` are class names by file, of files beside it that have yet to be written.
    """

    path: Path
    document: Mapping[str, Any]
    lines: Mapping[Place, int]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """`file:line` of a key or a table, or of the nearest one around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines.get(place, 1)}"

    @contextmanager
    def located(self, *place: str | int) -> Iterator[None]:
        """Context manager that adds this place to faults; if the message names a key of the table, the place of that
        key.
        """
        try:
            yield
        except _Located:
            raise
        except CatalogueError as error:
            raise _Located(f"{self.where(self._nearest(place, str(error)))}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            words = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise _Located(f"{self.where(place)}: {words}") from error

    def _nearest(self, place: Place, message: str) -> Place:
        keys = [known for known in self.lines if known[:-1] == place and isinstance(known[-1], str)]
        said = r"(?:^|: |unknown (?:key )?|family \w+, ){}(?::|,| is |$| \w+ isn't| \w+$)"
        return next((key for key in keys if re.search(said.format(re.escape(str(key[-1]))), message)), place)


class _Located(CatalogueError):
    """Error whose message begins with the file and the line."""


def read(own: Path) -> list[Source]:
    """Read a user's catalogue.

    Raises:
        CatalogueError: it isn't there, or a file isn't TOML.
    """
    if not own.exists():
        raise CatalogueError(f"{own}: there is no such file or folder")
    return [_source(path) for path in files_of(own)]


def source_of(path: Path, text: str, labels: Mapping[str, Sequence[str]] | None = None) -> Source:
    """A file of a user's catalogue that may yet have to be written, as `labels` beside it.

    Raises:
        CatalogueError: it isn't TOML.
    """
    try:
        return Source(path, tomllib.loads(text), lines_of(text), labels or {})
    except ValueError as error:  # it says at which line
        found = re.search(r"at line (\d+)", str(error))
        raise _Located(f"{path}:{found[1] if found else text.count(chr(10)) + 1}: {error}") from error


def _source(path: Path) -> Source:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    return source_of(path, text)


def read_document(path: Path) -> Mapping[str, Any]:
    """Our own catalogue as TOML.

    Raises:
        CatalogueError: it can't be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path}: {error}") from error


def lines_of(text: str) -> dict[Place, int]:
    """The line of every table and key that begins one: tables of an array are counted from 0."""
    lines: dict[Place, int] = {}
    table: Place = ()
    quoted = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quoted:
            quoted = "" if quoted in line else quoted
            continue
        header = _HEADER.fullmatch(line)
        if header:
            table = _table_of(lines, header[2], array=header[1] == "[[")
            lines[table] = number
            if isinstance(table[-1], int):
                lines.setdefault(table[:-1], number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, key[1]), number)
        quoted = next((mark for mark in ('"""', "'" * 3) if line.count(mark) == 1), "")
    return lines


def _table_of(lines: Mapping[Place, int], name: str, *, array: bool) -> Place:
    """The place of a table: below an array, in its latest."""
    place: Place = ()
    words = [word.strip().strip("\"'") for word in name.split(".")]
    for position, word in enumerate(words):
        inside = (*place, word)
        count = len({p[len(inside)] for p in lines if p[: len(inside)] == inside and len(p) > len(inside)
                     and isinstance(p[len(inside)], int)})  # fmt: skip
        if position == len(words) - 1 and array:
            return (*inside, count)
        place = (*inside, count - 1) if count else inside
    return place


def merge(catalogue: Catalogue, ours: Mapping[str, Any], sources: Sequence[Source]) -> Catalogue:
    """Put a user's files over our catalogue.

    Args:
        catalogue: ours.
        ours: the document that it was made of.
        sources: the user's files.

    Raises:
        CatalogueError: they make no sense together; the message names the file and the line.
    """
    tables = {table["name"]: table for table in ours["family"]}
    merging = _Merging(dict(catalogue.families), tables)
    for source in sources:
        with source.located():
            check_table(source.document, _TOP_KEYS, "this catalogue")
        with source.located("schema_version"):
            if source.document.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
                raise CatalogueError(f"schema_version must be {SCHEMA_VERSION}")
        for number, table in enumerate(source.document.get("variant", ())):
            with source.located("variant", number):
                merging.add(source, number, table)
    for source in sources:
        for family, variant in source.document.get("default", {}).items():
            with source.located("default", family):
                merging.prefer(family, variant)
    for source in sources:
        with source.located("precision"):
            check_table(table := source.document.get("precision", {}), _PRECISION_KEYS, "precision")
            merging.in_fp16(table.get("fp16", ()))
    for source in sources:
        with source.located("leave_out"):
            merging.leave_out(source, source.document.get("leave_out", {}))
    for source in sources:
        for number, table in enumerate(source.document.get("accelerate", ())):
            with source.located("accelerate", number):
                merging.accelerate(table)
    return assemble(merging.families)


@dataclass
class _Merging:
    """The families as they become, and which file each own variant is from."""

    families: dict[str, Family]
    tables: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        self._from: dict[tuple[str, str], str] = {}

    def add(self, source: Source, number: int, table: Any) -> None:
        """A variant of a family."""
        check_table(table, _VARIANT_KEYS, "a variant")
        family, name = self._family(table["family"]), table["name"]
        known = (family.name, name)
        if known in self._from:
            raise CatalogueError(f"name: {family.name} has a variant {name} already, at {self._from[known]}")
        if not _VARIANT.fullmatch(name):
            raise CatalogueError(f"name: {name[:80]!r} isn't 1 to 64 letters, digits and _ . -")
        there = (None,) if name == STANDARD and not family.variants else family.named(name)
        replaced = table.get("replace", False)
        if there and not replaced:
            raise CatalogueError(
                f"name: {family.name} has a variant {name}; say replace = true to replace it"
            )
        if not there and (replaced or name == STANDARD):
            raise CatalogueError(f"name: {family.name} has no variant {name} that could be replaced")
        self._from[known] = source.where(("variant", number))
        variant = there[0] if there else name
        kept = tuple(branch for branch in family.branches if not there or branch.variant != variant)
        taken = self._taken({**self.families, family.name: replace(family, branches=kept)})
        fresh = tuple(_Variant(source, number, self.tables[family.name], table, variant).branches(taken))
        self._check_ladder(source, number, fresh)
        names = family.variants if there else (*family.variants, name)
        branches = _in_order((*kept, *fresh), names)
        self.families[family.name] = replace(family, branches=branches, variants=names)

    @staticmethod
    def _check_ladder(source: Source, number: int, branches: tuple[Branch, ...]) -> None:
        """Tell a ladder's fault at the branch that it names."""
        try:
            check_ladder(branches[0].family, branches)
        except CatalogueError as error:
            rows = source.document["variant"][number]["branch"]
            named = [place for place, row in enumerate(rows) if row["name"] in str(error)]
            with source.located("variant", number, "branch", *named[-1:]):
                raise

    def prefer(self, family: str, variant: Any) -> None:
        """A family's default variant."""
        found = self._family(family)
        named = found.named(variant) if isinstance(variant, str) else ()
        if not named:
            known = ", ".join(found.variant_names) or "none"
            raise CatalogueError(f"{family} has no variant {str(variant)[:80]!r}; it has {known}")
        self.families[family] = replace(found, default_variant=named[0])

    def in_fp16(self, patterns: Sequence[Any]) -> None:
        """Add FP16 branches beside those that shell patterns name."""
        branches = (branch for family in self.families.values() for branch in family.branches)
        names = [branch.name for branch in branches if convertible(branch)]
        for pattern in patterns:
            if not isinstance(pattern, str) or not fnmatch.filter(names, pattern):
                raise CatalogueError(f"fp16: no branch that is built here is called {str(pattern)[:80]!r}")
        for name, family in self.families.items():
            self.families[name] = with_fp16(
                family, lambda branch: any(fnmatch.fnmatchcase(branch.name, pattern) for pattern in patterns)
            )

    def leave_out(self, source: Source, table: Mapping[str, Any]) -> None:
        """Return the names that are left out."""
        check_table(table, _LEAVE_OUT_KEYS, "leave_out")
        outs: dict[str, Callable[[Branch, str], bool]] = {
            "families": lambda branch, word: branch.family == word,
            "variants": lambda branch, word: (branch.variant or STANDARD) == word,
            "branches": lambda branch, word: fnmatch.fnmatchcase(branch.name, word),
        }
        for key, words in table.items():
            for word in words:
                with source.located("leave_out", key):
                    self._drop(key, word, outs[key])

    def _drop(self, key: str, word: Any, out: Callable[[Branch, str], bool]) -> None:
        every = [branch for family in self.families.values() for branch in family.branches]
        if not isinstance(word, str) or not any(out(branch, word) for branch in every):
            raise CatalogueError(f"{key}: there is no {str(word)[:80]!r} that could be left out")
        for name, family in self.families.items():
            left = tuple(branch for branch in family.branches if not out(branch, word))
            if left != family.branches:
                self.families[name] = _without(family, left)

    def accelerate(self, table: Any) -> None:
        """Give branches an accelerator."""
        check_table(table, _ACCELERATE_KEYS, "accelerate")
        for key in _ACCELERATE_KEYS:
            if not table.get(key):
                raise CatalogueError(
                    f"{key}: is missing; [[accelerate]] says which branches run on which accelerator"
                )
        accelerator = accelerator_in(table, "accelerate")
        for pattern in table["branches"]:
            self._accelerate(pattern, accelerator)

    def _accelerate(self, pattern: Any, accelerator: Accelerator | None) -> None:
        every = [
            one
            for family in self.families.values()
            for branch in family.branches
            for one in (branch, branch.alternate)
            if one is not None
        ]
        named = [b for b in every if isinstance(pattern, str) and fnmatch.fnmatchcase(b.name, pattern)]
        ours = {branch.name for branch in named if not branch.models[-1].mapped}
        if not ours:
            why = "its config.pbtxt is written by others" if named else "there is no such branch"
            raise CatalogueError(f"branches: {str(pattern)[:80]!r} can't be accelerated: {why}")
        for name, family in self.families.items():
            branches = tuple(_accelerated(branch, ours, accelerator) for branch in family.branches)
            self.families[name] = replace(family, branches=branches)

    def _family(self, name: str) -> Family:
        if name not in self.families:
            raise CatalogueError(
                f"family: there is no family {name[:80]!r}; there are {', '.join(self.families)}"
            )
        return self.families[name]

    @staticmethod
    def _taken(families: Mapping[str, Family]) -> dict[str, str]:
        """The names of models, and whose each is."""
        return {
            model.name: f"{family.name}'s {branch.name}"
            for family in families.values()
            for branch in family.every_branch
            for model in branch.models
        }


def _accelerated(branch: Branch, names: set[str], accelerator: Accelerator | None) -> Branch:
    """The branch with the accelerator, and its alternate, as far as the names have them."""
    other = branch.alternate
    if other is not None and other.name in names:
        branch = replace(branch, alternate=accelerated(other, accelerator))
    return accelerated(branch, accelerator) if branch.name in names else branch


def _in_order(branches: Sequence[Branch], variants: Sequence[str]) -> tuple[Branch, ...]:
    places = {name: place for place, name in enumerate(variants)}
    return tuple(sorted(branches, key=lambda branch: places.get(branch.variant or "", -1)))


def _without(family: Family, left: tuple[Branch, ...]) -> Family:
    """The family with fewer branches: each ladder that is left must still serve every frame."""
    branches: list[Branch] = []
    for _, group in itertools.groupby(left, key=lambda branch: branch.variant):
        ladder = list(group)
        ladder[0] = replace(ladder[0], when_ready=False)
        ladder[-1] = replace(ladder[-1], max_side=None)
        branches += ladder
    there = [branch.variant for branch in branches]
    variants = tuple(name for name in family.variants if name in there)
    default = family.default_variant if family.default_variant in there else next(iter(there), None)
    return replace(family, branches=tuple(branches), variants=variants, default_variant=default)


@dataclass(frozen=True)
class _Variant:
    """One `[[variant]]` over the table of its family."""

    source: Source
    number: int
    family: Mapping[str, Any]
    table: Mapping[str, Any]
    variant: str | None

    def branches(self, taken: Mapping[str, str]) -> Iterator[Branch]:
        """Its branches; `taken` says whose the names of other models are."""
        (labels, described), name = self._labels(), self.family["name"]
        table, taken = self._effective(), dict(taken)
        for number, row in self._rows():
            with self.source.located("variant", self.number, "branch", number):
                self._check_name(row, taken)
                mapped = "layout" in {**self.table, **row}
                if mapped and "accelerator" in row:
                    raise CatalogueError("accelerator: its config.pbtxt is written by others")
                branch = branch_of(*self._mapped(table, row), self.variant, labels)
                branch = _described(branch, described, mapped=mapped)
                self._check_models(branch, taken)
                taken |= {model.name: f"{name}'s {branch.name}" for model in branch.models}
                yield branch

    def _labels(self) -> tuple[tuple[str, ...], str]:
        """The class names, and where they are from, in words."""
        given = self.table.get("labels")
        if given is None:
            if "labels" in self.family:
                raise CatalogueError(
                    f"labels: a variant of {self.family['name']} says its class names: a file beside this one"
                    ", or a list"
                )
            return (), ""
        with self.source.located("variant", self.number, "labels"):
            if "labels" not in self.family:
                raise CatalogueError(f"labels: {self.family['name']} has no classes")
            if isinstance(given, str):
                labels = tuple(self.source.labels.get(given, ())) or read_labels(
                    self.source.path.parent, given
                )
                check_labels(labels, given)
                return labels, f"labels {given} names {len(labels)} classes"
            if not isinstance(given, list):
                raise CatalogueError("labels: the name of a file, or a list of names")
            check_labels(given, "of this list")
            return tuple(given), f"labels of {self.source.path.name} names {len(given)} classes"

    def _effective(self) -> dict[str, Any]:
        table = dict(self.family)
        if "prepare" in self.table:
            with self.source.located("variant", self.number, "prepare"):
                if "prepare" not in self.family:
                    raise CatalogueError(f"prepare: {self.family['name']} takes no frames")
                table["prepare"] = {**self.family["prepare"], **self.table["prepare"]}
                prepare = prepare_of(self.family["name"], table["prepare"])
                if prepare is not None and prepare.fit != self.family["prepare"]["fit"]:
                    _check_fit(self.family["prepare"]["fit"], prepare.fit)
                if table["prepare"] != self.family["prepare"]:
                    table.pop("compact", None)  # that graph prepares as ours does
        table.update({key: self.table[key] for key in ("min_short_side", "dimension") if key in self.table})
        for key in ("min_short_side", "dimension"):
            if table.get(key, 1) < 1:
                raise CatalogueError(f"{key}: is positive")
        if "dimension" in self.table and "dimension" not in self.family:
            raise CatalogueError(f"dimension: {self.family['name']} answers no embeddings")
        return table

    def _rows(self) -> list[tuple[int, dict[str, Any]]]:
        """The tables of its branches from small to large, each with its number in the file."""
        given = self.table.get("branch")
        if not given:
            raise CatalogueError("branch: a variant has at least one, see [[variant.branch]]")
        for number, row in enumerate(given):
            with self.source.located("variant", self.number, "branch", number):
                check_table(row, _BRANCH_KEYS, "a branch")
                if "name" not in row:
                    raise CatalogueError("a branch has the name of its model")
                if "size" not in row and self.family.get("prepare") is not None:
                    raise CatalogueError("a branch has a size: the side of its square in pixels")
        rows: list[tuple[int, dict[str, Any]]] = [
            (number, {"required": False, **row}) for number, row in enumerate(given)
        ]
        rows.sort(key=lambda numbered: numbered[1].get("size", 0))
        if self.family.get("prepare") is not None and not any("tier" in row for _, row in rows):
            if len(rows) > len(TIERS):
                raise CatalogueError(f"branch: a variant has at most {len(TIERS)} sizes")
            for (_, row), tier in zip(rows, _TIERS[len(rows)], strict=True):
                row["tier"] = tier
        if not any("max_side" in row for _, row in rows):
            for _, row in rows[:-1]:
                row["max_side"] = row.get("size", 1)
        return rows

    def _check_name(self, row: Mapping[str, Any], taken: Mapping[str, str]) -> None:
        name = row["name"]
        if not _MODEL.fullmatch(name) or name.isdecimal() or name in TIERS:
            raise CatalogueError(
                f"name: {name[:80]!r} can't be a branch: it is the name of a model, no number and no tier"
            )
        if name in taken:
            raise CatalogueError(f"name: {name} is a model of {taken[name]} already")
        size = row.get("size")
        if size is not None and self.family["name"] == "detect" and size % 32:
            raise CatalogueError(f"size: {size} is no multiple of 32")

    @staticmethod
    def _check_models(branch: Branch, taken: Mapping[str, str]) -> None:
        shared = branch.compact.models[1].name if branch.compact is not None else None
        for model in (*branch.models, *(branch.compact.models if branch.compact is not None else ())):
            if model.name in taken and model.name != shared:
                raise CatalogueError(f"name: {model.name} is a model of {taken[model.name]} already")

    def _mapped(self, table: Mapping[str, Any], row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The family's table and the row, with the tensors as this model has them."""
        said = {key: value for key, value in (*self.table.items(), *row.items()) if key in _MAPPING_KEYS}
        own = {**table, "input": [*table["input"]], "output": [*table["output"]]}
        if "layout" in said:
            if said["layout"] not in LAYOUTS or self.family.get("prepare") is None:
                raise CatalogueError(f"layout: is one of {', '.join(LAYOUTS)}, of a model that takes frames")
            datatype, shape = LAYOUTS[said["layout"]]
            own["input"] = [
                {"name": tensor["name"], "datatype": datatype, "shape": list(shape)}
                for tensor in own["input"]
            ]
            own["ensemble"] = False
            own.pop("compact", None)
        if "inputs" in said:
            names = said["inputs"]
            if len(names) != len(own["input"]) or not all(isinstance(name, str) and name for name in names):
                raise CatalogueError(
                    f"inputs: names {len(own['input'])} tensors, as {table['name']} has them"
                )
            own["input"] = [{**t, "name": name} for t, name in zip(own["input"], names, strict=True)]
        if "output" in said:
            own["output"] = [{**own["output"][0], "name": said["output"]}]
        return own, {key: value for key, value in row.items() if key not in _MAPPING_KEYS}


def _check_fit(ours: str, fit: str) -> None:
    """A map covers the whole frame, boxes need its aspect ratio: only what is cropped may be stretched as well."""
    if {ours, fit} != {"crop", "stretch"} or ours == "stretch":
        raise CatalogueError(f"fit: {fit} can't take the place of {ours}")


def _described(branch: Branch, classes: str, *, mapped: bool) -> Branch:
    """An own branch: where its number of classes is from, and if others made it."""

    def own(model: ModelSpec) -> ModelSpec:
        counted = model.kind != "preprocess" and classes
        return replace(model, classes=classes if counted else "", mapped=mapped)

    models = tuple(map(own, branch.models))
    compact = branch.compact
    if compact is not None:
        parts = (own(compact.models[0]), compact.models[1], *models)
        compact = replace(compact, models=parts, own=True)
    return replace(branch, models=models, compact=compact, own=True)
