"""CLIP ViT-B/32 to ONNX: projected image features at three sizes, and projected features of every text token."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from transformers import CLIPConfig, CLIPModel

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.families import tracing
from export.weights import HUB_CONFIG, SEED, Weights
from routing.catalogue import Branch

OPSET = EXPORTERS["clip_image"].opset
START, END = 49406, 49407  # of text, as OpenAI's tokenizer numbers them
# ViT-B/32 as openai/clip-vit-base-patch32 says it in its config.json; what isn't here decides no shape.
TEXT: dict[str, Any] = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
    "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "projection_dim": 512,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "projection_dim": 512,
}  # fmt: skip
# Torch against ONNX Runtime, of the largest value. Measured: 2e-6.
TOLERANCE = 1e-4
# In random weights. As initialised, the class token hears little of the patches, and all pictures get features
# whose cosine is above 0.98.
_RANDOM_VALUE_GAIN = 8.0
_UNUSED = ".position_ids"  # in the official file: what is in its place is no weight
_OPERATORS_WITHOUT_CUDA = frozenset({"ArgMax"})  # on INT64: REQUIREMENTS, it failed on the CUDA provider

Array = npt.NDArray[Any]


class ImageTower(torch.nn.Module):  # type: ignore[misc]  # torch isn't typed here
    """Normalised pixels `[1, 3, side, side]` to the projected feature `[1, 512]`.

    The position embeddings of another grid than the network's own are interpolated once, by the library's own
    method, so that the graph holds them as a constant and no size is computed in it. They are no parameter here:
    what differs from size to size isn't shared.
    """

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        vision = model.vision_model
        self.patches, self.own = vision.embeddings.patch_embedding, vision.embeddings.class_embedding
        self.before, self.encoder, self.after = vision.pre_layrnorm, vision.encoder, vision.post_layernorm
        self.projection = model.visual_projection
        self.width = vision.config.hidden_size
        grid = torch.zeros(1, 1 + (side // self.patches.kernel_size[0]) ** 2, self.width)
        positions = vision.embeddings.interpolate_pos_encoding(grid, side, side)
        self.register_buffer("positions", positions.detach().clone(), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.patches(pixels).reshape(1, self.width, -1).transpose(1, 2)
        tokens = torch.cat([self.own.reshape(1, 1, -1), patches], dim=1) + self.positions
        states = self.encoder(inputs_embeds=self.before(tokens)).last_hidden_state
        return self.projection(self.after(states[:, 0]))


class TextTower(torch.nn.Module):  # type: ignore[misc]  # torch isn't typed here
    """Token ids `[1, 77]` to the projected feature of each, `[1, 77, 512]`; causal, nothing else is masked."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        text = model.text_model
        self.tokens, self.encoder, self.after = (
            text.embeddings.token_embedding,
            text.encoder,
            text.final_layer_norm,
        )
        self.projection = model.text_projection
        length = TEXT["max_position_embeddings"]
        self.register_buffer("positions", text.embeddings.position_embedding.weight.detach().clone()[None])
        hidden = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
        self.register_buffer("mask", hidden.reshape(1, 1, length, length))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        embedded = self.tokens(ids) + self.positions
        states = self.encoder(inputs_embeds=embedded, attention_mask=self.mask).last_hidden_state
        return self.projection(self.after(states))


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch; CLIP has no class names.

    The graph is shown to have the catalogue's contract and to compute what transformers computes.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of CLIP ViT-B/32, or for a user's own
            branch of no CLIP.
    """
    model = load(weights, own=branch.own)
    spec = branch.models[-1]
    text = branch.family == "clip_text"
    side = spec.inputs[0].shape[-1]
    tower = (TextTower(model) if text else ImageTower(model, side)).eval()
    inputs = prompts() if text else [tracing.scene(side, seed) for seed in (1, 2)]
    feeds = [[array] for array in inputs]
    expected = [reference(model, array) for array in inputs]
    content = tracing.trace(tower, feeds[0], spec, OPSET)
    check_operators(spec.name, onnx.load_from_string(content))
    tracing.check_parity(spec.name, expected, tracing.run(content, spec, feeds), TOLERANCE)
    return content, ()


@functools.lru_cache(maxsize=1)  # four graphs come from one checkpoint
def load(weights: Weights, *, own: bool = False) -> Any:
    """CLIP ViT-B/32, FP32 and in evaluation mode; a user's own has any width, depth and patch.

    Raises:
        ExportError: the folder holds no CLIP ViT-B/32 in the hub's layout.
    """
    tracing.settle_threads()
    model = _random() if weights.path is None else _checkpoint(weights.path, own=own)
    return model.eval().requires_grad_(False)


def reference(model: Any, array: Array) -> Array:
    """Return the output of transformers for pixels (`[1, 512]`) or token ids (`[1, 77, 512]`)."""
    given = torch.from_numpy(array)
    with torch.no_grad():
        if given.dtype == torch.int64:
            answer = model.text_projection(model.text_model(input_ids=given).last_hidden_state)
        else:
            other = given.shape[-1] != model.config.vision_config.image_size
            answer = model.get_image_features(
                pixel_values=given, interpolate_pos_encoding=other
            ).pooler_output
    return np.asarray(answer)


def check_operators(name: str, graph: onnx.ModelProto) -> None:
    """No operator that the CUDA provider can't run.

    Raises:
        ExportError: there is one.
    """
    found = sorted({node.op_type for node in graph.graph.node} & _OPERATORS_WITHOUT_CUDA)
    if found:
        raise ExportError(f"{name}: {', '.join(found)} in the graph, which CUDA can't run")


def prompts() -> list[Array]:
    """Two seeded prompts of different lengths, as token ids INT64 `[1, 77]`, padded with 0."""
    generator = np.random.default_rng(SEED)
    made = []
    for words in (7, TEXT["max_position_embeddings"] - 2):
        ids = np.zeros((1, TEXT["max_position_embeddings"]), np.int64)
        ids[0, : words + 2] = [START, *generator.integers(256, START, words), END]
        made.append(ids)
    return made


def _random() -> Any:
    """Seeded weights whose features do depend on the input."""
    torch.manual_seed(SEED)
    model = CLIPModel(_config())
    with torch.no_grad():
        for layer in model.vision_model.encoder.layers:
            layer.self_attn.v_proj.weight *= _RANDOM_VALUE_GAIN
    return model


def _config() -> Any:
    return CLIPConfig(text_config=dict(TEXT), vision_config=dict(VISION), attn_implementation="eager")


def _checkpoint(folder: Path, *, own: bool) -> Any:
    _check_config(folder / HUB_CONFIG, _TOKENS if own else _VIT_B_32)
    try:
        model, said = CLIPModel.from_pretrained(
            folder,
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as error:  # whatever the readers of two file formats raise is told the same way
        raise ExportError(f"{folder} holds no CLIP that transformers can read: {error}") from error
    if wrong := sorted(map(str, [*said["missing_keys"], *said["mismatched_keys"]])):
        raise ExportError(f"{folder} lacks {len(wrong)} of CLIP's weights, the first is {wrong[0]}")
    if more := sorted(key for key in said["unexpected_keys"] if not key.endswith(_UNUSED)):
        raise ExportError(f"{folder} has {len(more)} of another network's weights, the first is {more[0]}")
    return model


# Numbers that a configuration must have: those of ViT-B/32, or those that the tokenizer and the frames ask for.
_VIT_B_32: Mapping[str, Mapping[str, Any]] = {"text_config": TEXT, "vision_config": VISION}
_TOKENS: Mapping[str, Mapping[str, Any]] = {
    "text_config": {"max_position_embeddings": 77, "vocab_size": 49408},
    "vision_config": {"num_channels": 3},
}


def _check_config(path: Path, needed: Mapping[str, Mapping[str, Any]]) -> None:
    """The architecture, told apart before the weights are read.

    Raises:
        ExportError: there is no configuration, or it is one of another network.
    """
    try:
        document = json.loads(path.read_bytes())
        there, kind = CLIPConfig.from_dict(document), document.get("model_type")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} is no configuration of CLIP: {error}") from error
    if kind != CLIPConfig.model_type:
        raise ExportError(f"{path} describes a network of type {kind}, not {CLIPConfig.model_type}")
    for part, wanted in needed.items():
        found = getattr(there, part).to_dict()
        wrong = {key: found.get(key) for key in wanted if found.get(key) != wanted[key]}
        if wrong:
            than = "CLIP ViT-B/32" if needed is _VIT_B_32 else "a CLIP of OpenAI's tokens"
            raise ExportError(f"{path} describes another network than {than}: {part} {wrong}")
