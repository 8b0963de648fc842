"""CLIP in torch and in ONNX: the hub's layout read whole, the library's own features, the same bytes every time."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import sharing
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.weights import Weights, random_weights
from routing import catalogue as catalogues

pytestmark = [
    pytest.mark.export,
    # Parts of the C extensions that torch brings along predate Python's own checks of their type names.
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
]

CATALOGUE = catalogues.load()
NAME = "clip-vit-base-patch32"
EXPORTER = EXPORTERS["clip_image"]
IMAGE, TEXT = CATALOGUE.branches["clip_image_224"], CATALOGUE.branches["clip_text"]
# config.json of openai/clip-vit-base-patch32, as the library wrote it in 2022: every part says the numbers of
# ViT-B/32, its own kind, and much that is of no use to it. Token ids are not those that the tokenizer has.
_OLD: dict[str, Any] = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "attention_dropout": 0.0,
    "chunk_size_feed_forward": 0, "do_sample": False, "dropout": 0.0, "hidden_act": "quick_gelu",
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "initializer_factor": 1.0, "initializer_range": 0.02,
    "is_decoder": False, "is_encoder_decoder": False, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "layer_norm_eps": 1e-05, "length_penalty": 1.0, "max_length": 20, "num_beams": 1, "num_hidden_layers": 12,
    "output_attentions": False, "output_hidden_states": False, "projection_dim": 512, "pruned_heads": {},
    "return_dict": True, "temperature": 1.0, "tie_word_embeddings": True, "torch_dtype": None,
    "torchscript": False, "transformers_version": "4.16.0.dev0", "use_bfloat16": False,
}  # fmt: skip
_OLD_TEXT = {
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "hidden_size": 512, "intermediate_size": 2048,
    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 8, "vocab_size": 49408,
}  # fmt: skip
_OLD_VISION = {
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "hidden_size": 768, "intermediate_size": 3072,
    "image_size": 224, "model_type": "clip_vision_model", "num_attention_heads": 12, "patch_size": 32,
}  # fmt: skip
CONFIG = {
    "_name_or_path": "openai/clip-vit-base-patch32", "architectures": ["CLIPModel"], "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592, "model_type": "clip", "projection_dim": 512,
    "text_config": _OLD | _OLD_TEXT, "text_config_dict": None, "transformers_version": None,
    "vision_config": _OLD | _OLD_VISION, "vision_config_dict": None,
}  # fmt: skip
# What else lies in the hub's folder, and must disturb nothing.
BYSTANDERS = (
    ".gitattributes", "README.md", "flax_model.msgpack", "merges.txt", "preprocessor_config.json",
    "special_tokens_map.json", "tf_model.h5", "tokenizer.json", "tokenizer_config.json", "vocab.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Any:
    """The exporter; skips where torch isn't installed."""
    pytest.importorskip("torch")
    from export.families import clip  # noqa: PLC0415 (imports torch)

    return clip


