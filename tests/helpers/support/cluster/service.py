"""The whole service: gateways behind a balancer, Tritons, Redis, PostgreSQL and a bucket, on hosts of their own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.triton_server import TritonServer
from support.cluster.balancer import ClusterBalancer
from support.cluster.gateways import ClusterGateway
from support.cluster.hosts import Network, network
from support.cluster.models import OTHER, SAME, Models, build
from support.databases.postgres import PostgresServer
from support.servers.redis_server import RedisServer
from support.servers.s3 import S3Server
from support.waiting import eventually

_EDGE = "edge"
_BUCKET = "jobs"
# Long enough for a machine that stops for seconds, and short enough for a run that waits for others to take over.
_SILENCE_S, LEASE_S = 20, 6


@dataclass
class Cluster:
    """Every part of it, running; see `cluster`."""

    network: Network
    models: Models
    tritons: list[TritonServer]
    redis: RedisServer
    postgres: PostgresServer
    s3: S3Server
    gateways: list[ClusterGateway]
    balancer: ClusterBalancer

    def until_admitted(self) -> None:
        """Return once the balancer sends requests to every gateway."""
        for gateway in self.gateways:
            gateway.until_ready()
        eventually(lambda: all(state.startswith("UP") for state in self.balancer.states().values()))


@contextlib.contextmanager
def cluster(gateways: int = 3, tritons: int = 2, **settings: object) -> Iterator[Cluster]:
    """Start everything. Gateways and Tritons share hosts as far as there are as many of both.

    The data services run on this machine, at the address at which the hosts see it.
    """
    names = [f"gateway-{number}" for number in range(1, gateways + 1)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        made = stack.enter_context(network([*names, _EDGE]))
        models = build(folder, tritons)
        servers = [
            stack.enter_context(
                TritonServer(
                    models.tritons[number], folder / f"triton-{number}.log", [SAME, OTHER],
                    address=host.address, prefix=host.enter,
                )
            )
            for number, host in enumerate(list(made.hosts.values())[:tritons])
        ]  # fmt: skip
        redis = stack.enter_context(RedisServer(folder / "redis", address=made.address))
        postgres = stack.enter_context(PostgresServer(made.address))
        s3 = stack.enter_context(S3Server(made.address))
        given = {
            "engine": "triton", "triton_url": ",".join(server.grpc_url for server in servers),
            "triton_repositories": ",".join(map(str, models.tritons)), "triton_silence_s": _SILENCE_S,
            "repository": models.tritons[0], "manifest": "", "variant": "n", "session_store": redis.url,
            "job_store": postgres.database(), "job_artifacts": s3.bucket(_BUCKET),
            "job_lease_s": LEASE_S,
            **s3.environment, **settings,
        }  # fmt: skip
        processes = [
            stack.enter_context(
                ClusterGateway(made.hosts[name], folder, {**given, "videos_folder": folder / name})
            )
            for name in names
        ]
        backends = [gateway.backend for gateway in processes]
        balancer = stack.enter_context(ClusterBalancer(made.hosts[_EDGE], folder, backends))
        whole = Cluster(made, models, servers, redis, postgres, s3, processes, balancer)
        whole.until_admitted()
        yield whole
