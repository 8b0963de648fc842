"""The models of `gateway analyze`: loaded once, for all videos of a run."""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.commands.video_list import Entry
from app.commands.video_threads import Stop
from app.engine.base import Engine
from app.main import analysis_options, create_engine, create_pipelines, create_survey, may_be_compact
from app.metrics import Metrics
from app.pipelines import inventory
from app.pipelines.pipeline_set import PipelineSet
from app.process.catalogue import load_catalogue
from app.process.cores import available_cores, share_of_cores
from app.settings import Settings
from app.videos.analysis import Options
from app.videos.profile import Profile
from routing.catalogue import Catalogue
from routing.policy import Readiness


def settings_of(parsed: argparse.Namespace, profile: Profile) -> Settings:
    """Take settings from the command line, then the profile, then the environment."""
    return settings_for(
        profile, repository=parsed.repository, engine=parsed.engine, triton_url=parsed.triton_url
    )


def settings_for(
    profile: Profile,
    *,
    repository: Path | None = None,
    engine: str | None = None,
    triton_url: str | None = None,
    workers: int = 1,
) -> Settings:
    """Return the settings with which the models of a profile are loaded, and no others.

    What is given comes first, then the profile, then the environment.

    Args:
        profile: the profile.
        repository: of the models.
        engine: `embedded` or `triton`; a `triton_url` alone means the latter.
        triton_url: host and port of Triton's gRPC service.
        workers: processes like this one that share the machine: each gets its part of the cores.
    """
    given: dict[str, Any] = {"repository": repository}
    if profile.engine is not None:
        given |= {"engine": profile.engine.kind, "triton_url": profile.engine.triton_url}
    if engine or triton_url:
        given["engine"] = engine or "triton"
        given["triton_url"] = triton_url or given.get("triton_url")
    given = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**given)
    if workers > 1 and not settings.embedded_threads:
        given["embedded_threads"] = share_of_cores(workers)
    catalogue = load_catalogue(settings)
    allowed = inventory.patterns("*" if settings.models == "auto" else settings.models)
    wanted = {branch.name for branch in inventory.matching(catalogue, allowed)}
    names = [name for name in reached(profile, settings, catalogue) if name in wanted]
    return Settings(**given | {"models": ",".join(names) or "none"})


def videos_at_once(asked: int | None, settings: Settings, videos: Sequence[Entry]) -> int:
    """Return how many videos are analysed at once.

    By default one per two cores, because a video keeps one busy with decoding and another with its frames, and at most
    one per lease of a branch. More than there are different videos are never needed.
    """
    by_default = min(available_cores() // 2, settings.leases)
    different = len({video.name for video in videos})
    return max(1, min(asked or by_default, different))


def sharing(settings: Settings, jobs: int) -> tuple[Settings, Options]:
    """Return settings and options with which none of `jobs` videos fails because the others use the same models.

    All frames in flight may wait for a lease, and the time limit of a frame grows with the number of videos.
    """
    options = analysis_options(settings)
    waiting = max(settings.max_waiting, jobs * options.window)
    shared = settings.model_copy(update={"max_waiting": waiting})
    return shared, replace(options, frame_s=jobs * options.frame_s)


def reached(profile: Profile, settings: Settings, catalogue: Catalogue) -> list[str]:
    """Names of the branches that a video of some size can take with this profile and these settings."""
    compact = may_be_compact(settings)
    found: dict[str, None] = {}
    for kind, config in profile.components.given():
        branches = kind.reachable(
            config, catalogue, settings.variant, fallback=profile.fallback, compact=compact
        )
        found |= dict.fromkeys(branch.name for branch in branches)
    return list(found)


class Unusable(RuntimeError):
    """The settings can't be carried out on this installation."""


class Backend:
    """The `Suite` of these settings: its pipelines are made once, when a video needs them.

    `jobs` videos may be analysed at once. A run that skips every video loads no model.

    Safe to use from many threads.
    """

    def __init__(self, settings: Settings, profile: Profile, jobs: int = 1, stop: Stop | None = None) -> None:
        self._settings, self.options = sharing(settings, jobs)
        self._stop = stop or Stop()
        self._making = threading.RLock()
        self._catalogue = load_catalogue(settings)
        self._reached = reached(profile, settings, self._catalogue)
        self._engine: Engine | None = None
        self._loaded: PipelineSet | None = None
        self._surveyed: PipelineSet | None = None

    @property
    def pipelines(self) -> PipelineSet:
        """The pipelines over the engine, once it has loaded what the profile reaches.

        Raises:
            Cancelled: a stop is requested.
        """
        with self._making:
            if self._loaded is None:
                self._stop.check()
                if self._engine is None:
                    with _usable():
                        self._engine = create_engine(self._settings, self._catalogue)
                engine = self._engine
                while any(engine.ready()[name].readiness is Readiness.LOADING for name in self._reached):
                    self._stop.check()
                    time.sleep(0.05)
                self._loaded = self._made(engine)
            return self._loaded

    @property
    def survey(self) -> PipelineSet:
        """Branches that will serve according to the files; a Triton reports its own."""
        with self._making:
            if self._settings.engine == "triton" or self._loaded is not None:
                return self.pipelines
            if self._surveyed is None:
                with _usable():
                    engine = create_survey(self._settings, self._catalogue)
                self._surveyed = self._made(engine)
            return self._surveyed

    def _made(self, engine: Engine) -> PipelineSet:
        with _usable():
            return create_pipelines(self._settings, self._catalogue, engine, Metrics())

    def close(self) -> None:
        """Release the engine if there is one."""
        if self._engine is not None:
            self._engine.close()


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Unusable(str(error)) from error