@pytest.fixture(scope="module")
def network(clip: Any) -> Any:
    """The library's own ViT-B/32 of another seed, with its own way of attention: what the folders below hold."""
    import torch  # noqa: PLC0415 (only where it is installed)

    torch.manual_seed(5)
    return clip.CLIPModel(clip.CLIPConfig()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def official(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `clip-vit-base-patch32` as the hub lays it out: `pytorch_model.bin` with position ids."""
    import torch  # noqa: PLC0415 (only where it is installed)

    root = tmp_path_factory.mktemp("weights")
    (root / NAME).mkdir()
    state = dict(network.state_dict())
    for part, length in (("text", 77), ("vision", 50)):
        state[f"{part}_model.embeddings.position_ids"] = torch.arange(length)[None]
    torch.save(state, root / NAME / "pytorch_model.bin")
    (root / NAME / "config.json").write_text(json.dumps(CONFIG, indent=2))
    for name in BYSTANDERS:
        (root / NAME / name).write_bytes(b"not read")
    return root


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A copy of the official folder, to be spoilt: the weights are the same file, the configuration its own."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "pytorch_model.bin").hardlink_to(official / NAME / "pytorch_model.bin")
    shutil.copy(official / NAME / "config.json", folder)
    return folder


@pytest.fixture(scope="module")
def graph(clip: Any, official: Path) -> Callable[[str], bytes]:
    """The graph of a branch from the official folder, made once."""
    return functools.cache(
        lambda name: clip.export(CATALOGUE.branches[name], EXPORTER.find(official, CATALOGUE.branches[name]))[
            0
        ]
    )


def _features(network: Any, method: str, **given: Any) -> np.ndarray:
    import torch  # noqa: PLC0415 (only where it is installed)

    with torch.no_grad():
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        answer: np.ndarray = getattr(network, method)(**tensors).pooler_output.numpy()
    return answer


def _run(clip: Any, content: bytes, branch: Any, array: np.ndarray) -> np.ndarray:
    answer: np.ndarray = clip.tracing.run(content, branch.models[-1], [[array]])[0]
    return answer


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = first.astype(np.float64), second.astype(np.float64)
    return np.asarray((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))


@pytest.mark.parametrize(("size", "seen"), [(224, 224), (336, 320), (448, 448)])
def test_image_features_are_the_librarys(
    clip: Any, network: Any, graph: Callable[[str], bytes], size: int, seen: int
) -> None:
    """Each size of the official folder answers what the saved CLIPModel answers, not normalised."""
    branch = CATALOGUE.branches[f"clip_image_{size}"]
    pixels = np.random.default_rng(size).standard_normal((1, 3, seen, seen), dtype=np.float32)
    answer = _run(clip, graph(branch.name), branch, pixels)
    expected = _features(
        network, "get_image_features", pixel_values=pixels, interpolate_pos_encoding=seen != 224
    )
    assert answer.shape == (1, 512)
    assert _cosine(answer, expected) > 0.99999
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    assert abs(np.linalg.norm(answer) - 1) > 0.1


def test_row_of_the_end_token_is_the_pooled_feature(
    clip: Any, network: Any, graph: Callable[[str], bytes]
) -> None:
    """Every prompt's row at its first end token is the saved network's pooled, projected feature."""
    generator = np.random.default_rng(8)
    for words in (0, 1, 5, 40, 75):
        ids = np.zeros((1, 77), np.int64)
        ids[0, : words + 2] = [clip.START, *generator.integers(1, clip.START, words), clip.END]
        answer = _run(clip, graph(TEXT.name), TEXT, ids)
        expected = _features(network, "get_text_features", input_ids=ids)[0]
        assert answer.shape == (1, 77, 512)
        np.testing.assert_allclose(answer[0, words + 1], expected, atol=1e-4)
        assert _cosine(answer[0, words + 1], expected) > 0.99999


def test_later_tokens_change_nothing_before_them(clip: Any, graph: Callable[[str], bytes]) -> None:
    """The causal mask is in the graph: whatever follows the end token leaves its row alone."""
    ids = clip.prompts()[0]
    other = ids.copy()
    end = int((ids[0] == clip.END).argmax())
    other[0, end + 1 :] = 320
    first, second = (_run(clip, graph(TEXT.name), TEXT, given) for given in (ids, other))
    np.testing.assert_allclose(first[0, : end + 1], second[0, : end + 1], atol=1e-5)
    assert np.abs(first[0, end + 1 :] - second[0, end + 1 :]).max() > 0.01


def test_text_graph_has_no_argmax_and_computes_no_shapes(graph: Callable[[str], bytes]) -> None:
    """The end token is the client's to find, and every shape is a constant."""
    operators = {node.op_type for node in onnx.load_from_string(graph(TEXT.name)).graph.node}
    assert not operators & {"ArgMax", "Shape", "If", "Loop", "Range", "Where", "NonZero"}


def test_an_argmax_is_refused(clip: Any) -> None:
    """A graph with an ArgMax isn't written."""
    node = onnx.helper.make_node("ArgMax", ["ids"], ["end"])
    graph = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(ExportError, match="ArgMax"):
        clip.check_operators("clip_text_onnx", graph)


def test_the_same_seed_gives_the_same_bytes(clip: Any) -> None:
    """Random weights, made and traced again, become the same file, and have no class names."""
    digests = set()
    for _ in range(2):
        clip.load.cache_clear()
        content, labels = clip.export(TEXT, random_weights())
        digests.add(hashlib.sha256(content).digest())
        assert labels == ()
    assert len(digests) == 1


def test_sizes_share_their_weights(graph: Callable[[str], bytes]) -> None:
    """The graphs of two sizes look for the same file, and what is left of each is small."""
    parts = [sharing.split(graph(name)) for name in ("clip_image_224", "clip_image_448")]
    assert parts[0][1] is not None
    assert parts[0][1] == parts[1][1]
    assert max(len(graph) for graph, _, _ in parts) < 2e6


def test_random_features_depend_on_the_picture(clip: Any) -> None:
    """Two pictures get clearly different features at every size."""
    network = clip.load(random_weights())
    for side in (224, 320, 448):
        first, second = (clip.reference(network, clip.tracing.scene(side, seed)) for seed in (1, 2))
        assert _cosine(first, second) < 0.95


def test_weights_are_recorded_by_their_bytes(official: Path) -> None:
    """A checkpoint's source is the weights file of the hub's folder, with its SHA-256."""
    file = official / NAME / "pytorch_model.bin"
    weights = EXPORTER.find(official, IMAGE)
    assert (weights.kind, weights.source.name) == ("checkpoint", f"{NAME}/pytorch_model.bin")
    assert weights.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("half", [False, True], ids=["FP32", "FP16"])
def test_the_newer_layout_is_read_too(clip: Any, network: Any, tmp_path: Path, half: bool) -> None:
    """`model.safetensors` and config.json of today's `save_pretrained`, whole or halved, served in FP32."""
    import torch  # noqa: PLC0415 (only where it is installed)

    saved = clip.CLIPModel(clip.CLIPConfig()).eval()
    saved.load_state_dict(network.state_dict())
    (saved.half() if half else saved).save_pretrained(tmp_path / NAME)
    weights = EXPORTER.find(tmp_path, IMAGE)
    assert weights.source.name == f"{NAME}/model.safetensors"
    loaded = clip.load(weights).state_dict()
    for name, value in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(value.half().float() if half else value, loaded[name]), name


def _without(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def _config(part: str | None, key: str, value: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        document = json.loads((folder / "config.json").read_bytes())
        (document[part] if part else document)[key] = value
        (folder / "config.json").write_text(json.dumps(document))

    return spoil


def _weights(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        import torch  # noqa: PLC0415 (only where it is installed)

        state = torch.load(folder / "pytorch_model.bin", weights_only=True)
        change(state)
        (folder / "pytorch_model.bin").unlink()
        torch.save(state, folder / "pytorch_model.bin")

    return spoil


def _file(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return spoil


def _cut(folder: Path) -> None:
    whole = (folder / "pytorch_model.bin").read_bytes()
    _file("pytorch_model.bin", whole[: len(whole) // 2])(folder)


PROJECTION = "text_projection.weight"
NO_CLIP = f"{NAME} holds no CLIP that transformers can read"
ANOTHER = rf"{NAME}/config\.json describes another network than CLIP ViT-B/32: "


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(_without("config.json"), rf"looked for config\.json .*{NAME}", id="no configuration"),
        pytest.param(_without("pytorch_model.bin"), rf"pytorch_model\.bin in .*{NAME}", id="no weights"),
        pytest.param(
            _file("config.json", b"[1"), rf"{NAME}/config\.json is no configuration of CLIP", id="no JSON"
        ),
        pytest.param(_file("config.json", b"[]"), "is no configuration of CLIP", id="a list"),
        pytest.param(
            _config(None, "model_type", "bert"), rf"{NAME}/config\.json .* type bert", id="another type"
        ),
        pytest.param(
            _config("vision_config", "patch_size", 16), f"{ANOTHER}.*patch_size.: 16", id="ViT-B/16"
        ),
        pytest.param(
            _config("text_config", "num_hidden_layers", 6),
            f"{ANOTHER}.*num_hidden_layers.: 6",
            id="fewer layers",
        ),
        pytest.param(
            _config("vision_config", "hidden_act", "gelu"), f"{ANOTHER}.*hidden_act.: 'gelu'", id="activation"
        ),
        pytest.param(_file("pytorch_model.bin", b"no weights"), NO_CLIP, id="garbage"),
        pytest.param(_file("model.safetensors", b"no weights"), NO_CLIP, id="garbage of the newer kind"),
        pytest.param(_cut, NO_CLIP, id="half a file"),
        pytest.param(
            _weights(lambda state: state.pop("visual_projection.weight")),
            f"{NAME} lacks 1 of CLIP's weights, the first is visual_projection",
            id="a weight is missing",
        ),
        pytest.param(
            _weights(lambda state: state.update({"vision_model.more": state[PROJECTION]})),
            f"{NAME} has 1 of another network's weights, the first is vision_model.more",
            id="a weight too many",
        ),
        pytest.param(
            _weights(lambda state: state.update({PROJECTION: state[PROJECTION][:256].clone()})),
            NO_CLIP,
            id="a weight of another shape",
        ),
    ],
)
def test_another_layout_is_refused(
    clip: Any, copy: Path, spoil: Callable[[Path], None], message: str
) -> None:
    """A folder that isn't CLIP ViT-B/32 in the hub's layout is an error that names the folder and its fault."""
    spoil(copy)
    with pytest.raises(ExportError, match=message):
        clip.load(EXPORTER.find(copy.parent, IMAGE))


def test_weights_that_are_no_numbers_are_refused(clip: Any, copy: Path) -> None:
    """A checkpoint with a NaN in it is read, and its graph isn't written."""
    _weights(lambda state: state[PROJECTION].fill_(float("nan")))(copy)
    with pytest.raises(ExportError, match="clip_text_onnx"):
        clip.export(TEXT, EXPORTER.find(copy.parent, TEXT))


def test_code_in_a_checkpoint_is_not_run(clip: Any, copy: Path, tmp_path: Path) -> None:
    """A pickle that would call a function when loaded is refused, and the function isn't called."""
    _weights(lambda state: state.update({"x": _Trap(str(tmp_path / "trapped"))}))(copy)
    with pytest.raises(ExportError, match=NO_CLIP):
        clip.load(EXPORTER.find(copy.parent, IMAGE))
    assert not (tmp_path / "trapped").exists()


class _Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_offline_pretrained_is_an_export_error(clip: Any, tmp_path: Path) -> None:
    """A folder without weights is never asked of the network by transformers itself."""
    weights = Weights("pretrained", random_weights().source, tmp_path / NAME)
    with pytest.raises(ExportError, match=r"config\.json"):
        clip.load(weights)
