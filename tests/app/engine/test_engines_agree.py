"""The same input gives the same numbers whatever way it takes."""

from __future__ import annotations

import numpy as np
import pytest
from support.engines import Make
from support.repository import CATALOGUE

from app.engine.base import Deadline

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("name", ["yolo11n_640", "midas_256"])
def test_tensors_are_equal_to_the_bit(make: Make, name: str) -> None:
    """Shared memory, bytes and the embedded engine answer identical bits, for a model and for an ensemble."""
    branch = CATALOGUE.branches[name]
    rng = np.random.default_rng(7)
    spec = branch.inputs[0]
    data = rng.random(spec.shape, np.float32) if spec.datatype == "FP32" else rng.integers(0, 256, spec.shape)
    answers = {}
    for kind in ("shared_memory", "bytes", "embedded"):
        with make(kind).lease(branch, Deadline.after(20)) as lease:
            lease.inputs[spec.name][...] = data
            lease.run(Deadline.after(20))
            answers[kind] = lease.outputs[branch.outputs[0].name].tobytes()
    assert answers["shared_memory"] == answers["bytes"]
    assert answers["shared_memory"] == answers["embedded"]
