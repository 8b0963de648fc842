"""Parts of the cluster are killed and started again, each as soon as the effects of the last one are over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from support.cluster.records import OF_FRAMES, OF_JOBS, OF_SESSIONS, Record
from support.cluster.service import Cluster
from support.waiting import eventually


@dataclass(slots=True)
class Deed:
    """One thing that was done to one part.

    Args:
        part: `gateway-2`, `triton-1`, `redis`, `postgres`, `balancer`.
        action: `kill`, `maintenance` or `reload`.
        began, noticed, over: on the monotonic clock, in seconds. From `noticed` on nothing is sent to the part, or
            whoever needs it is refused; from `over` on it serves again, and every gateway has found that out.
    """

    part: str
    action: str
    began: float
    noticed: float = 0.0
    over: float = 0.0


class Deeds:
    """Disturbances of a cluster under load. `records`: those of the load, as they come."""

    def __init__(self, cluster: Cluster, records: list[Record]) -> None:
        self._cluster = cluster
        self._records = records
        self.done: list[Deed] = []

    async def gateway(self, number: int) -> None:
        """Kill one gateway; it is back once the balancer sends it requests."""
        gateway = self._cluster.gateways[number]
        deed = self._begin(gateway.backend.name, "kill")
        gateway.kill()
        await self._until(lambda: not self._up(deed.part))
        deed.noticed = time.monotonic()
        gateway.start()
        await self._until(gateway.ready)
        await self._until(lambda: self._up(deed.part))
        await self._end(deed)

    async def triton(self, number: int) -> None:
        """Kill one Triton; it is back once every gateway has had a frame answered by it."""
        triton = self._cluster.tritons[number]
        deed = self._begin(f"triton-{number + 1}", "kill")
        await asyncio.to_thread(triton.kill)
        deed.noticed = time.monotonic()
        await self._more(50)
        await asyncio.to_thread(triton.start)
        await self._until(lambda: self._answered(deed.noticed, OF_FRAMES, triton.grpc_url))
        await self._end(deed)

    async def redis(self) -> None:
        """Kill Redis, which forgets everything; it is back once every gateway answers frames of sessions."""
        deed = self._begin("redis", "kill")
        await asyncio.to_thread(self._cluster.redis.kill)
        await self._until(lambda: self._refused(deed.began, OF_SESSIONS))
        deed.noticed = time.monotonic()
        await asyncio.to_thread(self._cluster.redis.start)
        await self._until(lambda: self._answered(deed.noticed, OF_SESSIONS))
        await self._end(deed)

    async def postgres(self) -> None:
        """Kill PostgreSQL; it is back once every gateway knows of jobs."""
        deed = self._begin("postgres", "kill")
        await asyncio.to_thread(self._cluster.postgres.kill)
        await self._until(lambda: self._refused(deed.began, OF_JOBS))
        deed.noticed = time.monotonic()
        await asyncio.to_thread(self._cluster.postgres.start)
        await self._until(lambda: self._answered(deed.noticed, OF_JOBS))
        await self._end(deed)

    async def maintenance(self, number: int) -> None:
        """Take one gateway out of the balancer and put it back; the others answer meanwhile."""
        deed = self._begin(self._cluster.gateways[number].backend.name, "maintenance")
        self._cluster.balancer.drain(deed.part)
        deed.noticed = time.monotonic()
        await self._more(25)
        self._cluster.balancer.admit(deed.part)
        await self._until(lambda: self._up(deed.part))
        await self._end(deed)

    async def reload(self) -> None:
        """Have another process of the balancer take over."""
        deed = self._begin("balancer", "reload")
        await asyncio.to_thread(self._cluster.balancer.reload)
        deed.noticed = time.monotonic()
        await self._end(deed)

    async def balancer(self) -> None:
        """Kill the balancer, with all connections; it is back once it listens."""
        deed = self._begin("balancer", "kill")
        self._cluster.balancer.kill()
        deed.noticed = time.monotonic()
        await asyncio.to_thread(self._cluster.balancer.start)
        await self._end(deed)

    def _begin(self, part: str, action: str) -> Deed:
        deed = Deed(part, action, time.monotonic())
        self.done.append(deed)
        return deed

    async def _end(self, deed: Deed) -> None:
        deed.over = time.monotonic()
        await self._more(50)

    async def _more(self, count: int) -> None:
        """Wait for so many more answers of the load."""
        wanted = len(self._records) + count
        await self._until(lambda: len(self._records) >= wanted)

    def _up(self, name: str) -> bool:
        return self._cluster.balancer.states().get(name, "").startswith("UP")

    def _refused(self, since: float, kinds: frozenset[str]) -> bool:
        """Return whether a request of these kinds that began since then has failed."""
        return any(record.failed for record in self._recent(since, kinds))

    def _answered(self, since: float, kinds: frozenset[str], endpoint: str | None = None) -> bool:
        """Return whether every gateway has answered such a request, by this Triton if one is given."""
        served = {
            record.served
            for record in self._recent(since, kinds)
            if not record.failed and endpoint in (None, record.endpoint)
        }
        return served >= {gateway.backend.name for gateway in self._cluster.gateways}

    def _recent(self, since: float, kinds: frozenset[str]) -> Iterator[Record]:
        return (record for record in self._records[:] if record.began >= since and record.kind in kinds)

    @staticmethod
    async def _until(true: Callable[[], bool]) -> None:
        def calm() -> bool:
            time.sleep(0.05)  # each question costs something
            return true()

        await asyncio.to_thread(eventually, calm)
