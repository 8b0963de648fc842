"""Tensors that aren't what the catalogue says: an error by every transport, never the values of an earlier run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.models import repository as test_repository
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE
from support.models.shaped import Shaped
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.engine.triton.engine import TritonEngine
from app.errors import InferenceFailed
from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton
BRANCH = CATALOGUE.branches["yolo11n_320"]
RIGHT = ("output0", "float32", [1, 84, 2100], 5.0)
WRONG = {
    "smaller": (("output0", "float32", [1, 84, 2000], 7.0), "FP32 [1, 84, 2000]"),
    "larger": (("output0", "float32", [1, 84, 2101], 7.0), ""),  # Triton's own words: it doesn't fit
    "empty": (("output0", "float32", [1, 84, 0], 7.0), "FP32 [1, 84, 0]"),
    "transposed": (("output0", "float32", [1, 2100, 84], 7.0), "FP32 [1, 2100, 84]"),
    "other type": (("output0", "int32", [1, 84, 2100], 7.0), "INT32"),
    "flat": (("output0", "float32", [84 * 2100], 7.0), "FP32 [176400]"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shaped, str]]:
    """A model that answers what it is told, and the address of the Triton that serves it."""
    models = test_repository.build(tmp_path_factory.mktemp("models"), [BRANCH.name])
    model = Shaped(models, BRANCH.name)
    model.answers(RIGHT)
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log", load=[BRANCH.name]) as triton:
        yield model, triton.grpc_url
        triton.kill()


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
@pytest.mark.parametrize("wrong", list(WRONG))
def test_an_output_of_another_shape_is_an_error(
    served: tuple[Shaped, str], transport: str, wrong: str
) -> None:
    """The run fails with the shape that came and the one that was expected; the next right one is answered."""
    model, url = served
    row, words = WRONG[wrong]
    model.answers(RIGHT)
    engine = triton_engine(url, leases=1, transport=transport)
    try:
        assert run(engine) == 5.0
        model.answers(row)
        with pytest.raises(InferenceFailed) as failure:
            run(engine)
        assert words in failure.value.detail
        model.answers(RIGHT)
        assert run(engine) == 5.0
    finally:
        engine.close()


def run(engine: TritonEngine) -> float:
    """One run: the value of every element."""
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))
        values = np.unique(lease.outputs["output0"])
        assert len(values) == 1
        return float(values[0])
