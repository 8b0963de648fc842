"""Sessions of ONNX Runtime over the files of a Triton repository, one per model however many branches run on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from app.engine import model_config
from app.engine.base import Weights
from app.engine.embedded.graph_cache import GraphCache, Source
from app.engine.embedded.model import (
    ContractError,
    Graph,
    open_session,
    runs_on_tensorrt,
    same,
    specs,
    translated_errors,
)
from app.engine.model_files import Stamp, stamp
from app.engine.weights import WeightsBook, files_digest
from routing.catalogue import Branch, ModelSpec
from routing.versions import served_folder


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A session, the digest of its files, the weights that were computed from them, and what these looked like."""

    session: ort.InferenceSession
    digest: str
    weights: Weights
    stamp: Stamp


class Sessions:
    """Opens the models of a branch, and keeps them until they are forgotten. One thread at a time opens.

    Args:
        repository: the folder of the models.
        book: of their weights.
        threads: of one inference; 0: all cores.
        device: `cpu` or `cuda:0`.
        cache: of optimised graphs, if there is one.
    """

    def __init__(
        self, repository: Path, book: WeightsBook, threads: int, device: str, cache: GraphCache | None = None
    ) -> None:
        self._repository = repository
        self._book = book
        self._threads = threads
        self._device = device
        self._cache = cache
        self._digests: dict[tuple[int, ...], str] = {}
        self._loaded: dict[str, _Loaded] = {}

    def graphs(self, branch: Branch, wanted: Mapping[str, Stamp]) -> list[Graph]:
        """Return the branch's models in the order in which a frame meets them, as its config.pbtxt says.

        Args:
            branch: of the catalogue.
            wanted: the stamps of its models' files; a session of other files is opened again.

        Raises:
            ContractError: a model isn't what the catalogue says.
            InsufficientGpuMemory, InferenceFailed: ONNX Runtime can't load one.
            ValueError, OSError: a file can't be read, or has changed meanwhile.
        """
        first = branch.models[0]
        if (
            first.mapped
        ):  # what its makers say of batches and sizes doesn't matter: the graph itself is looked at
            identity = {tensor.name: tensor.name for tensor in (*first.inputs, *first.outputs)}
            return [self._graph(first, wanted, identity, identity)]
        config = self._config(first)
        if not config.steps:
            identity = {tensor.name: tensor.name for tensor in (*config.inputs, *config.outputs)}
            return [self._graph(branch.models[0], wanted, identity, identity)]
        models = {model.name: model for model in branch.models}
        graphs = []
        for step in config.steps:
            if step.model_name not in models:
                raise ContractError(f"{branch.name}: step {step.model_name} is not in the catalogue")
            self._config(models[step.model_name])
            graphs.append(self._graph(models[step.model_name], wanted, step.input_map, step.output_map))
        return graphs

    def forget(self, model: str) -> None:
        """Forget the models; their sessions are closed with the last lease that uses them."""
        self._loaded.pop(model, None)

    def clear(self) -> None:
        """Forget all."""
        self._loaded.clear()

    def _config(self, model: ModelSpec) -> model_config.ModelConfig:
        text = (self._repository / model.name / "config.pbtxt").read_text(encoding="utf-8")
        config = model_config.read(text)
        same(model, "config.pbtxt", config.inputs, model.inputs)
        same(model, "config.pbtxt", config.outputs, model.outputs)
        return config

    def _graph(
        self,
        model: ModelSpec,
        wanted: Mapping[str, Stamp],
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
    ) -> Graph:
        known = self._loaded.get(model.name)
        if known is None or known.stamp != wanted[model.name]:
            known = self._open(model, wanted[model.name])
        return Graph(model.name, known.digest, known.session, model, known.weights, inputs, outputs)

    def _open(self, model: ModelSpec, wanted: Stamp) -> _Loaded:
        folder = served_folder(self._repository / model.name)
        source = Source(
            folder / "model.onnx",
            files_digest(folder, known=self._digests),
            lambda: stamp(folder.parent) == wanted,
        )
        weights = self._book.verified(folder, model.name, source.digest)
        with translated_errors(model.name):
            session = open_session(source, self._threads, self._device, self._cache, model.accelerator)
        if model.accelerator is not None and runs_on_tensorrt(session):
            weights = weights.accelerated("tensorrt", model.accelerator.precision)
        same(model, "model.onnx", specs(session.get_inputs()), model.inputs)
        same(model, "model.onnx", specs(session.get_outputs()), model.outputs)
        if stamp(folder.parent) != wanted:  # the digest may not be that of what was loaded
            raise OSError(f"{model.name}: its files have changed while they were loaded")
        loaded = self._loaded[model.name] = _Loaded(session, source.digest, weights, wanted)
        return loaded
