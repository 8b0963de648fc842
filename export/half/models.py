"""FP16 branches of FP32 models that are built: convert, compare, publish, and name them in the catalogue."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from export import build, manifest, repository
from export.artifacts import write_atomic
from export.errors import ExportError
from export.graphs import check_contract
from export.half import conversion
from export.half.rounding import rounded
from export.plan import Places
from export.yolo11.pictures import scene
from routing import overlay
from routing.catalogue import Branch, Catalogue, CatalogueError, ModelSpec, TensorSpec, with_twins
from routing.precision import convertible, in_fp16
from routing.versions import served_folder

FILE = "fp16.toml"
MARK = (
    "# Written by `make models PRECISION=fp16`: these branches also exist in half precision, as <name>_fp16."
)
# The least cosine between the FP16 and the FP32 answers to two inputs.
LEAST_COSINE = 0.99
_BEGIN, _END = 49406, 49407  # of CLIP's token ids
_SHIFT = 4  # pixels between the two pictures of a pair

Array = npt.NDArray[np.generic]


def models(branches: Sequence[Branch], places: Places, catalogue_folder: Path) -> int:
    """Make the FP16 models of FP32 branches that may have some; the number of those that failed.

    The catalogue names a branch as soon as its models are there.

    Raises:
        ExportError: the catalogue can't be extended, so nothing was made.
    """
    wanted = [branch for branch in branches if convertible(branch)]
    listed = Listed(catalogue_folder)
    catalogue = listed.catalogue([branch.name for branch in wanted])
    if left_out := [branch.name for branch in wanted if in_fp16(branch).name not in catalogue.branches]:
        print(f"left out by {catalogue_folder}: {', '.join(left_out)}")
        wanted = [branch for branch in wanted if branch.name not in left_out]
    width = max((len(in_fp16(branch).weights_model) for branch in wanted), default=0)
    failed = 0
    for number, branch in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {in_fp16(branch).weights_model:<{width}}  ", end="", flush=True)
        try:
            said = model(branch, catalogue, places)
        except ExportError as error:
            failed += 1
            print("FAILED", flush=True)
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            listed.add(branch.name)
            print(said, flush=True)
    manifest.write_manifest(places.repository, places.manifest)
    return failed


def model(branch: Branch, catalogue: Catalogue, places: Places) -> str:
    """Make the FP16 branch of one FP32 branch, unless it is there; words for the line of progress.

    Raises:
        ExportError: the FP32 model isn't there, or can't be converted.
    """
    wanted = in_fp16(branch)
    source = manifest.read(branch.weights_model, places.repository)
    if source is None:
        raise ExportError(f"{branch.weights_model} is not built in {places.repository}; build it first")
    exporter = {**source.provenance.exporter, "fp16": conversion.REVISION}
    provenance = replace(source.provenance, exporter=exporter, precision="fp16")
    there = manifest.read(wanted.weights_model, places.repository)
    _configure(wanted, catalogue, places)
    if there is not None and there.provenance == provenance:
        return f"is there, {there.digest}"
    began = time.perf_counter()
    content = converted(branch, places.repository)
    optimized = places.optimized(catalogue[branch.family].folder, wanted.weights_model)
    size = len(content)
    content, shared = build.share(content, optimized.parent)
    write_atomic(optimized, content)
    record = manifest.publish(
        wanted.weights_model,
        optimized,
        places.repository,
        provenance,
        _labels(branch, places.repository),
        shared,
    )
    return f"converted, {size / 1e6:.1f} MB in {time.perf_counter() - began:.1f} s, {record.digest}"


def converted(branch: Branch, models_folder: Path) -> bytes:
    """The FP16 graph of an FP32 branch that is built, compared with it on two inputs as a GPU would compute it.

    Raises:
        ExportError: it can't be converted, or the two answer differently.
    """
    spec, name = branch.models[-1], in_fp16(branch).weights_model
    single = read(served_folder(models_folder / spec.name) / "model.onnx")
    try:
        made = conversion.convert(single)
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from error
    check_contract(made, spec, None)
    content = bytes(made.SerializeToString(deterministic=True))
    feeds = [feed(spec, seed) for seed in (1, 2)]
    pairs = zip(
        run(single.SerializeToString(), feeds), run(rounded(made).SerializeToString(), feeds), strict=True
    )
    for expected, answer in pairs:
        if not np.isfinite(answer).all():
            raise ExportError(
                f"{name}: the FP16 answer isn't finite: these weights need more than FP16's range"
            )
        if not (found := cosine(expected, answer)) >= LEAST_COSINE:
            raise ExportError(f"{name}: the FP16 answer differs: its cosine with the FP32 one is {found:.4f}")
    return content


def read(path: Path) -> onnx.ModelProto:
    """A graph with its weights, wherever they lie.

    Raises:
        ExportError: a file can't be read.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _inline(tensor, path.parent)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{path} can't be read: {error}") from error
    return model


