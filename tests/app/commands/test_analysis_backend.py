"""The settings with which the models of a profile are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.analysis import PROFILES

from app.commands.analysis_backend import settings_for
from app.process import cores

PROFILE = PROFILES.parse("components: {core_depth_midas: {}}\nengine: {kind: embedded}\n")


@pytest.mark.parametrize(("workers", "threads"), [(1, 0), (2, 4), (3, 2), (8, 1), (100, 1)])
def test_workers_divide_the_cores(monkeypatch: pytest.MonkeyPatch, workers: int, threads: int) -> None:
    """A process alone lets ONNX Runtime take all cores; of several each has its part, at least one."""
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    assert settings_for(PROFILE, workers=workers).embedded_threads == threads


def test_a_number_of_threads_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """GATEWAY_EMBEDDED_THREADS is not divided."""
    monkeypatch.setenv("GATEWAY_EMBEDDED_THREADS", "3")
    assert settings_for(PROFILE, workers=4).embedded_threads == 3


def test_what_is_given_comes_before_the_profile(tmp_path: Path) -> None:
    """Then the profile, then the environment; only the profile's models are loaded."""
    given = settings_for(PROFILE, repository=tmp_path, triton_url="host:1")
    assert (given.engine, given.triton_url, given.repository) == ("triton", "host:1", tmp_path)
    assert settings_for(PROFILE).engine == "embedded"
    assert all(name.startswith("midas") for name in settings_for(PROFILE).models.split(","))
