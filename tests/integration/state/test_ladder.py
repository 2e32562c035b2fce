"""Each rung of the ladder, with the real server: what goes wrong there costs no request and no counter."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Candidates, Delta, EqualPrompt
from multipick_epp.state.redis import RedisState, tail
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.redis.records import cache_name, delta_record, pack_keys
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReservationId
from multipick_sim.local.valkey import Valkey, valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A, B, C = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2, 3))
CACHE = Cache(A, 16)
CHAIN = [BlockKey(key) for key in range(1, 6)]
MORE = [BlockKey(key) for key in range(101, 106)]
LOAD = "{kv:pool}:loads"


def rid(number: int) -> ReservationId:
    return ReservationId(f"r{number}")


def pack_key(key: BlockKey) -> bytes:
    return pack_keys([key])


def pick(new_a: int = 10, new_b: int = 10) -> Candidates:
    return Candidates([A, B], [new_a, new_b])


def tokens(state: RedisState, chain: Sequence[BlockKey] = CHAIN) -> int:
    return state.hits(Chains(16 * len(chain) + 1, {16: chain})).get(A, 0)


async def fill(state: RedisState) -> None:
    """What an owner writes first: `CHAIN` by batch 0."""
    await state.take_over(A)
    assert list(await state.apply([Delta(CACHE, 1, 0, 0, CHAIN)])) == [Applied.NEW]
    await state.set_mode(A, 1, Mode.EXACT)


async def loads(connection: Connection) -> dict[bytes, int]:
    fields: Any = await connection.call("HGETALL", LOAD)
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return {name: int(figure) for name, figure in pairs if name and int(figure)}


async def no_loads(connection: Connection) -> None:
    """Wait until the store has none: what nobody waits for reaches it a little later."""
    async with asyncio.timeout(120):
        while await loads(connection):
            await asyncio.sleep(0.005)


async def owner_answers(state: RedisState, contents: Sequence[BlockKey], seq: int) -> list[Endpoint]:
    """Do what an ingest does that is told of a loss; the endpoints that it was told of."""
    told: list[Endpoint] = []
    tasks: set[asyncio.Task[None]] = set()

    async def tell_all(endpoint: Endpoint) -> None:
        await state.replace(endpoint, 1, seq, {CACHE: contents})
        await state.set_mode(endpoint, 1, Mode.EXACT)

    def lost(endpoint: Endpoint) -> None:
        told.append(endpoint)
        tasks.add(asyncio.create_task(tell_all(endpoint)))

    state.on_lost(lost)
    return told


async def test_killed(server: Valkey, replica: Start, client: Client, eventually: Eventually) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await fill(one)
    await eventually(lambda: tokens(two) == 80)
    await one.reserve(rid(1), pick())
    await one.reserve(rid(2), pick())
    await eventually(lambda: two.load(B).in_flight == 1)
    await server.kill()
    await eventually(lambda: one.degraded and two.degraded)

    assert tokens(one) == tokens(two) == 80, "the mirror goes on"
    assert two.loads([A, B]) == [Load(10, 1), Load(10, 1)], "and so does what was known of the others' load"
    here = await two.reserve(rid(3), pick())
    assert here.load == Load(10, 1)
    two.expect(A, 16, MORE, ttl_s=60)
    assert tokens(two, MORE) == 80
    one.release(rid(1))
    one.progress(rid(2), 4)
    two.move(rid(3), B)
    assert list(await one.apply([Delta(CACHE, 1, 1, 1, MORE[:1])])) == [Applied.REFUSED]
    assert tokens(one, MORE) == 16, "an ingest in the same process keeps the mirror fresh"
    assert await one.take_over(C) is None
    assert await one.clear(C, 1, 0) is Applied.REFUSED
    assert await one.replace(C, 1, 0, {}) is Applied.REFUSED
    await one.drop(C)
    await one.set_mode(A, 1, Mode.APPROX)
    assert two.stats.reserved_here == 1
    await eventually(lambda: two.stats.outages["loads", "away"] == 1)

    await server.start()
    await eventually(lambda: one.degraded is None and two.degraded is None)
    connection = await client(server.url)
    assert await loads(connection) == {B.encode(): 2 * 2**35 + 14}, "what happened meanwhile is made up for"
    await eventually(lambda: one.load(B) == two.load(B) == Load(14, 2))
    await eventually(lambda: two.mode(A) is Mode.APPROX)
    told = await connection.call("XRANGE", "{kv:pool}:log", "-", "+")
    assert [b"drop", C.encode()] in [fields for _, fields in told], "a drop is told late"
    one.release(rid(2))
    two.release(rid(3))
    await two.reserve(rid(4), pick())
    two.release(rid(4))
    await eventually(lambda: one.load(B) == two.load(B) == Load())
    await no_loads(connection)


async def test_equal_prompts_spread_evenly_while_it_is_away(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    """All were decided when the first one's pod alone was known to hold the prompt."""
    state = await replica(server.url)
    await server.kill()
    await eventually(lambda: state.degraded)
    equal_prompt = EqualPrompt(CHAIN[0], new_tokens=3)
    pods = [Endpoint(f"pod-{number}:8000") for number in range(16)]
    new_tokens = [500] * len(pods)
    for number in range(200):
        reserved = await state.reserve(rid(number), Candidates(pods, new_tokens), equal_prompt)
        state.expect(pods[reserved.index], 16, CHAIN[:1], ttl_s=60)
        if number == 0:
            new_tokens[reserved.index] = equal_prompt.new_tokens
    in_flight = [load.in_flight for load in state.loads(pods)]
    assert sum(in_flight) == state.stats.reserved_here == 200
    assert max(in_flight) - min(in_flight) <= 1


