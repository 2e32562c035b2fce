"""A replica that dies without a word: its load is released and its endpoints find a new owner."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from multipick_epp.state.protocol import Candidates
from multipick_epp.state.redis import RedisState
from multipick_epp.state.redis.connection import Connection
from multipick_epp.types import Endpoint, Load, ReservationId
from multipick_sim.local.processes import running
from multipick_sim.local.valkey import Valkey

PODS = [Endpoint(f"pod-{number}:8000") for number in range(16)]
RESERVATIONS = 3000  # many steps of reaping

VICTIM = """
import asyncio, sys
from multipick_epp.state.protocol import Candidates
from multipick_epp.state.redis import RedisState, parse_url
from multipick_epp.types import Endpoint, ReplicaId, ReservationId

async def main(url, reservations):
    state = RedisState(parse_url(url), "pool", ReplicaId("victim"))
    await state.start()
    pods = Candidates([Endpoint(f"pod-{number}:8000") for number in range(16)], [10] * 16)
    for number in range(int(reservations)):
        await state.reserve(ReservationId(f"victim-{number}"), pods)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9(
    server: Valkey,
    replica: Callable[..., Awaitable[RedisState]],
    eventually: Callable[..., Awaitable[None]],
    tmp_path: Path,
) -> None:
    survivor, other = await replica(server.url), await replica(server.url)
    mine = ReservationId("mine")
    command = [sys.executable, "-c", VICTIM, server.url, str(RESERVATIONS)]
    async with running(command, log=tmp_path / "victim.log") as victim:
        await eventually(lambda: sum(survivor.load(pod).in_flight for pod in PODS) == RESERVATIONS)
        await eventually(lambda: len(survivor.owned(PODS)) + len(other.owned(PODS)) < len(PODS))
        await survivor.reserve(mine, Candidates([PODS[0]], [5]))
        victim.kill()
        await victim.wait()
    # Within 5 and 10 s, on a machine that is not busy otherwise.
    await eventually(lambda: len(survivor.owned(PODS)) + len(other.owned(PODS)) == len(PODS))
    await eventually(lambda: sum(survivor.load(pod).in_flight for pod in PODS) == 1)
    assert survivor.load(PODS[0]) == Load(5, 1)
    assert survivor.stats.reaped + other.stats.reaped == RESERVATIONS


async def test_a_replica_that_was_thought_dead_charges_again(
    server: Valkey,
    replica: Callable[..., Awaitable[RedisState]],
    eventually: Callable[..., Awaitable[None]],
    client: Callable[..., Awaitable[Connection]],
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await one.reserve(ReservationId("r"), Candidates([PODS[0]], [5]))
    connection = await client(server.url)
    await connection.call("HDEL", "{kv:pool}:leases", "replica-0")  # as reaping does
    await connection.call("UNLINK", "{kv:pool}:charges:replica-0")
    await eventually(lambda: one.stats.recharged == 1)
    await eventually(lambda: one.degraded is None and two.load(PODS[0]) == Load(5, 1))
    one.release(ReservationId("r"))
    await eventually(lambda: one.load(PODS[0]) == two.load(PODS[0]) == Load())


async def test_a_store_that_forgot_the_leases_makes_nobody_the_owner_of_all(
    server: Valkey,
    replica: Callable[..., Awaitable[RedisState]],
    eventually: Callable[..., Awaitable[None]],
    client: Callable[..., Awaitable[Connection]],
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await eventually(lambda: len(one.owned(PODS)) + len(two.owned(PODS)) == len(PODS))
    before = one.owned(PODS), two.owned(PODS)
    seen = []

    def both_know_of_each_other_again() -> bool:
        seen.append((one.owned(PODS), two.owned(PODS)))
        return all(state.degraded is None and state.stats.outages["writer", "flushed"] for state in (one, two))

    await (await client(server.url)).call("FLUSHALL")
    await eventually(both_know_of_each_other_again)
    assert all(owned == before for owned in seen)
