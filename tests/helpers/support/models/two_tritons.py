"""Two real Tritons whose detectors have different weights: what they find tells which of them answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.local.triton_server import TritonServer
from support.models import repository as test_repository
from support.witness import STEADY, digest_of, put_graph, put_note


class TwoTritons:
    """`repositories` and `servers` in order; `truth`: the digest of the weights that give a class, by class.

    The first server calls the witness's square class 1, the second class 2.
    """

    def __init__(self, folder: Path, versions: tuple[str, str]) -> None:
        plain = test_repository.build(folder / "plain", [STEADY])
        self.truth = {1 + shift: digest_of(plain, shift) for shift in (0, 1)}
        self.repositories = [folder / f"models{shift}" for shift in (0, 1)]
        self.servers = []
        for shift, (models, version) in enumerate(zip(self.repositories, versions, strict=True)):
            shutil.copytree(plain, models)
            shutil.rmtree(models / STEADY / "1")
            put_graph(plain, shift, "9")
            put_note(plain, shift, "9")
            shutil.move(plain / STEADY / "9", models / STEADY / version)
            self.servers.append(TritonServer(models, folder / f"triton{shift}.log", load=[STEADY]))

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a gateway over both."""
        return {
            "engine": "triton",
            "triton_url": ",".join(server.grpc_url for server in self.servers),
            "triton_repositories": ",".join(str(models) for models in self.repositories),
        }


@contextmanager
def two_tritons(folder: Path, versions: tuple[str, str] = ("1", "2")) -> Iterator[TwoTritons]:
    """Start both, and kill both at the end."""
    made = TwoTritons(folder, versions)
    with ExitStack() as stack:
        for server in made.servers:
            stack.enter_context(server)
        yield made
