"""The component of image embeddings and their cosine with prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media.npz import Blocks, text_blocks
from app.pipelines.base import Served
from app.pipelines.clip import LOGIT_SCALE, Embedding, ImagePipeline, TextPipeline, normalized
from app.pipelines.frames import Frame, Sample
from app.videos.components.base import Arrays, Columns, Component, Row, Scene, by_frames
from app.videos.profile import STRICT, added_later
from routing.catalogue import STANDARD, Branch, Catalogue
from routing.policy import Decision, Wishes
from routing.reachable import reachable

LONGEST_PROMPT = 4096  # characters; the tokenizer reads no more of one
_SET_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Configuration of the component; a prompt has up to 4,096 characters."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    branch: str | None = None
    variant: str | None = added_later(None)
    fit: Literal["crop", "stretch"] | None = None
    tokens: Literal["strict", "truncate"] = "truncate"
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, prompts in self.prompts.items():
            if not _SET_NAME.fullmatch(name):
                raise ValueError(
                    f"{name[:64]!r} is no name of a prompt set; use a-z, 0-9 and _, and begin with a letter"
                )
            if not prompts:
                raise ValueError(f"the prompt set {name} is empty")
            longest = max(map(len, prompts))
            if longest > LONGEST_PROMPT:
                raise ValueError(f"a prompt has {longest} characters; the limit is {LONGEST_PROMPT}")


class ClipComponent(Component):
    """Embeddings of frames and prompts, and their cosine."""

    name, artifact, family = "core_clip", "embeddings.npz", "clip_image"
    Config = ClipConfig
    table_arrays = ("frame_embeddings", "consecutive_cosine_prev", "*_scores")
    table_texts = ("*_prompts",)

    def __init__(self, scene: Scene, asked: ClipConfig) -> None:
        super().__init__(scene, asked)
        self._asked = asked
        self._texts: dict[str, NDArray[np.float32]] = {}

    @classmethod
    def reachable(
        cls,
        config: ClipConfig,
        catalogue: Catalogue,
        variant: str | None,
        *,
        fallback: bool,
        compact: bool,
    ) -> tuple[Branch, ...]:
        own = super().reachable(config, catalogue, variant, fallback=fallback, compact=compact)
        if not config.prompts:
            return own
        beside = next((branch.variant for branch in own), None) or STANDARD
        version = next((branch.version for branch in own if branch.version_of is not None), None)
        wishes = Wishes(variant=beside, version=version)
        return (*own, *reachable(catalogue[TextPipeline.family], wishes))

    def decisions(self) -> Sequence[tuple[str, Decision]]:
        own = super().decisions()
        if not self._asked.prompts:
            return own
        router, wishes = self.scene.pipelines.router, self._text_wishes()
        return [*own, (TextPipeline.family, router.decide(TextPipeline.family, None, wishes))]

    def _text_wishes(self) -> Wishes:
        branch = self.decision.branch
        variant = self.scene.pipelines.of(TextPipeline).variant_beside(branch.variant)
        return Wishes(variant=variant, version=None if branch.version_of is None else branch.version)

    def begin(self, deadline: Deadline) -> Sequence[Served]:
        pipeline, strict = self.scene.pipelines.of(TextPipeline), self._asked.tokens == "strict"
        wishes = self._text_wishes() if self._asked.prompts else Wishes()
        distinct = list(
            dict.fromkeys(prompt for prompts in self._asked.prompts.values() for prompt in prompts)
        )
        with ThreadPoolExecutor(4, thread_name_prefix="prompts") as workers:
            embed: Callable[[str], Embedding] = lambda prompt: pipeline(  # noqa: E731  # typed, and used once
                pipeline.tokens(prompt, strict=strict), deadline, wishes
            )
            found = dict(zip(distinct, workers.map(embed, distinct), strict=True))
        for name, prompts in self._asked.prompts.items():
            self._texts[name] = normalized([found[prompt].vector for prompt in prompts], normalize=True)
        return [embedding.served for embedding in found.values()]

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Embedding:
        del previous
        pipeline = self.scene.pipelines.of(ImagePipeline)
        return pipeline.on_frame(frame.rgb, self.framed(frame, deadline), self._asked.fit)

    def served(self, result: Embedding) -> Served:
        return result.served

    def row(self, sample: Sample, result: Embedding) -> Row:
        del sample
        return {"embedding": normalized([result.vector], normalize=True)}

    def assemble(self, columns: Columns) -> Arrays:
        frames, float32 = columns.frames, np.dtype(np.float32)
        arrays: Arrays = {
            "frame_embeddings": columns.blocks("embedding"),
            "consecutive_cosine_prev": Blocks((frames,), float32, _cosines(columns)),
        }
        for name, texts in self._texts.items():
            arrays[f"{name}_prompts"] = text_blocks(self._asked.prompts[name])
            arrays[f"{name}_text_embeddings"] = texts
            arrays[f"{name}_scores"] = Blocks((frames, len(texts)), float32, _scores(columns, texts))
        return arrays

    def meta(self) -> dict[str, Any]:
        return {"scores": "cosine", "logit_scale": LOGIT_SCALE}


def _cosines(columns: Columns) -> Iterator[NDArray[np.float32]]:
    """Cosine of each frame and the one before; NaN for the first."""
    last: NDArray[Any] | None = None
    for frames in by_frames(columns, "embedding"):
        cosines = np.full(len(frames), np.nan, np.float32)
        cosines[1:] = np.einsum("nd,nd->n", frames[1:], frames[:-1])
        if last is not None:
            cosines[:1] = np.einsum("nd,nd->n", frames[:1], last)
        last = frames[-1:]
        yield cosines


def _scores(columns: Columns, texts: NDArray[np.float32]) -> Iterator[NDArray[Any]]:
    for frames in by_frames(columns, "embedding"):
        yield frames @ texts.T
