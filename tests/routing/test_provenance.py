"""Provenance of an answer reads the same a year later."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from routing import catalogue as catalogues
from routing.provenance import ModelUsed, ResizedBy, model_signature, models_used, resolved_model_mapping

CATALOGUE = catalogues.load()
YOLO = ModelUsed("yolo11x_640", "1", "sha256:aa", "pretrained", "triton", "onnx", "fp32", "cuda:0")
DEPTH = ModelUsed("midas_384", "1", "sha256:bb", "random", "triton", "onnx", "fp32", "cuda:0", "sha256:cc")
RESIZED = dataclasses.replace(DEPTH, prepare=ResizedBy("pillow", "13.0.0", "bicubic, antialiased"))


def test_the_signature_of_a_known_list_never_changes() -> None:
    """SHA-256 over the canonical JSON, computed once by hand with sha256sum."""
    canonical = (
        '[{"device":"cuda:0","engine":"onnx","model_name":"yolo11x_640","model_version":"1","precision":"fp32",'
        '"runtime":"triton","weights":"pretrained","weights_digest":"sha256:aa"}]'
    )
    assert f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}" == SIGNATURE
    assert model_signature(models_used([YOLO])) == SIGNATURE


SIGNATURE = "sha256:0cb9c67d65374fcde32ce59a7b2ab74ba5b2eb0d33205975da61345737408f6d"


def test_order_and_repetition_don_t_matter() -> None:
    """The same models give the same list and signature however often and in which order they served."""
    once = models_used([YOLO, DEPTH])
    assert models_used([DEPTH, YOLO, DEPTH]) == once
    assert model_signature(list(reversed(once))) == model_signature(once)


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(ModelUsed) if field.name != "prepare"]
)
def test_every_field_changes_the_signature(name: str) -> None:
    """Another engine, precision, device, version or digest is another signature."""
    other = dataclasses.replace(DEPTH, **{name: "different"})
    assert model_signature(models_used([other])) != model_signature(models_used([DEPTH]))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ResizedBy)])
def test_every_field_of_what_resized_the_input_changes_the_signature(name: str) -> None:
    """Another library, version or filter gives other pixels, and so does decoding at a fraction of the size."""
    assert RESIZED.prepare is not None
    other = dataclasses.replace(RESIZED, prepare=dataclasses.replace(RESIZED.prepare, **{name: "different"}))
    assert model_signature(models_used([other])) != model_signature(models_used([RESIZED]))
    assert model_signature(models_used([RESIZED])) != model_signature(models_used([DEPTH]))


def test_a_model_without_a_preprocess_graph_has_the_contract_s_keys_and_no_other() -> None:
    """The entry is exactly what REQUIREMENTS lists, with the kind of weights."""
    assert set(YOLO.to_dict()) == {
        "model_name", "model_version", "weights_digest", "weights", "runtime", "engine", "precision", "device",
    }  # fmt: skip
    assert set(DEPTH.to_dict()) - set(YOLO.to_dict()) == {"preprocess_digest"}
    assert RESIZED.to_dict() == {
        **DEPTH.to_dict(),
        "prepare": {"library": "pillow", "version": "13.0.0", "filter": "bicubic, antialiased"},
    }


def test_the_mapping_goes_from_component_to_branch() -> None:
    """Image and text of CLIP share a component and both show."""
    pairs = [
        (CATALOGUE[b.family].component, b.name)
        for b in map(CATALOGUE.branches.get, ("midas_384", "clip_text", "clip_image_224"))
        if b
    ]
    assert resolved_model_mapping(pairs) == {
        "core_clip": "clip_image_224+clip_text",
        "core_depth_midas": "midas_384",
    }
