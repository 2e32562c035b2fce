"""An endpoint that left the pool and has come back is there: no drop of it is told late."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Candidates, Delta
from multipick_epp.state.redis import RedisState
from multipick_epp.state.redis.connection import Connection
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId
from multipick_sim.local.valkey import Valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
CHAIN = [BlockKey(key) for key in range(1, 6)]
DROP_A = [b"drop", A.encode()]


async def own(state: RedisState, endpoint: Endpoint) -> None:
    """Take it over, and know `CHAIN` of it exactly."""
    tenure = await state.take_over(endpoint)
    assert tenure is not None
    assert list(await state.apply([Delta(Cache(endpoint, 16), tenure.epoch, 0, 0, CHAIN)])) == [Applied.NEW]
    await state.set_mode(endpoint, tenure.epoch, Mode.EXACT)


def says(state: RedisState, mode: Mode) -> Callable[[], bool]:
    """Of A, with all of `CHAIN`."""
    return lambda: state.mode(A) is mode and state.hits(Chains(81, {16: CHAIN})).get(A) == 80


async def told(connection: Connection) -> list[Any]:
    """All records of the log."""
    return [fields for _, fields in await connection.call("XRANGE", "{kv:pool}:log", "-", "+")]


async def test_what_is_back_with_the_store_keeps_its_load_and_its_blocks(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    ingest = await replica(server.url, picks=False)
    one, two = await replica(server.url, ingests=False), await replica(server.url, ingests=False)
    await own(ingest, A)
    for picker in (one, two):
        await eventually(says(picker, Mode.EXACT))
    server.pause()
    await eventually(lambda: ingest.degraded and one._writer._calls.connection is None)
    for state in (ingest, one):
        state.there([B])
        await state.drop(A)
        state.there([A, B])
    for number, picker in enumerate((one, two)):
        await picker.reserve(ReservationId(f"r{number}"), Candidates([A], [100]))
    server.resume()
    for state in (ingest, one, two):
        await eventually(lambda state=state: state.degraded is None)
    for picker in (one, two):
        await eventually(lambda picker=picker: picker.load(A).in_flight == 2)
        await eventually(says(picker, Mode.APPROX))
    connection = await client(server.url)
    assert await connection.call("HGET", "{kv:pool}:modes", A) == b"approx", "nobody has followed it since"
    assert DROP_A not in await told(connection)
    tenure = await ingest.take_over(A)
    assert tenure is not None
    await ingest.set_mode(A, tenure.epoch, Mode.EXACT)
    for picker in (one, two):
        await eventually(says(picker, Mode.EXACT))
        assert picker.stats.repairs == 0, "no mirror was without them"


async def test_of_two_that_left_while_it_was_away_the_one_that_did_not_come_back_is_dropped(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    owner, reader = await replica(server.url), await replica(server.url)
    for endpoint in (A, B):
        await own(owner, endpoint)
    await eventually(lambda: set(reader.index.known()) == {A, B})
    server.pause()
    await eventually(lambda: owner._writer._calls.connection is None)
    for endpoint in (A, B):
        await owner.drop(endpoint)
    owner.there([B])
    server.resume()
    for state in (owner, reader):
        await eventually(lambda state=state: set(state.index.known()) == {B})
    assert DROP_A in await told(await client(server.url))


async def test_a_drop_that_is_under_way_as_it_comes_back_ends_there(
    server: Valkey, replica: Start, client: Client, proxy: Any, eventually: Eventually
) -> None:
    between = await proxy(server.port)
    owner, picker = await replica(server.url), await replica(f"redis://127.0.0.1:{between.port}", ingests=False)
    await own(owner, A)
    await eventually(says(picker, Mode.EXACT))
    between.flowing.clear()
    dropping = asyncio.create_task(picker.drop(A))
    await asyncio.sleep(0.1)
    picker.there([A])
    between.flowing.set()
    await dropping
    await picker.drop(A)  # as late
    assert DROP_A not in await told(await client(server.url))
    await eventually(says(picker, Mode.EXACT))
