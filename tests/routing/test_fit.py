"""Sums of memory, and the branches that fit: by hand-made estimates, so that every number can be followed."""

from __future__ import annotations

import pytest

from routing import catalogue as catalogues
from routing.accelerators import Accelerator
from routing.catalogue import Branch, accelerated
from routing.fit import Budget, by_priority, plan
from routing.memory import ModelMemory, Need, from_json, lease_bytes, need

CATALOGUE = catalogues.load()
FILE = {"shared-0.bin": 80}


def _known(weights: int = 100, arena: int = 50, workspace: int = 10) -> dict[str, ModelMemory]:
    """The same estimate for every model but those that prepare, which need next to nothing."""
    return {
        name: ModelMemory(0, 1, 1, 0)
        if spec.kind == "preprocess"
        else ModelMemory(weights, 40, arena, workspace, FILE)
        for name, spec in CATALOGUE.models.items()
    }


def _branches(*names: str) -> list[Branch]:
    return [CATALOGUE.branches[name] for name in names]


def test_a_gpu_holds_weights_and_an_arena_per_instance() -> None:
    """Ensembles hold nothing themselves; the graph that prepares counts."""
    models = CATALOGUE.branches["midas_256"].models
    assert need(models, _known()) == Need(100, 51, 10)
    assert need(models, _known(), instances=2) == Need(200, 102, 20)


def test_a_twin_adds_only_the_graph_that_prepares() -> None:
    """It runs on its branch's model."""
    one, twin = _branches("yolo11n_320", "yolo11n_320_uint8")
    alone = need(one.models, _known()).total
    assert need([*one.models, *twin.models], _known()).total == alone + 1


def test_a_processor_holds_common_weights_once_and_one_arena() -> None:
    """Sizes of a network share a file; few branches run at once."""
    models = [spec for branch in _branches("midas_256", "midas_384") for spec in branch.models]
    assert need(models, _known(), "cpu") == Need(20 + 20 + 80, 50, 0)
    assert need(models, _known(), "cpu", 3) == Need(120, 150, 0)
    assert need(models, _known(), "cuda").weights == 200


def test_models_without_an_estimate_are_named() -> None:
    """A sum that lacks one isn't taken for the whole."""
    known = _known()
    del known["midas_256_onnx"]
    assert need(CATALOGUE.branches["midas_256"].models, known).unknown == ("midas_256_onnx",)


@pytest.mark.parametrize(
    ("accelerator", "expected"),
    [
        (Accelerator("tensorrt"), Need(100, 50, 10)),
        (Accelerator("tensorrt", workspace=70), Need(100, 50, 70)),
        (Accelerator("cuda", memory_limit=155), Need(100, 50, 5)),
        (Accelerator("cuda", memory_limit=120), Need(100, 20, 0)),
        (Accelerator("cuda", memory_limit=1000), Need(100, 50, 10)),
    ],
)
def test_options_of_an_accelerator_bound_the_estimate(accelerator: Accelerator, expected: Need) -> None:
    """The workspace of TensorRT is what it may take; a limit of CUDA's arena is not exceeded."""
    branch = accelerated(CATALOGUE.branches["yolo11n_320"], accelerator)
    assert need(branch.models, _known()) == expected


def test_required_branches_go_first_then_small_ones() -> None:
    """A larger branch is of little use without the smaller ones."""
    order = [branch.name for branch in by_priority(CATALOGUE.branches.values()) if branch.twin_of is None]
    assert order[:3] == ["clip_text", "clip_image_224", "places365_resnet50_224"]
    required = [name for name in order if CATALOGUE.branches[name].required]
    assert order[: len(required)] == required
    rest = [CATALOGUE.branches[name].tier for name in order[len(required) :]]
    assert rest == sorted(rest, key=lambda tier: catalogues.TIERS.index(str(tier)))


def test_branches_are_taken_as_long_as_they_fit() -> None:
    """The missing bytes are given, and a smaller branch after that one is still taken."""
    known = _known()
    known["yolo11x_640"] = ModelMemory(400, 40, 50, 10)
    branches = _branches("yolo11x_960", "yolo11x_640", "yolo11x_320", "clip_text")
    made = plan(branches, known, Budget(memory=600, reserve=50, margin=60))
    assert made.budget.usable == 490
    assert [(row.branch.name, row.added, row.missing) for row in made.rows] == [
        ("clip_text", 160, 0),
        ("yolo11x_320", 160, 0),
        ("yolo11x_640", 460, 290),
        ("yolo11x_960", 160, 0),
    ]
    assert [branch.name for branch in made.chosen] == ["clip_text", "yolo11x_320", "yolo11x_960"]
    assert (made.together.total, made.left) == (480, 10)


def test_a_branch_without_an_estimate_is_left_out() -> None:
    """Nobody knows if it fits."""
    made = plan(
        _branches("midas_256", "clip_text"), {"clip_text_onnx": ModelMemory(1, 1, 1, 0)}, Budget(10, 0, 0)
    )
    assert [(row.branch.name, row.fits, row.missing) for row in made.rows] == [
        ("clip_text", True, 0),
        ("midas_256", False, None),
    ]


def test_a_reserve_above_the_memory_leaves_nothing() -> None:
    """Nothing fits, and nothing is negative."""
    made = plan(_branches("clip_text"), _known(), Budget(10, 20, 1))
    assert (made.budget.usable, made.chosen, made.rows[0].missing) == (0, (), 160)


def test_a_lease_holds_inputs_and_outputs() -> None:
    """On the host, whatever runs the model."""
    assert lease_bytes(CATALOGUE.branches["midas_256"]) == 256 * 256 * (3 + 4)


def test_a_record_survives_json() -> None:
    """As the exporter writes it and the gateway reads it."""
    memory = ModelMemory(100, 40, 50, 10, FILE, 2)
    assert from_json(memory.to_json()) == memory
    assert hash(memory) == hash(from_json(memory.to_json()))


@pytest.mark.parametrize(
    "change",
    [
        {"weights_bytes": -1}, {"weights_bytes": "100"}, {"arena_bytes": None}, {"arena_bytes": 1.5},
        {"shared_bytes": []}, {"shared_bytes": {"a": "b"}}, {"unknown_tensors": True},
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_none(change: dict[str, object]) -> None:
    """A note written by hand ends no service."""
    assert from_json({**ModelMemory(100, 40, 50, 10).to_json(), **change}) is None
    assert from_json(None) is None
