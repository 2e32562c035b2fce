"""Four replicas under load; the server pauses, dies and comes back empty, a replica dies.

In the end every counter is 0 and every mirror is what the owner knows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Candidates, Delta
from multipick_epp.state.redis import RedisState, parse_url
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReplicaId, ReservationId
from multipick_sim.local.valkey import Valkey

PODS = [Endpoint(f"pod-{number}:8000") for number in range(8)]
KEYS = [BlockKey((5 << 56) + index) for index in range(400)]


async def requests(name: str, state: RedisState, rng: Random, count: int) -> None:
    """Requests one after the other, each with a life of its own; some are aborted while they are being reserved."""

    async def one(reservation: ReservationId) -> None:
        await state.reserve(reservation, Candidates(rng.sample(PODS, 4), [rng.randint(1, 900) for _ in range(4)]))
        for _ in range(rng.randint(0, 3)):
            await asyncio.sleep(rng.random() * 0.02)
            state.progress(reservation, rng.randint(0, 900))
            if rng.random() < 0.2:
                state.move(reservation, rng.choice(PODS))
        for _ in range(rng.randint(1, 2)):
            state.release(reservation)

    running: set[asyncio.Task[None]] = set()
    for number in range(count):
        task = asyncio.create_task(one(ReservationId(f"{name}-{number}")))
        running.add(task)
        await asyncio.sleep(rng.random() * 0.004)
        if rng.random() < 0.1:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            state.release(ReservationId(f"{name}-{number}"))  # as a picker does that was cancelled
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)], "no request is lost"


class Owner:
    """Ingests made-up events of all pods, and answers losses."""

    def __init__(self, state: RedisState, rng: Random) -> None:
        self.truth: dict[Endpoint, set[BlockKey]] = {pod: set() for pod in PODS}
        self._state = state
        self._rng = rng
        self._seq = dict.fromkeys(PODS, -1)
        self._stale: set[Endpoint] = set()
        state.on_lost(self._stale.add)

    async def begin(self) -> None:
        for pod in PODS:
            await self._state.take_over(pod)
            await self._state.set_mode(pod, 1, Mode.EXACT)

    async def step(self) -> None:
        pod = self._rng.choice(PODS)
        self._seq[pod] += 1
        stored, removed = (set(self._rng.sample(KEYS, 12)) for _ in range(2))
        self.truth[pod] = (self.truth[pod] | stored) - (removed - stored)
        delta = Delta(Cache(pod, 16), 1, self._seq[pod], self._seq[pod], sorted(stored), sorted(removed - stored))
        if await self._state.apply([delta]) != [Applied.NEW]:
            self._stale.add(pod)
        await self.heal()

    async def heal(self) -> bool:
        """Whether nothing is owed any more."""
        for pod in list(self._stale):
            self._stale.discard(pod)
            contents = {Cache(pod, 16): sorted(self.truth[pod])}
            if await self._state.replace(pod, 1, self._seq[pod], contents) is not Applied.NEW:
                self._stale.add(pod)
        return not self._stale


def seen(state: RedisState) -> dict[Endpoint, set[BlockKey]]:
    """The mirror, a block at a time."""
    held: dict[Endpoint, set[BlockKey]] = {pod: set() for pod in PODS}
    for key in KEYS:
        for pod in state.hits(Chains(17, {16: [key]})):
            held[pod].add(key)
    return held


@pytest.mark.usefixtures("hasty")
async def test_storm(
    server: Valkey, replica: Callable[..., Awaitable[RedisState]], eventually: Callable[..., Awaitable[None]]
) -> None:
    victim = RedisState(parse_url(server.url), "pool", ReplicaId("victim"))
    await victim.start()
    for number in range(30):
        await victim.reserve(ReservationId(f"victim-{number}"), Candidates(PODS, [50] * len(PODS)))
    for task in victim._tasks:  # it dies without a word
        task.cancel()
    replicas = [await replica(server.url) for _ in range(4)]
    owner = Owner(replicas[0], Random(1))
    await owner.begin()
    ended = asyncio.Event()

    async def ingest() -> None:
        while not ended.is_set():
            await owner.step()
            await asyncio.sleep(0.002)

    async def hurt() -> None:
        await asyncio.sleep(0.5)
        server.pause()
        await asyncio.sleep(0.4)
        server.resume()
        await asyncio.sleep(0.3)
        await server.kill()
        await asyncio.sleep(0.3)
        await server.start()

    traffic: list[Any] = [requests(f"r{n}", state, Random(n), 600) for n, state in enumerate(replicas)]
    ingesting = asyncio.create_task(ingest())
    await asyncio.gather(hurt(), *traffic)
    ended.set()
    await ingesting
    await eventually(lambda: all(state.degraded is None for state in replicas))
    async with asyncio.timeout(120):
        while not await owner.heal():
            await asyncio.sleep(0.05)
    for state in replicas:
        await eventually(lambda state=state: all(state.load(pod) == Load() for pod in PODS))
        await eventually(lambda state=state: seen(state) == owner.truth)
    for pod in PODS:  # what the store itself says
        assert (await replicas[0].reserve(ReservationId(f"last-{pod}"), Candidates([pod], [1]))).load == Load()
    assert sum(state.stats.reserved_here for state in replicas) > 0, "some requests were decided without the server"