def _inline(tensor: onnx.TensorProto, folder: Path) -> None:
    place = {entry.key: entry.value for entry in tensor.external_data}
    with (folder / Path(place["location"]).name).open("rb") as file:
        file.seek(int(place.get("offset", "0")))
        tensor.raw_data = file.read(int(place["length"]))
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def feed(spec: ModelSpec, seed: int) -> dict[str, Array]:
    """Made-up inputs of a model with weights: token ids, or normalised pictures (a pair is shifted)."""
    return {tensor.name: _input(tensor, seed, place) for place, tensor in enumerate(spec.inputs)}


def _input(tensor: TensorSpec, seed: int, place: int) -> Array:
    if tensor.datatype == "INT64":
        ids = np.random.default_rng(seed).integers(1, _BEGIN, tensor.shape, np.int64)
        ids[:, 0], ids[:, 20:] = _BEGIN, _END
        return ids
    picture = scene(seed, tensor.shape[-1])
    return np.roll(2 * picture - 1, place * _SHIFT, axis=3)


def run(content: bytes, feeds: Sequence[dict[str, Array]]) -> list[Array]:
    """ONNX Runtime's first output for each input; the graph is computed node by node, as it stands.

    Raises:
        ExportError: it can't run the graph.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return [session.run(None, inputs)[0] for inputs in feeds]
    except Exception as error:  # ONNX Runtime's errors have no class of their own
        raise ExportError(f"ONNX Runtime can't run the graph: {error}") from error


def cosine(expected: Array, answer: Array) -> float:
    """Cosine of the angle between two tensors; NaN if one is zero everywhere or isn't finite."""
    first, second = (np.asarray(array, np.float64).reshape(-1) for array in (expected, answer))
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _configure(wanted: Branch, catalogue: Catalogue, places: Places) -> None:
    texts = repository.configs(catalogue)
    names = [spec.name for branch in with_twins([wanted]) for spec in branch.models]
    repository.write_configs({name: texts[name] for name in names}, places.repository)
    for name in names:
        served_folder(places.repository / name).mkdir(parents=True, exist_ok=True)


def _labels(branch: Branch, models_folder: Path) -> tuple[str, ...]:
    """The class names that the FP32 model has."""
    file = served_folder(models_folder / branch.weights_model) / manifest.LABELS_FILE
    return tuple(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else branch.labels


@dataclass(frozen=True)
class Listed:
    """The catalogue's file that names the branches with an FP16 one."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / FILE

    @cached_property
    def _others(self) -> list[overlay.Source]:
        """The other files of the catalogue.

        Raises:
            ExportError: there can't be a file here, or one of them can't be read.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ExportError(
                f"{self.folder} is a file: FP16 branches are listed in a folder (GATEWAY_CATALOGUE), or by hand, "
                "see docs/own-models.md"
            )
        if self.file.is_file() and not self.file.read_text(encoding="utf-8", errors="replace").startswith(
            MARK
        ):
            raise ExportError(f"{self.file} was written by hand; rename it")
        try:
            sources = overlay.read(self.folder) if self.folder.exists() else []
        except CatalogueError as error:
            raise ExportError(str(error)) from error
        return [source for source in sources if source.path != self.file]

    def names(self) -> list[str]:
        """The branches in the file."""
        if not self.file.is_file():
            return []
        source = overlay.source_of(self.file, self.file.read_text(encoding="utf-8"))
        return [str(name) for name in source.document.get("precision", {}).get("fp16", ())]

    def catalogue(self, names: Sequence[str]) -> Catalogue:
        """The catalogue as it is with these branches in FP16, too.

        Raises:
            ExportError: they don't go together.
        """
        try:
            every = list(dict.fromkeys([*self.names(), *names]))
            return overlay.with_sources([*self._others, overlay.source_of(self.file, _text(every))])
        except CatalogueError as error:
            raise ExportError(str(error)) from error

    def add(self, name: str) -> None:
        names = self.names()
        if name not in names:
            write_atomic(self.file, _text([*names, name]).encode())


def _text(names: Sequence[str]) -> str:
    lines = "".join(f'  "{name}",\n' for name in names)
    return f"{MARK}\n[precision]\nfp16 = [\n{lines}]\n"
