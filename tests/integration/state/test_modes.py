"""How well an endpoint is known is for its owner to say, and holds as long as he is there and we hear him."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Delta
from multipick_epp.state.redis import RedisState, calls
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.succession import Notes, Position
from multipick_epp.types import BlockKey, Endpoint, Mode
from multipick_sim.local.valkey import Valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
KEY = BlockKey(1)


async def own(state: RedisState, endpoint: Endpoint) -> None:
    """Take it over, and know one block of it exactly."""
    tenure = await state.take_over(endpoint)
    assert tenure is not None
    assert list(await state.apply([Delta(Cache(endpoint, 16), tenure.epoch, 0, 0, [KEY])])) == [Applied.NEW]
    await state.set_mode(endpoint, tenure.epoch, Mode.EXACT)


def says(state: RedisState, endpoint: Endpoint, mode: Mode) -> Callable[[], bool]:
    """In `mode`, with the one block that is known of it."""
    return lambda: state.mode(endpoint) is mode and state.hits(Chains(17, {16: [KEY]})).get(endpoint) == 16


async def die(state: RedisState) -> None:
    """Without a word."""
    for task in state._tasks:
        task.cancel()
    await asyncio.gather(*state._tasks, return_exceptions=True)


async def test_the_last_who_took_over_has_the_word(server: Valkey, replica: Start, eventually: Eventually) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await own(one, A)
    await eventually(says(two, A, Mode.EXACT))
    tenure = await two.take_over(A)
    assert tenure is not None
    assert tenure.mode is Mode.APPROX, "there were no notes to go on from"
    assert await one.set_mode(A, 1, Mode.EXACT) is Applied.STALE
    for state in (one, two):
        await eventually(says(state, A, Mode.APPROX))
    assert await two.set_mode(A, tenure.epoch, Mode.EXACT) is Applied.NEW
    for state in (one, two):
        await eventually(says(state, A, Mode.EXACT))


async def test_who_owned_it_before_the_store_was_lost_is_not_taken_for_the_owner_of_now(
    server: Valkey, replica: Start, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "now_ms", itertools.count(1_700_000_000_000).__next__)
    one, two = [await replica(server.url, picks=False, ingests=False) for _ in range(2)]
    first = await one.take_over(A)
    await (await client(server.url)).call("FLUSHALL")
    second = await two.take_over(A)
    assert first is not None
    assert second is not None
    assert list(await one.apply([Delta(Cache(A, 16), first.epoch, 0, 0, [KEY])])) == [Applied.STALE]
    assert await one.set_mode(A, first.epoch, Mode.EXACT) is Applied.STALE
    assert await one.replace(A, first.epoch, 5, {}) is Applied.STALE
    assert list(await two.apply([Delta(Cache(A, 16), second.epoch, 0, 0, [KEY])])) == [Applied.NEW]


async def note(state: RedisState, endpoint: Endpoint) -> None:
    """Leave what a successor needs."""
    notes = Notes(Position(0, 1, True, "tcp://10.0.0.1:5557"), (), {})
    assert await state.note(endpoint, 1, notes) is Applied.NEW


async def test_who_takes_over_from_one_that_is_alive_has_his_word(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await own(one, A)
    await note(one, A)
    tenure = await two.take_over(A)
    assert tenure is not None
    assert (tenure.mode, tenure.inheritance is not None) == (Mode.EXACT, True)


async def test_what_a_dead_one_said_last_does_not_stand(server: Valkey, replica: Start, eventually: Eventually) -> None:
    """What came since then is missing, until the next one has caught up."""
    one, reader = await replica(server.url), await replica(server.url)
    await own(one, A)
    await note(one, A)
    await die(one)
    late = await replica(server.url)
    tenure = await late.take_over(A)
    assert tenure is not None
    assert (tenure.mode, tenure.inheritance is not None) == (Mode.APPROX, True)
    for state in (reader, late):
        await eventually(says(state, A, Mode.APPROX))
    assert await late.set_mode(A, tenure.epoch, Mode.EXACT) is Applied.NEW
    for state in (reader, late):
        await eventually(says(state, A, Mode.EXACT))


async def test_what_is_said_is_said_again_to_a_store_that_forgot_it(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await own(one, A)
    await (await client(server.url)).call("DEL", "{kv:pool}:modes")
    late = await replica(server.url)
    for state in (one, two, late):
        await eventually(says(state, A, Mode.EXACT))


async def test_what_is_said_as_all_is_said_again_stands(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one, reader = await replica(server.url), await replica(server.url)
    await own(one, A)
    await eventually(says(reader, A, Mode.EXACT))
    again = asyncio.create_task(one._writer._tell_modes())
    assert await asyncio.create_task(one.set_mode(A, 1, Mode.APPROX)) is Applied.NEW
    await again
    assert await (await client(server.url)).call("HGET", "{kv:pool}:modes", A) == b"approx"
    await eventually(says(reader, A, Mode.APPROX))


async def test_an_owner_that_is_gone_makes_nothing_exact(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    one, two, reader = [await replica(server.url) for _ in range(3)]
    await own(one, A)
    await own(two, B)
    await eventually(says(reader, A, Mode.EXACT))
    await eventually(says(reader, B, Mode.EXACT))
    await die(one)
    await eventually(says(reader, A, Mode.APPROX))
    assert says(reader, B, Mode.EXACT)()
    late = await replica(server.url)
    await late.settled()
    assert says(late, A, Mode.APPROX)()
    assert says(late, B, Mode.EXACT)(), "who starts waits until it knows who is there"


async def test_one_that_leaves_is_trusted_until_another_can_have_followed(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    one, two, reader = [await replica(server.url) for _ in range(3)]
    await own(one, A)
    await eventually(says(reader, A, Mode.EXACT))
    await one.close()
    await eventually(lambda: two.owned([A]) or reader.owned([A]), within_s=1.0)
    assert says(reader, A, Mode.EXACT)()
    await eventually(says(reader, A, Mode.APPROX))


async def test_a_store_that_is_away_or_stands_still_makes_nothing_exact(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    one, reader = await replica(server.url), await replica(server.url)
    await own(one, A)
    await eventually(says(reader, A, Mode.EXACT))
    server.pause()
    await eventually(says(reader, A, Mode.APPROX))
    server.resume()
    await eventually(says(reader, A, Mode.EXACT))
    await server.kill()
    await eventually(says(reader, A, Mode.APPROX))
    await server.start()
    await eventually(lambda: one.degraded is reader.degraded is None)
    assert says(reader, A, Mode.APPROX)(), "the owner has not told it again yet"


async def test_a_reader_that_lags_says_so(server: Valkey, replica: Start, proxy: Any, eventually: Eventually) -> None:
    one, between = await replica(server.url), await proxy(server.port)
    reader = await replica(f"redis://127.0.0.1:{between.port}")
    await own(one, A)
    await eventually(says(reader, A, Mode.EXACT))
    between.flowing.clear()
    await eventually(says(reader, A, Mode.APPROX))
    assert says(one, A, Mode.EXACT)()
    between.flowing.set()
    await eventually(says(reader, A, Mode.EXACT))


async def test_a_full_store_hears_what_is_not_exact_any_more(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one, reader = await replica(server.url), await replica(server.url)
    await own(one, A)
    await eventually(says(reader, A, Mode.EXACT))
    connection = await client(server.url)
    await connection.call("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    assert list(await one.apply([Delta(Cache(A, 16), 1, 1, 1, [BlockKey(2)])])) == [Applied.REFUSED]
    await eventually(says(reader, A, Mode.APPROX))
    await connection.call("CONFIG", "SET", "maxmemory", "0")


NOTES = Notes(Position(7, 1, True, "tcp://10.0.0.1:5557"), (), {})


async def looked_for_the_owner(connection: Connection) -> int:
    """How often somebody did."""
    stats: Any = await connection.call("INFO", "commandstats")
    found = re.search(rb"cmdstat_exists:calls=(\d+)", stats)
    return int(found[1]) if found else 0


async def test_an_owner_is_followed_between_its_writes_and_not_amid_one(
    server: Valkey, replica: Start, client: Client
) -> None:
    one, two = await replica(server.url, picks=False), await replica(server.url, picks=False)
    await own(one, A)  # blocks are written, what belongs to them is not
    connection = await client(server.url)
    await one.retire()  # it goes on until another has taken over
    before = await looked_for_the_owner(connection)
    following = asyncio.create_task(two.take_over(A))
    while await looked_for_the_owner(connection) == before:
        await asyncio.sleep(0.001)
    assert await one.note(A, 1, NOTES) is Applied.NEW
    tenure = await following
    assert tenure is not None
    assert tenure.mode is Mode.EXACT
    assert tenure.inheritance is not None
    assert tenure.inheritance.position == NOTES.position
    assert tenure.inheritance.contents == {Cache(A, 16): {KEY}}


async def test_an_owner_that_died_amid_a_write_is_followed_all_the_same(server: Valkey, replica: Start) -> None:
    one, two = [await replica(server.url, picks=False, ingests=False) for _ in range(2)]
    await own(one, A)
    await die(one)
    tenure = await two.take_over(A)
    assert tenure is not None
    assert (tenure.epoch, tenure.mode, tenure.inheritance) == (2, Mode.APPROX, None)
