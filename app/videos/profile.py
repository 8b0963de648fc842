"""A profile: components, sampling, branches, thresholds and prompts. Frozen, validated when it is made.

The components that there are come from the families table: see `profile_type`.

Files and forms are read by `app.videos.profile_documents`; unknown keys are refused there by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, cast

from app.errors import InvalidParameter
from app.media.video.sampling import Sampling

SCHEMA_VERSION = 1
# How the reader of files treats these classes: no key that isn't here, no NaN, nothing changed afterwards.
STRICT = MappingProxyType({"extra": "forbid", "allow_inf_nan": False})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


# Components that every profile's document lists, null if they don't run: they existed before the document left out
# unused ones.
_LISTED_ALWAYS = frozenset(
    {"core_clip", "core_depth_midas", "core_optical_flow", "core_object_detections", "places365"}
)
_LATER = "added later"


def added_later(default: Any) -> Any:
    """Return a field that stands in the document of a profile only where it isn't the default."""
    return field(default=default, metadata={_LATER: True})


def within(name: str, value: float, least: float, greatest: float = math.inf) -> None:
    """Check a number of a profile.

    Raises:
        ValueError: it is out of bounds.
    """
    if not least <= value <= greatest:
        bound = f"at least {least}" if greatest == math.inf else f"from {least} to {greatest}"
        raise ValueError(f"{name} is {bound}")


@dataclass(frozen=True, slots=True)
class SamplingRule(Sampling):
    """Sampling of a profile; see `app.media.video.reader.Sampling`. Nothing given: every frame."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    def __post_init__(self) -> None:
        """Refuse what can't be meant with the error that pydantic reports."""
        try:
            Sampling.__post_init__(self)
        except InvalidParameter as error:
            raise ValueError(error.detail) from error


@dataclass(frozen=True, slots=True)
class AnalysisSize:
    """The size that the analysis runs at, in pixels: steers routing, changes no pixel."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                within(name, getattr(self, name), 1, 1 << 16)


class ComponentKind(Protocol):
    """The class of a component, as a profile knows it; see `app.videos.components.base.Component`."""

    @property
    def name(self) -> str:
        """The key in profiles."""

    @property
    def Config(self) -> type[Any]:  # noqa: N802  # a class
        """Frozen dataclass of what a profile may say."""

    def reachable(
        self, config: Any, catalogue: Any, variant: str | None, /, *, fallback: bool, compact: bool
    ) -> Iterable[Any]:
        """Return every branch that may serve a video with this configuration."""

    def __call__(self, scene: Any, config: Any, /) -> Any:
        """Make the component of one video."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components that run: a field per component that there is, None where it doesn't run."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    kinds: ClassVar[Mapping[str, ComponentKind]] = MappingProxyType({})

    def __post_init__(self) -> None:
        if not self.given():
            raise ValueError("no component is named")

    def given(self) -> list[tuple[ComponentKind, Any]]:
        """Return the components that run, each with its configuration."""
        asked = ((kind, getattr(self, name)) for name, kind in self.kinds.items())
        return [(kind, config) for kind, config in asked if config is not None]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Engine of `gateway analyze`; a service uses its own engine and ignores this."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    kind: Literal["embedded", "triton"] = "embedded"
    triton_url: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole profile. `on_missing`: what happens when the branch that is meant can't serve."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    name: str
    components: Components
    schema_version: Literal[1] = 1
    sampling: SamplingRule = field(default_factory=SamplingRule)
    analysis: AnalysisSize = field(default_factory=AnalysisSize)
    on_missing: Literal["error", "fallback"] = "error"
    engine: EngineChoice | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                "name is a plain word of at most 100 letters, digits, dots, dashes and underscores"
            )

    @property
    def fallback(self) -> bool:
        return self.on_missing == "fallback"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that shape the numbers, prompts included; the engine stands in the model signature.

        Components and fields that an earlier version did not know are left out unless they are used, so that what it
        hashed keeps its hash.
        """
        document = dataclasses.asdict(self)
        del document["engine"]
        components = document["components"]
        for name, config in list(components.items()):
            if config is None:
                if name not in _LISTED_ALWAYS:
                    del components[name]
                continue
            for entry in dataclasses.fields(getattr(self.components, name)):
                if entry.metadata.get(_LATER) and config[entry.name] == entry.default:
                    del config[entry.name]
        return document

    @property
    def config_hash(self) -> str:
        """`sha256:<hex>` of the canonical JSON (sorted keys, no spaces, ASCII) of `to_dict`, without the name."""
        document = {key: value for key, value in self.to_dict().items() if key != "name"}
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(canonical.encode('ascii')).hexdigest()}"


def profile_type(kinds: Iterable[ComponentKind]) -> type[Profile]:
    """Return the class of profiles that may name these components, in this order."""
    by_name = {kind.name: kind for kind in kinds}
    fields: list[Any] = [(name, kind.Config | None, field(default=None)) for name, kind in by_name.items()]
    components = dataclasses.make_dataclass(
        "Components",
        fields,
        bases=(Components,),
        namespace={"kinds": MappingProxyType(by_name), "__module__": __name__},
        frozen=True,
    )
    made = dataclasses.make_dataclass(
        "Profile",
        [("components", components)],
        bases=(Profile,),
        namespace={"__module__": __name__},
        frozen=True,
    )
    return cast("type[Profile]", made)
