"""A replica that is alone charges by its own view; who comes is heard of before it charges."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from multipick_epp.state.protocol import Candidates, State
from multipick_epp.state.redis import RedisState, loads
from multipick_epp.state.redis.connection import Connection
from multipick_epp.types import BlockKey, Endpoint, Load, ReservationId
from multipick_sim.local.valkey import Valkey

from tests.integration.state.conftest import Proxy

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

POD = Endpoint("pod:8000")
LOAD, LEASES, HINTS = "{kv:pool}:loads", "{kv:pool}:leases", "{kv:pool}:hints"


def rid(number: int) -> ReservationId:
    return ReservationId(f"r{number}")


async def burst(*replicas: State) -> Counter[int]:
    """Where 200 requests went that all came at once, in turn to each replica."""
    pool = Candidates([Endpoint(f"pod-{number}:8000") for number in range(16)], [1000] * 16)
    reserves = [replicas[number % len(replicas)].reserve(rid(number), pool) for number in range(200)]
    return Counter(reserved.index for reserved in await asyncio.gather(*reserves))


async def test_a_store_that_is_slow_delays_nobody_who_is_alone(
    server: Valkey, replica: Start, proxy: Callable[..., Awaitable[Proxy]], client: Client, eventually: Eventually
) -> None:
    between = await proxy(server.port)
    state = await replica(f"redis://127.0.0.1:{between.port}")
    await eventually(lambda: state.alone)
    between.flowing.clear()
    assert sorted((await burst(state)).values()) == [12] * 8 + [13] * 8
    between.flowing.set()
    connection, found = await client(server.url), 0
    async with asyncio.timeout(120):
        while found != 200:
            fields = await connection.call("HVALS", LOAD)
            found = sum(int(each) >> 35 for each in fields if each.isdigit())
    assert state.stats.recharged == state.stats.load_repairs == 0


async def test_who_comes_charges_only_when_it_has_been_heard_of(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    """So a burst right behind spreads as over one; and it goes on so until the last but one has left."""
    one = await replica(server.url)
    await eventually(lambda: one.alone)
    two = await replica(server.url)
    assert not one.alone
    assert sorted((await burst(one, two)).values()) == [12] * 8 + [13] * 8
    for number in range(200):
        (one, two)[number % 2].release(rid(number))
    await two.close()
    await eventually(lambda: one.alone)
    assert sorted((await burst(one)).values()) == [12] * 8 + [13] * 8
    assert one.stats.reserved_here == two.stats.reserved_here == 0


async def test_who_comes_waits_for_the_renewal_where_it_is_not_heard(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """As by one whose mirror is away: it hears no hints."""
    one = await replica(server.url)
    await eventually(lambda: one.alone)
    connection = await client(server.url)
    await connection.call("DEL", HINTS)
    await connection.call("SET", HINTS, "no stream")
    await replica(server.url)
    assert not one.alone


async def test_a_dead_replica_that_was_alone_holds_nobody_up_for_long(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    connection = await client(server.url)
    await connection.call("HSET", LEASES, "dead", "77 alone")
    loop = asyncio.get_running_loop()
    started = loop.time()
    state = await replica(server.url)
    assert loop.time() - started >= loads.HEARD_WITHIN_S
    assert state.degraded is None
    assert not state.alone
    await eventually(lambda: state.alone)  # when the dead one has been reaped


async def test_nobody_is_told_of_prompts_where_nobody_is(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one = await replica(server.url)
    connection = await client(server.url)
    await eventually(lambda: one.alone)
    before = await connection.call("XLEN", HINTS)
    await one.reserve(rid(1), Candidates([POD], [32]))
    one.expect(POD, 16, [BlockKey(5)], 60.0, rid(1))
    one.withdraw(POD, rid(1))
    one.release(rid(1))
    while await connection.call("HGET", LOAD, POD) != b"0":
        await asyncio.sleep(0.005)
    assert await connection.call("XLEN", HINTS) == before


@pytest.mark.parametrize("verb", ["release", "progress", "move", "drop"])
async def test_the_store_has_what_is_charged_alone_and_then_together(
    server: Valkey, replica: Start, eventually: Eventually, verb: str
) -> None:
    one = await replica(server.url)
    await eventually(lambda: one.alone)
    other = Endpoint("other:8000")
    await one.reserve(rid(1), Candidates([POD], [100]))
    match verb:
        case "release":
            one.release(rid(1))
        case "progress":
            one.progress(rid(1), 40)
        case "move":
            one.move(rid(1), other)
        case _:
            await one.drop(POD)
    two = await replica(server.url)
    pods = [POD, other]
    expected = {
        "release": [Load(), Load()],
        "progress": [Load(40, 1), Load()],
        "move": [Load(), Load(100, 1)],
        "drop": [Load(), Load()],
    }[verb]
    assert [*one.loads(pods)] == expected
    await eventually(lambda: [*two.loads(pods)] == expected)
    assert (await two.reserve(rid(2), Candidates([POD], [1]))).load == expected[0]
    assert one.stats.recharged == one.stats.load_repairs == two.stats.load_repairs == 0
