"""`GET /v1/branches` says how a frame becomes a tensor, in the catalogue's words."""

from __future__ import annotations

from typing import Any

import pytest

from app.api.routes.clip import ImageQuery, SimilarityQuery
from app.api.routes.places import PlacesQuery
from app.engine.fake import FakeEngine
from app.pipelines import inventory
from app.pipelines.base import Router
from routing import catalogue as catalogues
from routing.policy import Wishes

CATALOGUE = catalogues.load()


def _families(variant: str | None = None) -> dict[str, dict[str, Any]]:
    router = Router(CATALOGUE, FakeEngine(CATALOGUE, {}), variant)
    return {family["name"]: family for family in inventory.branches(router, None, Wishes())["families"]}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("detect", {"fit": "letterbox", "fits": ["letterbox"], "interpolation": "linear", "pad": 114}),
        ("depth", {"fit": "stretch", "fits": ["stretch"], "interpolation": "bicubic"}),
        ("flow", {"fit": "stretch", "fits": ["stretch"], "interpolation": "linear"}),
        ("clip_image", {"fit": "crop", "fits": ["crop", "stretch"], "interpolation": "bicubic", "crop_ratio": 1.0}),
        ("places", {"fit": "crop", "fits": ["crop", "stretch"], "interpolation": "linear", "crop_ratio": 0.875}),
    ],
)  # fmt: skip
def test_the_rule_of_each_family_is_told(family: str, expected: dict[str, Any]) -> None:
    """Fit, resampling, part of the shorter side, normalisation; text has none."""
    told = _families()[family]["prepare"]
    assert {key: told[key] for key in expected} == expected
    prepare = CATALOGUE[family].prepare
    assert prepare is not None
    assert (told["scale"], tuple(told["mean"]), tuple(told["std"])) == (
        prepare.scale,
        prepare.mean,
        prepare.std,
    )
    assert _families()["clip_text"]["prepare"] is None


@pytest.mark.parametrize(
    ("family", "query"),
    [("clip_image", ImageQuery), ("clip_image", SimilarityQuery), ("places", PlacesQuery)],
)
def test_what_may_be_asked_for_is_what_the_routes_take(family: str, query: Any) -> None:
    """The routes' `fit` has the values that the catalogue lists."""
    (named, _) = query.model_json_schema()["properties"]["fit"]["anyOf"]
    assert named["enum"] == _families()[family]["prepare"]["fits"]


def test_a_side_that_the_model_sees_otherwise_is_told() -> None:
    """CLIP at 336 sees 320: no multiple of the patch would lose pixels silently."""
    rows = {row["name"]: row for row in _families()["clip_image"]["branches"]}
    assert {name: row["model_size"] for name, row in rows.items()} == {
        "clip_image_224": None,
        "clip_image_336": 320,
        "clip_image_448": None,
    }


def test_variants_are_each_family_s_own() -> None:
    """Detection's setting changes its default alone."""
    defaults = {name: family["default_variant"] for name, family in _families("n").items()}
    assert defaults == {**dict.fromkeys(CATALOGUE.families), "detect": "n", "flow": "small"}
