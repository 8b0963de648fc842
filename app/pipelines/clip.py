"""Frames and prompts to CLIP embeddings; prompts one `[1, 77]` call each, remembered by content."""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from app import context
from app.deadline import Deadline
from app.errors import InferenceFailed, InvalidParameter, ModelNotReady, PromptTooLong
from app.media.encodings import npy_bytes
from app.media.resize import Fit
from app.media.vocabulary import clip_merges
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings, leased, observe
from app.pipelines.dense import Analysis, DensePipeline
from app.pipelines.embedding_cache import EmbeddingCache
from app.pipelines.pipeline_set import PipelineParts
from app.vision.embeddings import l2_normalized, softmax
from app.vision.prompts import Tokenizer, Tokens
from routing.catalogue import STANDARD
from routing.policy import Wishes

# exp(logit_scale) of the published model: what its cosine similarities are multiplied with before the softmax.
LOGIT_SCALE = 100.0
_ANY = Wishes()


def normalized(vectors: Sequence[NDArray[np.float32]], *, normalize: bool) -> NDArray[np.float32]:
    """Vectors `[D]` as rows `[N, D]` float32, at length 1 if asked."""
    rows = np.stack(vectors)
    return l2_normalized(rows) if normalize else rows


def similarity(
    images: Sequence[NDArray[np.float32]], texts: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine `[frames, prompts]` in `[-1, 1]`, and its softmax over the prompts at CLIP's own temperature."""
    cosine = normalized(images, normalize=True) @ normalized(texts, normalize=True).T
    return cosine, softmax(cosine * np.float32(LOGIT_SCALE))


def encoded(vectors: NDArray[np.float32], *, base64: bool) -> list[Any]:
    """Rows for JSON: numbers, or base64 of float32 little-endian."""
    if base64:
        return [b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return list(vectors)


def embedding_bytes(vectors: NDArray[np.float32]) -> bytes:
    """See `npy_bytes`."""
    return npy_bytes(vectors)


@dataclass(frozen=True, slots=True)
class Embedding:
    """`vector` `[D]` float32, not normalised; `cached`: no model was called for it.

    `tokens` of a prompt, with the two that mark its start and end.
    """

    vector: NDArray[np.float32]
    served: Served
    truncated: bool = False
    cached: bool = False
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ImagePipeline(DensePipeline):
    """Frames; safe to call from many threads."""

    family: ClassVar[str] = "clip_image"

    def __call__(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        fit: Fit | None = None,
        analysis: Analysis = (None, None),
    ) -> Embedding:
        """Embedding of one encoded picture.

        Raises:
            GatewayError: see `decode_image`, `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        vector, _, served = self.run_picture(data, wishes, deadline, analysis, fit)
        self.observe(served)
        return Embedding(vector, served)

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, fit: Fit | None = None) -> Embedding:
        """Embedding of one decoded frame `[height, width, 3]` uint8 RGB."""
        vector, served = self.run_frames([rgb], framed, fit)
        self.observe(served)
        return Embedding(vector, served)


@dataclass(frozen=True, slots=True)
class TextPipeline:
    """Prompts; safe to call from many threads."""

    family: ClassVar[str] = "clip_text"
    router: Router
    metrics: Metrics
    tokenizer: Tokenizer
    cache: EmbeddingCache

    @classmethod
    def made_from(cls, parts: PipelineParts) -> Self:
        return cls(parts.router, parts.metrics, Tokenizer(clip_merges()), parts.text_cache)

    def tokens(self, prompt: str, *, strict: bool) -> Tokens:
        """Token ids of a prompt.

        Raises:
            PromptTooLong: `strict`, and it has more than 75 tokens.
        """
        tokens = self.tokenizer(prompt)
        if strict and tokens.truncated:
            raise PromptTooLong(f"the prompt {prompt[:40]!r}… has more than 75 tokens")
        return tokens

    def variant_beside(self, image: str | None) -> str:
        """The name of the text variant that embeds into the space of an image variant.

        Raises:
            InvalidParameter: there is none, and embeddings of two variants can't be compared.
        """
        named = image or STANDARD
        if not self.router.catalogue["clip_text"].named(named):
            raise InvalidParameter(
                f"prompts for the image variant {named} need the variant of clip_text of the same name, and there is "
                "none; embeddings of different variants can't be compared"
            )
        return named

    def wishes_beside(self, image: Wishes) -> Wishes:
        """The wishes for the text model that embeds into the space of the image model with these wishes.

        It has the same variant, and the same version if one is asked for.

        Raises:
            InvalidParameter: there is no such variant.
        """
        named = self.router.catalogue.branches.get(image.branch or "")
        version = image.version or (None if named is None or named.version_of is None else named.version)
        variant = self.variant_beside(self.router.variant_of(ImagePipeline.family, image))
        return Wishes(variant=variant, version=version)

    def recall(self, tokens: Tokens, wishes: Wishes = _ANY) -> Embedding | None:
        """Return the cached embedding of these tokens by the weights that serve now, and count a hit.

        `wishes` as for a call.

        Raises:
            GatewayError: see `Router.decide`.
        """
        decision = self.router.decide(self.family, None, wishes)
        state, pins = self.router.engine.serving(decision.branch.name), context.pins()
        vector = self.cache.get(tokens.ids, state.used)
        if vector is None:
            return None
        if (
            state.endpoint is not None
            and pins is not None
            and not pins.confirm(state.name, state.weights_key)
        ):
            return None
        self.metrics.text_cache.labels("hit").inc()
        served = Served(self.router.catalogue[self.family], decision, state, Timings())
        return Embedding(vector, served, tokens.truncated, cached=True)

    def __call__(self, tokens: Tokens, deadline: Deadline, wishes: Wishes = _ANY) -> Embedding:
        """Embedding of one prompt: from the cache, or the model's row at the end of text.

        `wishes` are the variant and version of the text model.

        Raises:
            GatewayError: see `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        remembered = self.recall(tokens, wishes)
        if remembered is not None:
            return remembered
        self.metrics.text_cache.labels("miss").inc()
        timings = Timings()
        decision = self.router.decide(self.family, None, wishes)
        branch = decision.branch
        with leased(self.router.engine, branch, deadline, timings) as lease:
            with timings.stage("prepare"):
                lease.inputs[branch.inputs[0].name][0] = tokens.ids
            with timings.stage("infer"):
                lease.run(deadline)
            deadline.check("infer")
            with timings.stage("finish"):
                vector = lease.outputs[branch.outputs[0].name][0, tokens.end].copy()
            model = lease.model
        if not np.isfinite(vector).all():
            raise InferenceFailed(f"{branch.name} answered numbers that are not finite")
        if self.router.engine.serving(branch.name).used == model.used:  # else: which of the two answered?
            self.cache.put(tokens.ids, model.used, vector)
        served = Served(self.router.catalogue[self.family], decision, model, timings)
        observe(self.metrics, served)
        return Embedding(vector, served, tokens.truncated)


_TRIES = 3  # to get all embeddings of a request from the same weights
# Runs a function that calls no model on a thread.
Work = Callable[[Callable[[], Any]], Awaitable[Any]]
# Runs calls of the model side by side, and returns their results in order or raises the first error.
Run = Callable[[Sequence[Callable[[Deadline], Embedding]]], Awaitable[list[Embedding]]]


async def embed_all(
    pipeline: TextPipeline,
    prompts: Sequence[str],
    deadline: Deadline,
    work: Work,
    run: Run,
    *,
    strict: bool,
    wishes: Wishes = _ANY,
) -> list[Embedding]:
    """The embedding of each prompt, in order, all from the same weights; what differs in no token is embedded once.

    Args:
        pipeline: of the text model.
        prompts: at least one.
        deadline: of all.
        work: see `Work`; tokens are made there, and remembered embeddings looked up.
        run: see `Run`.
        strict: refuse prompts with too many tokens instead of cutting them.
        wishes: the variant and version of the text model.

    Raises:
        PromptTooLong: `strict`, and one has too many tokens; no model was called then.
        ModelNotReady: the weights changed again and again meanwhile.
        GatewayError: see `TextPipeline`.
    """
    tokens = await work(lambda: _tokens(pipeline, prompts, deadline, strict=strict))
    distinct = {one.ids.tobytes(): one for one in tokens}
    for _ in range(_TRIES):
        found = await _embed(pipeline, distinct, work, run, wishes)
        if len({embedding.served.model.used for embedding in found.values()}) == 1:
            return [
                replace(found[one.ids.tobytes()], truncated=one.truncated, tokens=one.end + 1)
                for one in tokens
            ]
    raise ModelNotReady("the weights changed while the prompts were embedded", retry_after=1)


def _tokens(
    pipeline: TextPipeline, prompts: Sequence[str], deadline: Deadline, *, strict: bool
) -> list[Tokens]:
    tokens = []
    for prompt in prompts:
        deadline.check("prepare")
        tokens.append(pipeline.tokens(prompt, strict=strict))
    return tokens


async def _embed(
    pipeline: TextPipeline, distinct: dict[bytes, Tokens], work: Work, run: Run, wishes: Wishes
) -> dict[bytes, Embedding]:
    """Look the prompts up in one hop to a worker thread, and make one call for each that is not cached."""
    known = await work(lambda: {key: pipeline.recall(tokens, wishes) for key, tokens in distinct.items()})
    found = {key: embedding for key, embedding in known.items() if embedding is not None}
    missing = [key for key in distinct if key not in found]
    if not missing:
        return found
    calls = [functools.partial(pipeline, distinct[key], wishes=wishes) for key in missing]
    return {**found, **dict(zip(missing, await run(calls), strict=True))}


def calls_of(found: Sequence[Embedding]) -> int:
    """Return the number of model calls that these embeddings took."""
    return len({id(one.served) for one in found if not one.cached})
