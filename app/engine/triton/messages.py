"""The infer request and its answer, as Triton's protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from app.engine.triton.shared_memory import Region
from app.errors import InferenceFailed
from routing.catalogue import Branch, TensorSpec


def timeout_parameter(seconds: float) -> bytes:
    """The request parameter `timeout`, to be appended to a serialised request: so it is never serialised again.

    Protobuf merges messages that are concatenated, entries of maps too. The unit is a microsecond, and 0 would mean no
    limit. Triton 2.51 hands it to every model, to the parts of an ensemble too. It ends its waiting only where a
    model's `config.pbtxt` has a `default_queue_policy` with `allow_timeout_override` and the action REJECT.
    """
    request = pb.ModelInferRequest()
    request.parameters["timeout"].int64_param = max(1, int(seconds * 1e6))
    serialised: bytes = request.SerializeToString()
    return serialised


def by_value_request(branch: Branch) -> Any:
    """The infer request of a branch, without its tensors' contents."""
    return pb.ModelInferRequest(
        model_name=branch.name,
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=s.name, datatype=s.datatype, shape=s.shape)
            for s in branch.inputs
        ],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=s.name) for s in branch.outputs],
    )


def by_reference_request(branch: Branch, region: Region) -> bytes:
    """The serialised infer request whose tensors all lie in `region`."""
    request = by_value_request(branch)
    for tensor in (*request.inputs, *request.outputs):
        slot = region.slots[tensor.name]
        tensor.parameters["shared_memory_region"].string_param = region.name
        tensor.parameters["shared_memory_offset"].int64_param = slot.offset
        tensor.parameters["shared_memory_byte_size"].int64_param = slot.spec.nbytes
    serialised: bytes = request.SerializeToString()
    return serialised


def with_contents(request: Any, inputs: Mapping[str, NDArray[Any]], timeout_s: float) -> bytes:
    """The serialised request with the tensors' bytes in it, and the time that is left for it in seconds."""
    full = pb.ModelInferRequest.FromString(timeout_parameter(timeout_s))
    full.MergeFrom(request)
    full.raw_input_contents.extend(inputs[tensor.name].tobytes() for tensor in full.inputs)
    serialised: bytes = full.SerializeToString()
    return serialised


def read_response(reply: bytes, outputs: Mapping[str, NDArray[Any]], specs: Sequence[TensorSpec]) -> str:
    """Copy a response's tensors into `outputs`; return the version of the model that answered.

    Raises:
        InferenceFailed: a tensor is missing, or isn't what `specs` say.
    """
    response = _parsed(reply)
    _check(response, specs)
    contents = dict(zip((t.name for t in response.outputs), response.raw_output_contents, strict=False))
    for name, target in outputs.items():
        raw = contents.get(name, b"")
        if len(raw) != target.nbytes:
            raise InferenceFailed(f"{name} came back with {len(raw)} bytes, expected {target.nbytes}")
        target[...] = np.frombuffer(raw, dtype=target.dtype).reshape(target.shape)
    version: str = response.model_version
    return version


def check_reference(reply: bytes, specs: Sequence[TensorSpec]) -> str:
    """Check the response of a model that wrote into shared memory; return the version of the model that answered.

    Raises:
        InferenceFailed: a tensor is missing, or isn't what `specs` say: the region would hold values of an earlier run.
    """
    response = _parsed(reply)
    _check(response, specs)
    version: str = response.model_version
    return version


def _parsed(reply: bytes) -> Any:
    try:
        return pb.ModelInferResponse.FromString(reply)
    except DecodeError as error:
        raise InferenceFailed("the answer is no message of the inference protocol") from error


def _check(response: Any, specs: Sequence[TensorSpec]) -> None:
    """Compare type and shape, which give the size: Triton doesn't say how many bytes it wrote into a region."""
    found = {t.name: (t.datatype, tuple(t.shape)) for t in response.outputs}
    for spec in specs:
        if spec.name not in found:
            raise InferenceFailed(f"{spec.name} is missing from the answer")
        if found[spec.name] != (spec.datatype, spec.shape):
            datatype, shape = found[spec.name]
            raise InferenceFailed(
                f"{spec.name} came back as {datatype} {list(shape)}, "
                f"expected {spec.datatype} {list(spec.shape)}"
            )