async def test_restarted_empty(server: Valkey, replica: Start, eventually: Eventually) -> None:
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    told = await owner_answers(owner, CHAIN[:3], seq=4)
    await eventually(lambda: tokens(other) == 80)
    await server.kill()
    await server.start()
    await eventually(lambda: tokens(other) == 48)
    assert set(told) == {A}
    late = await replica(server.url)
    assert tokens(late) == 48
    await late.settled()
    assert late.mode(A) is Mode.EXACT
    assert list(await owner.apply([Delta(CACHE, 1, 5, 5, CHAIN[3:])])) == [Applied.NEW]
    await eventually(lambda: tokens(late) == tokens(other) == 80)


async def test_what_no_owner_uploads_again_is_forgotten(
    server: Valkey, replica: Start, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "UNCONFIRMED_S", 0.3)
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    await eventually(lambda: tokens(other) == 80)
    await server.kill()
    await server.start()
    await eventually(lambda: other.stats.bootstraps >= 2)
    await eventually(lambda: tokens(other) == 0)
    assert other.block_size(A) is None


async def test_until_an_owner_uploads_again_the_mirror_keeps_what_it_has(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await fill(one)
    await eventually(lambda: tokens(two) == 80)
    await server.kill()
    await server.start()
    for state in (one, two):
        await eventually(lambda state=state: state.degraded is None and state.stats.bootstraps >= 2)
        await eventually(lambda state=state: state.stats.outages["tail", "away"])
        assert tokens(state) == 80


async def test_flushed_under_living_connections(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    await other.reserve(rid(1), pick())
    await owner_answers(owner, CHAIN[:2], seq=0)
    connection = await client(server.url)
    await connection.call("FLUSHALL")
    await eventually(lambda: tokens(other) == 32)
    await eventually(lambda: owner.load(A) == Load(10, 1))
    assert await loads(connection) == {A.encode(): 2**35 + 10}, "the living reservation is charged again"


async def test_restarted_with_data(replica: Start, client: Client, eventually: Eventually, server: Valkey) -> None:
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    await other.reserve(rid(1), pick())
    await other.reserve(rid(2), pick())
    await (await client(server.url)).call("SAVE")
    await server.kill()
    await eventually(lambda: owner.degraded and other.degraded)
    other.release(rid(1))
    await server.start()
    await eventually(lambda: owner.degraded is None and other.degraded is None)
    assert await loads(await client(server.url)) == {B.encode(): 2**35 + 10}
    assert tokens(await replica(server.url)) == 80
    assert list(await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.NEW], "nothing was lost"


async def test_restarted_with_old_data(replica: Start, client: Client, eventually: Eventually, server: Valkey) -> None:
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    await (await client(server.url)).call("SAVE")
    assert list(await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.NEW]
    await eventually(lambda: tokens(other, MORE) == 80)
    await server.kill()
    await eventually(lambda: owner.degraded)
    await server.start()
    await eventually(lambda: owner.degraded is None)
    assert list(await owner.apply([Delta(CACHE, 1, 2, 2, (), CHAIN)])) == [Applied.GAP], "the owner has to replace"
    await eventually(lambda: tokens(other) == tokens(other, MORE) == 0)  # as the store: neither more nor less


async def test_restarted_with_old_data_while_no_event_comes(
    replica: Start, client: Client, eventually: Eventually, server: Valkey
) -> None:
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    await (await client(server.url)).call("SAVE")
    assert list(await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.NEW]
    told = await owner_answers(owner, [*CHAIN, *MORE], seq=1)
    await server.kill()
    await eventually(lambda: owner.degraded and other.degraded)
    await server.start()
    await eventually(lambda: told)
    await eventually(lambda: tokens(other) == tokens(other, MORE) == 80)
    late = await replica(server.url)
    assert tokens(late) == tokens(late, MORE) == 80
    await (await client(server.url)).call("SAVE")
    told.clear()
    await server.kill()
    await eventually(lambda: owner.degraded)
    await server.start()
    await eventually(lambda: owner.degraded is None)
    assert list(await owner.apply([Delta(CACHE, 1, 2, 2, (), CHAIN)])) == [Applied.NEW]
    assert not told, "nothing was lost, so nothing is uploaded"


@pytest.mark.usefixtures("hasty")
async def test_paused(server: Valkey, replica: Start, client: Client, eventually: Eventually) -> None:
    state = await replica(server.url)
    await fill(state)
    await state.reserve(rid(1), pick())
    await eventually(lambda: tokens(state) == 80)
    server.pause()
    burst = await asyncio.gather(*(state.reserve(rid(number), pick()) for number in range(2, 12)))
    assert len(burst) == 10
    await eventually(lambda: state.degraded == "loads: slow")
    assert tokens(state) == 80
    for number in range(1, 9):
        state.release(rid(number))
    server.resume()
    await eventually(lambda: state.degraded is None)
    connection = await client(server.url)
    figures = await loads(connection)
    assert sum(figures.values()) == 3 * (2**35 + 10), "each charged once, whether the paused server had it or not"
    for number in range(9, 12):
        state.release(rid(number))
    await eventually(lambda: state.load(A) == state.load(B) == Load())
    await no_loads(connection)


@pytest.mark.usefixtures("hasty")
async def test_slow(server: Valkey, replica: Start, proxy: Any, eventually: Eventually) -> None:
    between = await proxy(server.port)
    state, other = await replica(f"redis://127.0.0.1:{between.port}"), await replica(server.url)
    await fill(state)
    between.delay_s = 0.2
    await eventually(lambda: state.degraded == "loads: slow")
    await state.reserve(rid(1), pick())
    assert state.stats.reserved_here == 1
    assert list(await state.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.NEW], "the index is not in a hurry"
    await eventually(lambda: tokens(state, MORE) == tokens(other, MORE) == 80)
    assert state.degraded == "loads: slow", "it does not come and go"
    between.delay_s = 0.0
    await eventually(lambda: state.degraded is None)
    await eventually(lambda: other.load(A) == Load(10, 1))


async def test_out_of_memory(server: Valkey, replica: Start, client: Client, eventually: Eventually) -> None:
    owner, other = await replica(server.url), await replica(server.url)
    await fill(owner)
    told = await owner_answers(owner, CHAIN[:4], seq=9)
    connection = await client(server.url)
    await connection.call("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    assert list(await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.REFUSED]
    await eventually(lambda: owner.degraded == "writer: full")
    assert owner.stats.outages["writer", "full"] == 1
    await owner.reserve(rid(1), pick())
    await other.reserve(rid(2), pick())
    assert await loads(connection) == {A.encode(): 2**35 + 10, B.encode(): 2**35 + 10}, "loads need no memory"
    owner.release(rid(1))
    other.release(rid(2))
    other.expect(B, 16, CHAIN, ttl_s=60)
    await eventually(lambda: len(owner.hits(Chains(81, {16: CHAIN}))) == 2)
    await no_loads(connection)
    assert owner.stats.reserved_here == other.stats.reserved_here == 0
    assert told == []
    await connection.call("CONFIG", "SET", "maxmemory", "0")
    await eventually(lambda: owner.degraded is None)
    await eventually(lambda: tokens(other) == 64)
    assert told == [A]


async def test_disk_full(replica: Start, client: Client, eventually: Eventually, tmp_path: Path) -> None:
    """A server that can't save, and is told to take no writes then: reads go on, all else is by the local view."""
    disk = tmp_path / "disk"
    disk.mkdir()
    async with valkey({"save": "3600 1", "enable-protected-configs": "yes"}) as server:
        owner, other = await replica(server.url), await replica(server.url)
        await fill(owner)
        told = await owner_answers(owner, CHAIN[:4], seq=9)
        connection = await client(server.url)
        await connection.call("CONFIG", "SET", "dir", str(disk))
        disk.rmdir()
        await connection.call("BGSAVE")
        async with asyncio.timeout(120):
            while b"rdb_last_bgsave_status:err" not in await connection.call("INFO", "persistence"):
                await asyncio.sleep(0.02)
        assert list(await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.REFUSED]
        await eventually(lambda: owner.stats.outages["writer", "disk"] and owner.stats.outages["loads", "disk"])
        assert {owner.degraded} <= {"writer: disk", "loads: disk"}
        await owner.reserve(rid(1), pick())
        assert owner.stats.reserved_here >= 1
        assert not owner.stats.outages["tail", "disk"], "what may still be read is read"
        await eventually(lambda: other.mode(A) is Mode.APPROX)
        assert tokens(other) == 80
        assert told == []
        await connection.call("CONFIG", "SET", "dir", str(tmp_path))
        await connection.call("BGSAVE")
        await eventually(lambda: owner.degraded is None and other.degraded is None)
        await eventually(lambda: tokens(other) == 64)
        assert told == [A]
        assert await loads(connection) == {A.encode(): 2**35 + 10}


async def test_too_few_standbys(server: Valkey, replica: Start, client: Client, eventually: Eventually) -> None:
    state = await replica(server.url)
    connection = await client(server.url)
    await connection.call("CONFIG", "SET", "min-replicas-to-write", 1)
    await eventually(lambda: state.stats.outages["loads", "replicas"] and state.stats.outages["writer", "replicas"])
    await connection.call("CONFIG", "SET", "min-replicas-to-write", 0)
    await eventually(lambda: state.degraded is None)


async def test_too_many_clients(server: Valkey, replica: Start, client: Client, eventually: Eventually) -> None:
    connection = await client(server.url)
    await connection.call("CONFIG", "SET", "maxclients", 1)
    state = await replica(server.url)
    assert state.degraded == "writer: clients"
    await connection.call("CONFIG", "SET", "maxclients", 100)
    await eventually(lambda: state.degraded is None)


async def test_wrong_password(
    server: Valkey, replica: Start, client: Client, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = await client(server.url)
    await connection.call("CONFIG", "SET", "requirepass", "right")
    state = await replica(server.url.replace("redis://", "redis://:wr0ng@"))
    assert state.degraded is not None
    assert state.degraded.endswith(": denied")
    await state.reserve(rid(1), pick())
    assert state.load(A) == Load(10, 1)
    assert state.stats.reserved_here == 1
    assert any(getattr(record, "reason", None) == "denied" for record in caplog.records)
    assert "wr0ng" not in caplog.text
    await connection.call("CONFIG", "SET", "requirepass", "wr0ng")
    await eventually(lambda: state.degraded is None)
    assert await loads(connection) == {A.encode(): 2**35 + 10}


async def test_a_restart_of_the_scripts_cache_costs_nothing(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    state = await replica(server.url)
    connection = await client(server.url)
    await connection.call("SCRIPT", "FLUSH")
    await state.reserve(rid(1), pick())
    await eventually(lambda: state.stats.outages["loads", "flushed"])
    await eventually(lambda: state.degraded is None)
    state.release(rid(1))
    await eventually(lambda: state.load(A) == Load())
    await no_loads(connection)


async def test_hashes_of_the_hot_path_are_tables(server: Valkey, replica: Start, client: Client) -> None:
    """As a list, which the server keeps of few short fields, a pool of 256 endpoints doubles the cost of a reserve."""
    state = await replica(server.url)
    await state.reserve(rid(1), pick())
    connection = await client(server.url)
    for name in (LOAD, "{kv:pool}:charges:replica-0"):
        assert await connection.call("OBJECT", "ENCODING", name) == b"hashtable"


async def test_a_set_that_vanished_shows_as_a_gap(server: Valkey, replica: Start, client: Client) -> None:
    owner = await replica(server.url)
    await fill(owner)
    connection = await client(server.url)
    name = '{kv:pool}:b:["10.0.0.1:8000",16,"GPU",0,"full_attention",0]'
    assert await connection.call("UNLINK", name) == 1  # evicted, expired, or deleted by hand
    assert list(await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])) == [Applied.GAP]


async def test_a_reader_that_fell_behind_the_log_loads_the_sets(
    server: Valkey, replica: Start, client: Client, proxy: Any, eventually: Eventually
) -> None:
    owner = await replica(server.url)
    between = await proxy(server.port)
    slow = await replica(f"redis://127.0.0.1:{between.port}")
    await fill(owner)
    await eventually(lambda: tokens(slow) == 80)
    between.flowing.clear()
    for seq in range(1, 300):
        await owner.apply([Delta(CACHE, 1, seq, seq, [BlockKey(1000 + seq)], [BlockKey(999 + seq)])])
    await owner.apply([Delta(CACHE, 1, 300, 300, MORE, CHAIN)])
    await (await client(server.url)).call("XTRIM", "{kv:pool}:log", "MAXLEN", 200)
    between.flowing.set()
    await eventually(lambda: slow.stats.bootstraps == 2)
    await eventually(lambda: tokens(slow, MORE) == 80)
    assert tokens(slow) == 0
    assert [tokens(slow, [BlockKey(1000 + seq)]) for seq in (1, 150, 299)] == [0, 0, 16]


async def test_a_log_that_is_deleted_between_two_reads_hides_nothing(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """Nobody has read what was deleted, and what came after it looks like the next entry."""
    owner, reader = await replica(server.url), await replica(server.url)
    await fill(owner)
    await eventually(lambda: tokens(reader) == 80)
    connection = await client(server.url)
    blocks = b"{kv:pool}:b:" + cache_name(CACHE)
    await connection.call("MULTI")
    for number in (101, 102):
        record = delta_record(CACHE, [BlockKey(number)], ())
        await connection.call("DEL", "{kv:pool}:log")
        await connection.call("SADD", blocks, record[-8:])
        await connection.call("XADD", "{kv:pool}:log", "*", "delta", record)
    await connection.call("EXEC")
    for state in (owner, reader):
        await eventually(lambda state=state: tokens(state, MORE[:2]) == 32)


async def test_a_mirror_that_is_not_what_the_store_has_is_loaded_again(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """Whatever it was that made them differ: here, what nobody told."""
    owner, reader = await replica(server.url), await replica(server.url)
    await fill(owner)
    connection = await client(server.url)
    await connection.call("SADD", b"{kv:pool}:b:" + cache_name(CACHE), *map(pack_key, MORE))
    for state in (owner, reader):
        await eventually(lambda state=state: tokens(state, MORE) == 80)
        assert state.stats.repairs == 1
        assert tokens(state) == 80
    await owner.apply([Delta(CACHE, 1, 1, 1, (), MORE)])
    await eventually(lambda: tokens(reader, MORE) == 0)


async def test_a_set_that_lost_something_is_not_loaded(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """Its owner will tell it anew; until then the mirror knows better."""
    owner, reader = await replica(server.url), await replica(server.url, ingests=False)
    await fill(owner)
    await eventually(lambda: tokens(reader) == 80)
    connection = await client(server.url)
    await connection.call("SREM", b"{kv:pool}:b:" + cache_name(CACHE), b"", *map(pack_key, CHAIN[:2]))
    while await scans(connection) < 2:  # by both mirrors
        await asyncio.sleep(0.01)
    await owner.apply([Delta(CACHE, 1, 1, 1, MORE)])
    for state in (owner, reader):
        await eventually(lambda state=state: tokens(state, MORE) == 80)  # what was loaded was so before
        assert tokens(state) == 80
        assert state.stats.repairs == 0


async def scans(connection: Connection) -> int:
    """How often a set was read."""
    statistics = (await connection.call("INFO", "commandstats")).decode()
    found = re.search(r"cmdstat_sscan:calls=(\d+)", statistics)
    return int(found[1]) if found else 0
