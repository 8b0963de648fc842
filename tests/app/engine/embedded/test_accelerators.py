"""Execution providers of the embedded engine on a GPU: which are asked for, and with which options."""

from __future__ import annotations

import pytest

from app.engine.embedded.model import gpu_providers
from routing.accelerators import Accelerator

CUDA = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
THERE = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize("accelerator", [None, Accelerator("openvino"), Accelerator("cuda")])
def test_cuda_runs_models_by_default(accelerator: Accelerator | None) -> None:
    """TensorRT is there and isn't asked for."""
    assert gpu_providers(accelerator, THERE) == [("CUDAExecutionProvider", CUDA), "CPUExecutionProvider"]


def test_tensorrt_goes_first() -> None:
    """CUDA's kernels run the rest of the graph."""
    accelerator = Accelerator("tensorrt", "fp16", 1 << 30, "/cache")
    options = {
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "1073741824",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/cache",
    }
    assert gpu_providers(accelerator, THERE) == [
        ("TensorrtExecutionProvider", options),
        ("CUDAExecutionProvider", CUDA),
        "CPUExecutionProvider",
    ]
    assert gpu_providers(Accelerator("tensorrt"), THERE)[0] == (THERE[0], {"trt_fp16_enable": "0"})


def test_an_installation_without_tensorrt_goes_on() -> None:
    """The branch runs on CUDA, and provenance says so."""
    assert gpu_providers(Accelerator("tensorrt"), THERE[1:]) == gpu_providers(None, THERE)


def test_memory_is_limited() -> None:
    """The arena of a model can't take the card from the others."""
    (_, options), _ = gpu_providers(Accelerator("cuda", memory_limit=1 << 30), THERE)
    assert options == {**CUDA, "gpu_mem_limit": "1073741824"}
