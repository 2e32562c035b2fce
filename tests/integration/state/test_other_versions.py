"""What another version of multipick, or anybody, writes beside this one costs nothing but itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Candidates, Delta
from multipick_epp.state.redis import RedisState, writer
from multipick_epp.state.redis.connection import REPLY_BYTES, Connection
from multipick_epp.state.redis.records import delta_record, pack_keys
from multipick_epp.state.redis.sets import NAMES_AT_MOST
from multipick_epp.state.succession import Tenure
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId
from multipick_sim.local.valkey import Valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
CACHE = Cache(A, 16)
CHAIN = [BlockKey(key) for key in range(1, 6)]
MORE = [BlockKey(key) for key in range(101, 106)]
TAG = "{kv:pool}"
LOG, HINTS, MODES, FENCE_A, FENCE_B = (f"{TAG}:{name}" for name in ("log", "hints", "modes", f"e:{A}", f"e:{B}"))
HOLDERS = f"{TAG}:holders"
NAME_A = '["10.0.0.1:8000",16,"GPU",0,"full_attention",0]'
BLOCKS_A = f"{TAG}:b:{NAME_A}"
FAR = "18446744073709551615-18446744073709551615"


def tokens(state: RedisState, endpoint: Endpoint = A, chain: Sequence[BlockKey] = CHAIN) -> int:
    return state.hits(Chains(16 * len(chain) + 1, {16: chain})).get(endpoint, 0)


class NextVersion:
    """Writes one endpoint as a younger version might: everything has more to it than we know."""

    def __init__(self, connection: Connection, endpoint: Endpoint) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._fence = f"{TAG}:e:{endpoint}"
        self._name = msgspec.json.encode([endpoint, 16, "GPU", 0, "full_attention", 0, "fp8", {"rank": 3}])
        self._blocks = f"{TAG}:b:".encode() + self._name

    async def begin(self, mode: str) -> None:
        call = self._connection.call
        fields = ("epoch", 5, "last", -1, "base", -1, "x:owner", "replica-next", "zone", b"\xff\xfe")
        await call("HSET", self._fence, *fields)
        await call("SADD", f"{TAG}:endpoints", self._endpoint)
        await call("SET", f"{TAG}:next:{self._endpoint}", "a kind of key that we don't know")
        await call("XADD", LOG, "*", "begin", self._endpoint, "begin2", b"\x00\xff")
        await call("HSET", MODES, self._endpoint, mode)
        await call("XADD", LOG, "*", "mode", f"{mode} {self._endpoint} since=12")

    async def store(self, seq: int, stored: Sequence[BlockKey], removed: Sequence[BlockKey] = ()) -> None:
        call = self._connection.call
        await call("SADD", self._blocks, "", *(pack_keys([key]) for key in stored))
        if removed:
            await call("SREM", self._blocks, *(pack_keys([key]) for key in removed))
        await call("HSET", self._fence, "last", seq, self._name, seq)
        ours = delta_record(Cache(self._endpoint, 16), stored, removed)
        named = int.from_bytes(ours[:2], "little")
        record = len(self._name).to_bytes(2, "little") + ours[2:6] + self._name + ours[6 + named :]
        await call("XADD", LOG, "*", "residency2", b"\xfe" * 12, "delta", record)

    async def is_untouched(self) -> bool:
        call = self._connection.call
        fields = await call("HGETALL", self._fence)
        assert b"replica-next" in fields
        assert self._name in fields
        return bool(await call("EXISTS", f"{TAG}:next:{self._endpoint}"))


async def test_the_next_version_writes_beside_this_one(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    younger = NextVersion(await client(server.url), B)
    await younger.begin("exact")
    await younger.store(0, [*CHAIN, *MORE])
    await one.take_over(A)
    await one.set_mode(A, 1, Mode.EXACT)
    assert list(await one.apply([Delta(CACHE, 1, 0, 0, CHAIN)])) == [Applied.NEW]
    await younger.store(1, [], MORE[1:])
    late = await replica(server.url)
    states = (one, two, late)
    for state in states:
        await eventually(lambda state=state: tokens(state) == tokens(state, B) == 80)
        await eventually(lambda state=state: tokens(state, B, MORE) == 16)
        await eventually(lambda state=state: state.mode(A) is state.mode(B) is Mode.EXACT)
        assert state.degraded is None
    await younger.begin("shadow")
    await younger.store(0, CHAIN[:2])
    for state in states:
        await eventually(lambda state=state: state.mode(B) is Mode.APPROX)
        await eventually(lambda state=state: tokens(state, B) == 32)
    assert [tokens(state) for state in states] == [80, 80, 80]
    assert await younger.is_untouched()
    assert [sum(state.stats.outages.values()) for state in states] == [0, 0, 0]
    assert all(state.stats.malformed["mode"] and state.stats.malformed["record"] for state in states)


async def test_an_endpoint_is_taken_over_from_the_next_version(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """A new epoch voids the caches of both; what else the other keeps in the fence stays."""
    one, two = await replica(server.url), await replica(server.url)
    connection = await client(server.url)
    younger = NextVersion(connection, A)
    await younger.begin("exact")
    await younger.store(0, CHAIN)
    await eventually(lambda: tokens(two) == 80)
    assert await one.take_over(A) == Tenure(6, 0, Mode.APPROX, None), "they left us no notes"
    assert tokens(two) == 80
    assert await one.replace(A, 6, -1, {}) is Applied.NEW
    await eventually(lambda: tokens(two) == 0)
    assert list(await one.apply([Delta(CACHE, 6, 0, 0, MORE)])) == [Applied.NEW]
    await eventually(lambda: tokens(two, A, MORE) == 80)
    sets = [key for key in await connection.call("KEYS", "*") if b":b:" in key]
    assert sets == [BLOCKS_A.encode()], "no set of an older epoch is left behind"
    assert await connection.call("HGET", FENCE_A, "x:owner") == b"replica-next"
    await two.drop(A)
    assert not await connection.call("EXISTS", FENCE_A)


async def test_a_medium_is_cleared_of_caches_of_both_versions(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one = await replica(server.url)
    younger = NextVersion(await client(server.url), A)
    await younger.begin("exact")
    await younger.store(0, CHAIN)
    await eventually(lambda: tokens(one) == 80)
    assert await one.clear(A, 5, 1, "CPU") is Applied.NEW
    assert tokens(one) == 80
    assert await one.clear(A, 5, 2, "GPU") is Applied.NEW
    await eventually(lambda: tokens(one) == 0)


Junk = tuple[str | bytes | int, ...]
JUNK: dict[str, tuple[Junk, ...]] = {
    "a field of the fence": (("HSET", FENCE_A, "x:next", "1", "zone", b"\xff"),),
    "a field that looks like a cache": (("HSET", FENCE_A, "[junk", "1", b"[\xff\x00", "x"),),
    "a cache name with an element less": (("HSET", FENCE_A, '["10.0.0.1:8000",16,"GPU",0,"full_attention"]', "0"),),
    "a cache name with an element more": (
        ("HSET", FENCE_A, '["10.0.0.1:8000",16,"CPU",0,"full_attention",0,"new"]', "0"),
    ),
    "a cache of no block size": (("HSET", FENCE_A, '["10.0.0.1:8000",0,"GPU",0,"full_attention",0]', "0"),),
    "a cache of another endpoint": (("HSET", FENCE_A, '["10.0.0.2:8000",16,"GPU",0,"full_attention",0]', "0"),),
    "many caches": tuple(
        ("HSET", FENCE_A, f'["10.0.0.1:8000",16,"GPU",{group},"full_attention",0]', "0") for group in range(1, 100)
    ),
    "many fields": (("HSET", FENCE_A, *(word for number in range(5000) for word in (f"x{number}", "1"))),),
    "an epoch that is no number": (("HSET", FENCE_A, "epoch", "soon"),),
    "an epoch beyond all bounds": (("HSET", FENCE_A, "epoch", "9" * 30),),
    "an epoch in hexadecimal": (("HSET", FENCE_A, "epoch", "0x7fffffffffff"),),
    "no epoch": (("HDEL", FENCE_A, "epoch"),),
    "a sequence that is no number": (("HSET", FENCE_A, "last", b"\xff"),),
    "a sequence beyond all bounds": (("HSET", FENCE_A, "last", "1e300", NAME_A, "inf"),),
    "a sequence far ahead": (("HSET", FENCE_A, "last", 2**53 - 2),),
    "sequences far ahead": (("HSET", FENCE_A, "last", 2**53 - 2, NAME_A, 2**53 - 2),),
    "a cache's sequence far ahead": (("HSET", FENCE_A, NAME_A, 2**53 - 2),),
    "a base far ahead": (("HDEL", FENCE_A, NAME_A), ("HSET", FENCE_A, "base", 2**53 - 2)),
    "sequences below zero": (("HSET", FENCE_A, "last", -9, NAME_A, -(2**52), "base", -(2**53)),),
    "an epoch below zero": (("HSET", FENCE_A, "epoch", -1),),
    "no sequence": (("HDEL", FENCE_A, "last", "base"),),
    "a fence that is a string": (("SET", FENCE_A, "x"),),
    "a fence that is gone": (("DEL", FENCE_A),),
    "members that are no keys": (("SADD", BLOCKS_A, "seven..", "nine.....", b"\xff"),),
    "blocks that are a string": (("SET", BLOCKS_A, "x"),),
    "blocks that are a list": (("DEL", BLOCKS_A), ("RPUSH", BLOCKS_A, "x")),
    "an unknown mode": (("HSET", MODES, B, "shadow"), ("XADD", LOG, "*", "mode", f"shadow {B}")),
    "a mode of no endpoint": (("HSET", MODES, b"\xff\n", "exact"), ("XADD", LOG, "*", "mode", b"exact \xff")),
    "modes that are a string": (("SET", MODES, "exact"),),
    "endpoints that are none": (("SADD", f"{TAG}:endpoints", "", "a b", b"\xff\xfe", "x" * 10_000),),
    "endpoints that are a string": (("SET", f"{TAG}:endpoints", "x"),),
    "records of an unknown kind": (("XADD", LOG, "*", "delta2", "x", b"\xff", b"\xff"),),
    "records that are none": tuple(
        ("XADD", LOG, "*", kind, record)
        for kind in ("delta", "void", "begin", "drop", "mode", "expect")
        for record in ("", "x", b"\xff" * 40, b"\x05\x00\xff\xff\xff\xff[junk", "[" * 4000)
    ),
    "hints that are none": tuple(
        ("XADD", HINTS, "*", kind, record) for kind in ("expect", "other") for record in ("", b"\xff" * 40)
    ),
    "a hint of no block size": (
        ("XADD", HINTS, "*", "expect", bytes([1, 0, 3, 0, 0, 0, 0, 0, 0, 9, 0, 0]) + b"ra:1" + pack_keys(CHAIN)),
    ),
    "a log that is a string": (("SET", LOG, "x"),),
    "a log that can take no more": (("XADD", LOG, FAR, "next", "x"),),
    "a log that is gone": (("DEL", LOG),),
    "a log from the future": (("XADD", LOG, "9999999999999-0", "next", "x"),),
    "hints that are a list": (("DEL", HINTS), ("RPUSH", HINTS, "x")),
    "hints that can take no more": (("XADD", HINTS, FAR, "next", "x"),),
    "owners that are none": (("ZADD", f"{TAG}:owners", "9e15", b"\xff\xfe", "inf", "ghost", "1e300", "x y"),),
    "owners without end": tuple(
        ("ZADD", f"{TAG}:owners", *(word for at in range(5000) for word in (at, f"ghost-{start}-{at}")))
        for start in range(20)
    ),
    "an owner that nobody is": (("HSET", f"{TAG}:holders", A, "ghost"),),
    "an owner of odd bytes": (("HSET", f"{TAG}:holders", A, b"\xff\n", b"\xff", "x"),),
    "endpoints' owners that are a string": (("SET", f"{TAG}:holders", "x"),),
    "owners that are a string": (("SET", f"{TAG}:owners", "x"),),
    "a generation that is a list": (("DEL", f"{TAG}:gen"), ("RPUSH", f"{TAG}:gen", "x")),
    "a generation of odd bytes": (("SET", f"{TAG}:gen", b"\xff\x00"),),
}


class Owner:
    """Does what an ingest does for its endpoint: tells what came, and all of it again where the store lacks it."""

    def __init__(self, state: RedisState, endpoint: Endpoint) -> None:
        self.epoch = 1
        self.seq = 0
        self.uploads = 0
        self._state = state
        self._cache = Cache(endpoint, 16)
        self._lost = False
        self._blocks: list[BlockKey] = []
        state.on_lost(self._on_lost)

    def _on_lost(self, endpoint: Endpoint) -> None:
        self._lost |= endpoint == self._cache.endpoint

    async def begin(self) -> None:
        await self._state.take_over(self._cache.endpoint)
        await self._state.set_mode(self._cache.endpoint, 1, Mode.EXACT)

    async def store(self, keys: Sequence[BlockKey]) -> None:
        self._blocks += keys
        delta = Delta(self._cache, self.epoch, self.seq, self.seq, keys)
        self.seq += 1
        if list(await self._state.apply([delta])) != [Applied.NEW]:
            self._lost = True

    async def upload_if_lost(self) -> None:
        while self._lost:
            self._lost = False
            self.uploads += 1
            content = {self._cache: self._blocks}
            applied = await self._state.replace(self._cache.endpoint, self.epoch, self.seq - 1, content)
            await self._state.set_mode(self._cache.endpoint, self.epoch, Mode.EXACT)
            self._lost = applied is not Applied.NEW


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
async def test_junk_costs_itself(
    junk: Sequence[Junk],
    server: Valkey,
    replica: Start,
    client: Client,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer, "REFRESH_S", 0.5)
    one, two = await replica(server.url), await replica(server.url, ingests=False)
    ours, neighbour = Owner(one, A), Owner(one, B)
    for owner in (ours, neighbour):
        await owner.begin()
        await owner.store(CHAIN)
    two.expect(A, 16, MORE[:1], ttl_s=0.01)
    await eventually(lambda: tokens(two) == tokens(two, B) == 80)
    connection = await client(server.url)
    async with asyncio.timeout(120):
        while not await connection.call("EXISTS", HINTS):  # what is expected is told a moment later, or amid the junk
            await asyncio.sleep(0.005)
    for command in junk:
        await connection.call(*command)

    late = await replica(server.url, ingests=False)
    states = (one, two, late)
    for state in states:
        await eventually(lambda state=state: state.degraded is None)
    await ours.store(MORE)
    await neighbour.store(MORE)
    async with asyncio.timeout(120):
        while not all(
            (tokens(state), tokens(state, A, MORE), tokens(state, B), tokens(state, B, MORE)) == (80, 80, 80, 80)
            and state.mode(A) is Mode.EXACT
            and state.degraded is None
            for state in states
        ):
            await ours.upload_if_lost()
            await neighbour.upload_if_lost()
            await asyncio.sleep(0.02)
    assert ours.uploads <= 3
    flushed = junk[-1][1] in (f"{TAG}:gen", LOG)
    assert neighbour.uploads <= (3 if flushed else 0), "another endpoint's value costs this one nothing"
    await eventually(lambda: list(one.owned([A, B])) == [A, B])  # a lease that is none takes no endpoint

    def told() -> bool:  # one hint may be lost with the stream, the next is not
        two.expect(A, 16, [BlockKey(999)], ttl_s=60)
        return tokens(late, A, [BlockKey(999)]) == 16

    await eventually(told)
    reserved = await two.reserve(ReservationId("r"), Candidates([A], [10]))
    assert reserved.new_tokens == 10
    await one.drop(A)
    for state in states:
        await eventually(lambda state=state: tokens(state) == 0)
        assert tokens(state, B) == 80
    assert "Traceback" not in caplog.text


MANY = [f"0.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000" for number in range(NAMES_AT_MOST + 1)]
LONG = b"x" * (REPLY_BYTES + (4 << 20))


@pytest.mark.parametrize(
    "junk",
    [
        ("HSET", MODES, *(word for name in MANY for word in (name, "exact"))),
        ("HSET", HOLDERS, *(word for name in MANY for word in (name, "ghost"))),
        ("SADD", f"{TAG}:endpoints", *MANY),
        ("HSET", MODES, LONG, "exact"),
        ("HSET", HOLDERS, B, LONG),
        ("SADD", f"{TAG}:endpoints", LONG),
        ("ZADD", f"{TAG}:owners", 1, LONG),
        ("SET", f"{TAG}:gen", LONG),
        ("HSET", FENCE_A, *(word for name in MANY for word in (f"[{name}", 0))),
        ("HSET", FENCE_A, b"[" + LONG, 0),
    ],
    ids=[
        "modes",
        "owners",
        "endpoints",
        "a long name of a mode",
        "a long owner",
        "a long endpoint",
        "a long lease",
        "a long generation",
        "caches",
        "a long name of a cache",
    ],
)
async def test_what_is_larger_than_any_pool_is_not_read(
    junk: Sequence[str | bytes], server: Valkey, replica: Start, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "REFRESH_S", 0.5)
    one = await replica(server.url)
    owner = Owner(one, A)
    await owner.begin()
    await owner.store(CHAIN)
    connection = await client(server.url)
    await connection.call(*junk)
    late = await replica(server.url, ingests=False)
    async with asyncio.timeout(120):
        while not (tokens(late) == 80 and late.mode(A) is Mode.EXACT and late.degraded is None):
            await owner.upload_if_lost()  # a generation that is none is another one
            await asyncio.sleep(0.02)
        assert set(late.index.known()) == {A}
        while max([await connection.call("HLEN", key) for key in (MODES, HOLDERS, FENCE_A)]) > 4:
            await asyncio.sleep(0.05)


async def test_a_value_that_cannot_be_read_is_told_once(
    server: Valkey, replica: Start, client: Client, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    state = await replica(server.url)
    connection = await client(server.url)
    for _ in range(20):
        await connection.call("XADD", LOG, "*", "delta", "junk")
    await eventually(lambda: state.stats.malformed["record"] == 20)
    told = [record for record in caplog.records if "can't read" in record.getMessage()]
    assert len(told) == 1
    assert (getattr(told[0], "kind", None), getattr(told[0], "key", None)) == ("record", "delta")
