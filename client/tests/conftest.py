"""Two real gateways: one that is open, one with keys, limits and webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import AsyncDriver, SyncDriver
from PIL import Image
from services import KEY, OPERATOR, OTHER, ROOT, SLOW, SPENT, Service, entry, gateway, make_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models and videos."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def service(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway without keys, with a branch of every family."""
    with gateway(inputs / "models", tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway with keys, a small limit of bodies, and webhooks to this machine."""
    keys = [
        entry("camera", KEY),
        entry("other", OTHER),
        entry("operator", OPERATOR, scopes="infer,operate"),
        entry("slow", SLOW, rate="0.2", burst="1"),
        entry("spent", SPENT, rate="0.01", burst="1"),
    ]
    settings = {
        "api_keys": ";".join(keys),
        "max_body_bytes": 100_000,
        "webhook_hosts": "127.0.0.1",
        "video_sources": "127.0.0.1",
        "allowed_networks": "127.0.0.1",
        "webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
    with gateway(inputs / "models", tmp_path_factory.mktemp("guarded"), **settings) as running:
        yield running


@pytest.fixture(params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A function that makes a client of an address; both kinds in turn."""
    made: list[Any] = []

    def of(url: str, **arguments: Any) -> Any:
        made.append(request.param(url, **arguments))
        return made[-1]

    yield of
    for driver in made:
        driver.close()


@pytest.fixture
def client(connect: Callable[..., Any], service: Service) -> Any:
    """A client of the open gateway."""
    return connect(service.url)


@pytest.fixture(scope="session")
def photo() -> Path:
    """A photograph, 512 x 512."""
    return ROOT / "docs" / "astronaut.jpg"


@pytest.fixture(scope="session")
def video() -> Path:
    """A video of 2 seconds."""
    return ROOT / "docs" / "astronaut.mp4"


@pytest.fixture(scope="session")
def small(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photograph at 240 x 240, a size for which every family of the test repository has a branch."""
    path = tmp_path_factory.mktemp("small") / "photo.jpg"
    with Image.open(photo) as image:
        image.resize((240, 240)).save(path)
    return path
