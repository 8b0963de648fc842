"""Failures of gRPC and Triton translated into the project's errors."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import pytest

from app.engine.triton.client import RegionLost, TritonClient, _translate, translated_errors
from app.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InsufficientGpuMemory,
    ModelNotReady,
    Overloaded,
    TritonUnavailable,
)

# Every code with what it means here. A code that gRPC adds stands not in this table until somebody has thought of it.
MEANINGS: Mapping[str, type[Exception]] = {
    "OK": InferenceFailed,  # never the code of an error; were it one, nothing better could be said
    "CANCELLED": TritonUnavailable,
    "UNKNOWN": InferenceFailed,
    "INVALID_ARGUMENT": InferenceFailed,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": ModelNotReady,
    "ALREADY_EXISTS": InferenceFailed,
    "PERMISSION_DENIED": InferenceFailed,
    "UNAUTHENTICATED": InferenceFailed,
    "RESOURCE_EXHAUSTED": Overloaded,
    "FAILED_PRECONDITION": InferenceFailed,
    "ABORTED": InferenceFailed,
    "OUT_OF_RANGE": InferenceFailed,
    "UNIMPLEMENTED": InferenceFailed,
    "INTERNAL": InferenceFailed,
    "UNAVAILABLE": TritonUnavailable,
    "DATA_LOSS": InferenceFailed,
}


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_grpc_status_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    """Each code has the meaning that the table gives it; one that gRPC grows fails here until it has one."""
    error = _translate("yolo11n_320", code, "words of the server")
    assert type(error) is MEANINGS[code.name]
    if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        assert str(error) == "yolo11n_320: words of the server"


def test_a_deadline_that_grpc_reports_ran_out_while_inferring() -> None:
    """The stage is named, as for every deadline."""
    error = _translate("yolo11n_320", grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert isinstance(error, DeadlineExceeded)
    assert error.stage == "infer"


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL], ids=lambda code: code.name
)
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Request for unknown model: 'x' is not found", ModelNotReady),
        ("Request for unknown model: 'x' has no available versions", ModelNotReady),
        ("Inference request for unknown model 'x' is not at ready state", ModelNotReady),
        ("Unable to find shared memory region: 'r'", RegionLost),
        ("Unable to open shared memory region: '/r'", RegionLost),
        ("Cannot unregister shared memory region 'r', it is currently in use.", RegionLost),
        ("Failed to allocate memory for requested buffer of size 1", InsufficientGpuMemory),
        ("CUDA failure 2: out of memory ; GPU=0", InsufficientGpuMemory),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", InsufficientGpuMemory),
        ("CUDNN_STATUS_ALLOC_FAILED", InsufficientGpuMemory),
    ],
)
def test_triton_s_words_come_before_grpc_s_codes(
    words: str, kind: type[Exception], code: grpc.StatusCode
) -> None:
    """One status stands for several failures; the text tells them apart."""
    assert type(_translate("x", code, words)) is kind


def test_a_server_that_nobody_listens_for_is_unavailable() -> None:
    """The real gRPC's refusal of a connection, and its complaint of a closed channel, are the same to a caller."""
    client = TritonClient("127.0.0.1:1", control_timeout_s=5)
    with pytest.raises(TritonUnavailable):
        client.index()
    client.close()
    with pytest.raises(TritonUnavailable, match="closed"):
        client.index()


def test_what_is_no_failure_of_the_backend_passes() -> None:
    """A bug stays a bug: it isn't dressed up as an answer of Triton's."""
    with pytest.raises(ZeroDivisionError), translated_errors("x"):
        raise ZeroDivisionError
