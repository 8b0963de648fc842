"""Networks of one's own that PyTorch exports: a CLIP of another width, other scenes, another flow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from export.errors import ExportError
from export.own.add import add
from export.own.request import Request
from export.plan import Places
from routing import overlay

pytestmark = [
    pytest.mark.export,
    # Parts of the C extensions that torch brings along predate Python's own checks of their type names.
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
]


def _request(folder: Path, weights: Path, family: str, name: str, **more: Any) -> Request:
    return Request(weights, family, name, Places(folder / "models", folder), folder / "catalogue", **more)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP with the widths and patches of ViT-L/14 and two layers, in the hub's layout."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    both = {"intermediate_size": 64, "num_hidden_layers": 2, "projection_dim": 768}
    text = {**both, "hidden_size": 768, "num_attention_heads": 12, "eos_token_id": 49407}
    vision = {**both, "hidden_size": 1024, "num_attention_heads": 16, "image_size": 224, "patch_size": 14}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for layer in model.vision_model.encoder.layers:
            layer.self_attn.v_proj.weight *= 8
    folder: Path = tmp_path_factory.mktemp("hub") / "vit-l-14"
    model.save_pretrained(folder)
    return folder


def test_a_clip_of_another_width_is_a_pair(clip: Path, tmp_path: Path) -> None:
    """Images and text of one name, as wide as the configuration says; a size that patches don't fill is resized."""
    said: list[str] = []
    added = add(_request(tmp_path, clip, "clip", "vit_l_14", sizes=(70, 100)), said.append)
    assert [branch.name for branch, _ in added.branches] == [
        "vit_l_14_image_70", "vit_l_14_image_100", "vit_l_14_text",
    ]  # fmt: skip
    catalogue = overlay.load(tmp_path / "catalogue")
    small, large = catalogue["clip_image"].of_variant("vit_l_14")
    (text,) = catalogue["clip_text"].of_variant("vit_l_14")
    assert (small.model_size, large.model_size) == (None, 98)
    assert (small.outputs[0].shape, text.outputs[0].shape) == ((1, 768), (1, 77, 768))
    for branch in (small, large, text):
        graph = onnx.load(
            str(tmp_path / "models" / branch.weights_model / "1/model.onnx"), load_external_data=False
        )
        assert [d.dim_value for d in graph.graph.output[0].type.tensor_type.shape.dim] == list(
            branch.outputs[0].shape
        )


def test_scenes_have_as_many_names_as_the_checkpoint_has_classes(tmp_path: Path) -> None:
    """Other names than classes are refused, and leave nothing."""
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    torch.manual_seed(0)
    state = torchvision.models.resnet50(num_classes=2).state_dict()
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "rooms.pth.tar"
    )
    (tmp_path / "one.txt").write_text("kitchen\n")
    with pytest.raises(ExportError, match=r"names 1 scenes, but .* has 2"):
        add(
            _request(tmp_path, tmp_path / "rooms.pth.tar", "places", "rooms", labels=tmp_path / "one.txt"),
            print,
        )
    with pytest.raises(ExportError, match="--labels FILE"):
        add(_request(tmp_path, tmp_path / "rooms.pth.tar", "places", "rooms"), print)
    assert not (tmp_path / "catalogue").exists()


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    """Each with its own sentence."""
    pytest.importorskip("torch")
    (tmp_path / "a.onnx").write_bytes(b"")
    (tmp_path / "mine.pth").write_bytes(b"no weights")
    for family, weights, words in (
        ("depth", tmp_path / "a.onnx", "only detect takes ONNX files"),
        ("clip", tmp_path / "mine.pth", "no folder with config.json"),
        ("flow", tmp_path / "mine.pth", "no checkpoint that torch can read"),
        ("places", tmp_path / "mine.pth", "no checkpoint that torch can read"),
    ):
        with pytest.raises(ExportError, match=words):
            add(_request(tmp_path, weights, family, "mine"), print)
