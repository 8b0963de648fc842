"""Models of the test repository that run out of memory on demand, in the words of ONNX Runtime and CUDA."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from support.models.repository import CATALOGUE

MODEL = Path(__file__).with_name("exhausted_model.py")
# ONNX Runtime's arena, CUDA through ONNX Runtime, and cuBLAS, as their users quote them.
ARENA = (
    "Non-zero status code returned while running Conv node. Name:'/model.0/conv/Conv' Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 629145600\n"
)
CUDA = (
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=gpu ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_allocator.cc ; line=47 ; expr=cudaMalloc((void**)&p, size); "
)
CUBLAS = (
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=gpu ; file=/onnxruntime_src/onnxruntime/core/"
    "providers/cuda/cuda_call.cc ; line=123 ; expr=cublasCreate(&cublas_handle_); "
)


class Memory:
    """Memory left for one model of a repository, which a test may change; made before the server starts."""

    def __init__(self, repository: Path, model: str) -> None:
        self._folder = repository / model / "memory"
        self._folder.mkdir()
        shutil.copy(MODEL, repository / model / "1" / "model.py")
        config = repository / model / "config.pbtxt"
        text = re.sub('backend: "onnxruntime"', 'backend: "python"', config.read_text())
        config.write_text(re.sub("default_model_filename:.*\n", "", text))

    def runs_out(self, text: str = ARENA) -> None:
        """At the next run, and then at every other until the model is reloaded."""
        self._write("once", text)

    def is_short(self, text: str = ARENA) -> None:
        """At every run, however often it is reloaded, until `is_free`."""
        self._write("always", text)

    def is_too_short_to_load(self, text: str = CUDA) -> None:
        """At every attempt to load it, until `is_free`."""
        self._write("load", text)

    def takes(self, seconds: float) -> None:
        """Every run takes so long."""
        self._write("pause", str(seconds))

    def is_free(self) -> None:
        """Again."""
        for path in self._folder.iterdir():
            path.unlink()

    def _write(self, name: str, text: str) -> None:
        fresh = self._folder / f".{name}"
        fresh.write_text(text)
        fresh.rename(self._folder / name)


def weights_model(branch: str) -> str:
    """The model of a branch that holds its weights."""
    return CATALOGUE.branches[branch].weights_model
