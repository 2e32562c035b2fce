"""A change of owner loses nothing: the next one goes on from what stands in the store, whoever went, and however.

The publisher keeps 200 batches and has sent more, so that nobody can get the cache from it again.
"""

import asyncio
import itertools
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.events import incarnation
from multipick_epp.events import ingest as ingest_module
from multipick_epp.events.child import IngestOptions
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed import Feed
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.ingest import Ingest
from multipick_epp.events.process import IngestProcess
from multipick_epp.state.cache import Cache
from multipick_epp.state.owners import owner_of
from multipick_epp.state.redis import calls
from multipick_epp.state.redis.address import parse_url
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.redis.records import cache_name, unpack_keys
from multipick_epp.state.redis.server import open_connection
from multipick_epp.state.redis.state import RedisState
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId
from multipick_sim.local.valkey import Valkey, valkey

POD = Endpoint("127.0.0.1:9")
SIZE = 2
ROOT = root_key(b"", "model")
WARM = list(range(1, 10))
CHAINS = Chains(len(WARM), {SIZE: block_keys(ROOT, WARM, SIZE)})
NOTES = f"{{kv:pool}}:n:{POD}"
CACHE = cache_name(Cache(POD, SIZE))
KEPT = 200


class Engine:
    """A full cache: a warm prompt of four blocks, the first of them twice, and others that come and go."""

    def __init__(self, publisher: Any, store: Any, remove: Any, first: int = 0) -> None:
        self.publisher = publisher
        self.started_ms: int | None = None
        self._store, self._remove = store, remove
        self._numbers = itertools.count(1000 + 1000 * first)
        self._others: deque[int] = deque()
        publisher.publish(store([1, 2, 3, 4], None, WARM[:8]), store([1], None, WARM[:2]))

    def work(self, batches: int) -> None:
        for _ in range(batches):
            number = next(self._numbers)
            events = [self._store([10 * number, 10 * number + 1], 4, self._ids(number))]
            self._others.append(number)
            if len(self._others) > 20:
                gone = 10 * self._others.popleft()
                events += [self._remove(gone + 1), self._remove(gone)]
            self.publisher.publish(*events)

    def evict_one_copy(self) -> None:
        self.publisher.publish(self._remove(1))

    @property
    def content(self) -> set[BlockKey]:
        keys = set(block_keys(ROOT, WARM[:8], SIZE))
        for number in self._others:
            keys.update(block_keys(ROOT, WARM[:8] + self._ids(number), SIZE)[4:])
        return keys

    @property
    def spec(self) -> FeedSpec:
        return FeedSpec(POD, self.publisher.events, self.publisher.replay, self.started_ms)

    @staticmethod
    def _ids(number: int) -> list[int]:
        return [number, number, 7, number]


class Owner:
    """An ingest with a lease of its own."""

    def __init__(self, name: str, url: str) -> None:
        self.replica = ReplicaId(name)
        self.index = RedisState(parse_url(url), "pool", self.replica, picks=False)
        self.ingest = Ingest(self.index, lambda lora: root_key(b"", "model", lora), Ports())

    async def start(self, engine: Engine) -> None:
        await self.index.start()
        await self.ingest.start()
        self.ingest.follow([engine.spec])

    async def leave(self) -> None:
        await self.ingest.close()
        await self.index.close()

    async def die(self) -> None:
        """Without a word to anybody."""
        for task in self.index._tasks:
            task.cancel()
        await asyncio.gather(*self.index._tasks, return_exceptions=True)
        await self.ingest.close()

    @property
    def stats(self) -> FeedStats | None:
        return next(iter(self.ingest.stats()), None)

    def owns(self) -> bool:
        return self.stats is not None and self.stats.connected


class Pool:
    """A picker, its store, and what the picker says all the time."""

    def __init__(self, server: Valkey, picker: RedisState, connection: Connection) -> None:
        self.server = server
        self.picker = picker
        self.store = connection
        self.seen: list[tuple[Mode, int]] = []
        self._watch: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Note what is predicted for the warm prompt from now on."""
        self.seen.clear()
        self._watch = asyncio.create_task(self._watching())

    async def _watching(self) -> None:
        while True:
            self.seen.append((self.picker.mode(POD), self.predicted))
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        if self._watch:
            self._watch.cancel()

    @property
    def predicted(self) -> int:
        return self.picker.hits(CHAINS).get(POD, 0)

    async def records(self, kind: bytes) -> int:
        entries = await self.store.call("XRANGE", "{kv:pool}:log", "-", "+")
        return sum(fields[::2].count(kind) for _, fields in entries)

    async def content(self) -> set[BlockKey]:
        members = await self.store.call("SMEMBERS", b"{kv:pool}:b:" + CACHE)
        return set(unpack_keys(b"".join(members)))

    async def is_exact(self, engine: Engine) -> None:
        """What the engine has is in the store and at the picker, and is said to be exact."""
        async with asyncio.timeout(120):
            while not (
                await self.content() == engine.content
                and self.picker.mode(POD) is Mode.EXACT
                and self.picker.index.blocks_of(POD) == len(engine.content)
            ):
                await asyncio.sleep(0.01)
        assert self.predicted == 8


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with valkey() as server, AsyncExitStack() as stack:
        picker = RedisState(parse_url(server.url), "pool", ReplicaId("picker"), ingests=False)
        stack.push_async_callback(picker.close)
        await picker.start()
        connection = await open_connection(parse_url(server.url), "", 10.0)
        stack.callback(connection.close)
        pool = Pool(server, picker, connection)
        stack.callback(pool.stop)
        yield pool


@pytest.fixture
async def owner(pool: Pool) -> AsyncIterator[Callable[..., Awaitable[Owner]]]:
    names = itertools.count()
    async with AsyncExitStack() as stack:

        async def start(engine: Engine) -> Owner:
            owner = Owner(f"owner-{next(names)}", pool.server.url)
            stack.push_async_callback(owner.leave)
            await owner.start(engine)
            return owner

        yield start


@pytest.fixture
def engine(publisher: Any, store: Any, remove: Any) -> Engine:
    return Engine(publisher(kept=KEPT), store, remove)


Start = Callable[..., Awaitable[Owner]]


async def first(owner: Start, engine: Engine, pool: Pool) -> Owner:
    """An owner that has seen the engine from its first batch on, and more than the publisher keeps."""
    one = await owner(engine)
    await pool.is_exact(engine)
    for _ in range(5):
        engine.work(KEPT // 2)
        await pool.is_exact(engine)
    return one


async def test_one_leaves(owner: Start, engine: Engine, pool: Pool, eventually: Any) -> None:
    one = await first(owner, engine, pool)
    two = await owner(engine)
    await eventually(lambda: one.owns() ^ two.owns())
    await pool.is_exact(engine)
    leaver, stayer = (one, two) if one.owns() else (two, one)
    pool.watch()
    await leaver.leave()
    await eventually(stayer.owns)
    engine.work(3)
    engine.evict_one_copy()
    await pool.is_exact(engine)
    assert set(pool.seen) == {(Mode.EXACT, 8)}, "no decision was worse for it"
    assert await pool.records(b"begin") == 1
    assert stayer.stats is not None
    assert stayer.stats.uploads == (1 if stayer is one else 0)


async def test_one_dies(owner: Start, engine: Engine, pool: Pool, eventually: Any) -> None:
    one = await first(owner, engine, pool)
    pool.watch()
    await one.die()
    engine.work(KEPT // 2)
    await eventually(lambda: pool.picker.mode(POD) is Mode.APPROX)
    two = await owner(engine)
    await pool.is_exact(engine)
    engine.evict_one_copy()
    engine.work(3)
    await pool.is_exact(engine)
    assert {tokens for _, tokens in pool.seen} == {8}
    assert await pool.records(b"begin") == 1
    assert two.stats is not None
    assert (two.stats.uploads, two.stats.restarts) == (0, 0)


async def test_one_that_was_taken_over_writes_nothing_more_and_comes_back_in_its_turn(
    owner: Start, engine: Engine, pool: Pool, eventually: Any
) -> None:
    """Somebody else believes that the endpoint is his: only the last to take it over writes."""
    one = await first(owner, engine, pool)
    stranger = RedisState(parse_url(pool.server.url), "pool", ReplicaId("stranger"), picks=False, ingests=False)
    await stranger.start()
    assert await stranger.take_over(POD) is not None
    engine.work(3)
    await eventually(lambda: not one.owns())
    await pool.is_exact(engine)
    assert one.owns()
    assert await pool.records(b"begin") == 1
    await stranger.close()


async def test_pickers_come_and_go(owner: Start, engine: Engine, pool: Pool, eventually: Any) -> None:
    one = await first(owner, engine, pool)
    pool.watch()
    owners = [one]
    for _ in range(2):
        owners.append(await owner(engine))
        await eventually(lambda: sum(each.owns() for each in owners) == 1)
        engine.work(20)
        await pool.is_exact(engine)
    for leaver in owners[:2]:
        await leaver.leave()
        engine.work(20)
        await pool.is_exact(engine)
    assert owners[2].owns()
    assert set(pool.seen) == {(Mode.EXACT, 8)}
    assert await pool.records(b"begin") == 1


async def test_an_owner_follows_on_until_the_next_one_has_taken_over(
    owner: Start, engine: Engine, pool: Pool, eventually: Any
) -> None:
    """However long that takes: the next one by name is alive, and does not come."""
    one = await first(owner, engine, pool)
    names = (ReplicaId(f"late-{number}") for number in itertools.count())
    name = next(name for name in names if owner_of(POD, [one.replica, name]) == name)
    late = RedisState(parse_url(pool.server.url), "pool", name, picks=False)
    await late.start()
    await eventually(lambda: not one.index.owned([POD]))
    pool.watch()
    for _ in range(5):
        engine.work(KEPT // 2)
        await pool.is_exact(engine)
    assert set(pool.seen) == {(Mode.EXACT, 8)}
    assert await late.take_over(POD) is not None
    await eventually(lambda: one.stats is None)
    await late.close()
    await eventually(one.owns)
    engine.work(3)
    await pool.is_exact(engine)
    assert await pool.records(b"begin") == 1


async def test_what_takes_long_to_be_read_is_not_called_exact_meanwhile(
    owner: Start, engine: Engine, pool: Pool, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the take-over and the end of the reading nobody follows the engine."""
    one = await first(owner, engine, pool)
    monkeypatch.setattr(calls, "INHERIT_S", 0.0)
    pool.watch()
    await one.leave()
    two = await owner(engine)
    await eventually(two.owns)
    await eventually(lambda: (Mode.APPROX, 8) in pool.seen)
    await pool.is_exact(engine)
    assert {tokens for _, tokens in pool.seen} == {8}
    assert await pool.records(b"begin") == 1


async def test_the_engine_is_another_one_by_then(
    owner: Start, engine: Engine, pool: Pool, publisher: Any, store: Any, remove: Any
) -> None:
    one = await first(owner, engine, pool)
    await one.die()
    ports = {"port": engine.publisher.port, "replay_port": engine.publisher.replay_port}
    engine.publisher.stop()
    another = Engine(publisher(kept=2 * KEPT, **ports), store, remove, first=5)
    another.work(KEPT)
    await owner(another)
    await pool.is_exact(another)
    assert await pool.records(b"begin") == 2


async def test_the_container_is_another_one_by_then(owner: Start, engine: Engine, pool: Pool, eventually: Any) -> None:
    """Kubernetes knows it, whatever the publisher says."""
    engine.started_ms = 1_000
    one = await first(owner, engine, pool)
    await one.leave()
    engine.started_ms = 2_000
    two = await owner(engine)
    await eventually(lambda: two.stats is not None and two.stats.uploads == 1)
    await eventually(lambda: pool.picker.mode(POD) is Mode.APPROX)


async def test_the_store_is_emptied_meanwhile(owner: Start, engine: Engine, pool: Pool, eventually: Any) -> None:
    """Flushed as soon as the endpoint has changed hands: whoever has the cache tells it."""
    one = await first(owner, engine, pool)
    two = await owner(engine)
    await eventually(lambda: two.owns() and not one.owns())
    await pool.store.call("FLUSHALL")
    await pool.is_exact(engine)
    engine.work(3)
    await pool.is_exact(engine)


JUNK: dict[str, Sequence[Sequence[str | bytes]]] = {
    "no position": [["HDEL", NOTES, "position"]],
    "a position that is none": [["HSET", NOTES, "position", "1 [1,2"]],
    "a position beyond all bounds": [["HSET", NOTES, "position", '1 [99999999999999999999,1,true,"",null]']],
    "a position of another epoch": [["HSET", NOTES, "position", '7 [1,2,true,"tcp://127.0.0.1:1",null]']],
    "a batch that the engine does not know": [["HSET", NOTES, "position", '1 [900,5,true,"%s",null]']],
    "notes that are a string": [["SET", NOTES, "x"]],
    "notes that are gone": [["DEL", NOTES]],
    "a name that is none": [["HSET", NOTES, "x" * 12, "y"]],
    "a count that is none": [["HSET", NOTES, b"12345678" + CACHE, "many"]],
    "a block without a name": [["SADD", b"{kv:pool}:b:" + CACHE, b"12345678"]],
    "blocks that are gone": [["DEL", b"{kv:pool}:b:" + CACHE]],
    "a cache more": [["HSET", f"{{kv:pool}}:e:{POD}", '["127.0.0.1:9",2,"CPU",0,"full_attention",0]', "1"]],
    "a cache of another": [["HSET", f"{{kv:pool}}:e:{POD}", '["127.0.0.1:8",2,"GPU",1,"full_attention",0]', "1"]],
    "an epoch beyond all bounds": [["HSET", f"{{kv:pool}}:e:{POD}", "epoch", "9007199254740991"]],
    "an epoch that is none": [["HSET", f"{{kv:pool}}:e:{POD}", "epoch", "soon"]],
    "a sequence that is none": [["HSET", f"{{kv:pool}}:e:{POD}", "last", "x"]],
    "a fence that is gone": [["DEL", f"{{kv:pool}}:e:{POD}"]],
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
async def test_what_can_not_be_gone_on_from_is_told_anew(
    junk: Sequence[Sequence[str | bytes]], owner: Start, publisher: Any, store: Any, remove: Any, pool: Pool
) -> None:
    """The publisher has kept all, so it is exact again, by its batches alone."""
    engine = Engine(publisher(), store, remove)
    one = await owner(engine)
    engine.work(50)
    await pool.is_exact(engine)
    await one.leave()
    for command in junk:
        words = [each.replace("%s", engine.publisher.events) if isinstance(each, str) else each for each in command]
        await pool.store.call(*words)
    two = await owner(engine)
    await pool.is_exact(engine)
    engine.work(3)
    await pool.is_exact(engine)
    assert two.stats is not None
    assert two.stats.uploads == 1


FENCE = f"{{kv:pool}}:e:{POD}"
MEDDLED: dict[str, Sequence[str | bytes | int]] = {
    "all has come": ["HSET", FENCE, "last", 2**53 - 2, CACHE, 2**53 - 2],
    "all of a cache has come": ["HSET", FENCE, CACHE, 2**53 - 2],
    "nothing has come": ["HSET", FENCE, "last", -(2**52), CACHE, -(2**52), "base", -(2**52)],
    "an epoch below zero": ["HSET", FENCE, "epoch", -1],
    "the last epoch of all": ["HSET", FENCE, "epoch", 2**53 - 1],
}


@pytest.mark.parametrize("meddled", MEDDLED.values(), ids=MEDDLED.keys())
async def test_a_fence_that_somebody_meddled_with_is_made_anew(
    meddled: Sequence[str | bytes | int], owner: Start, engine: Engine, pool: Pool
) -> None:
    """Under an owner that lives, and knows all."""
    await first(owner, engine, pool)
    await pool.store.call(*meddled)
    for _ in range(2):
        engine.work(3)
        await pool.is_exact(engine)


async def test_a_clock_that_is_wrong_decides_nothing(
    owner: Start, engine: Engine, pool: Pool, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """An owner whose clock is an hour ahead, and one whose clock is an hour behind."""
    monkeypatch.setattr(ingest_module, "Feed", partial(Feed, now=lambda: time.time() + 3600))
    one = await first(owner, engine, pool)
    monkeypatch.setattr(ingest_module, "Feed", partial(Feed, now=lambda: time.time() - 3600))
    await one.die()
    two = await owner(engine)
    await pool.is_exact(engine)
    await two.leave()
    pool.watch()
    three = await owner(engine)
    await eventually(three.owns)
    engine.work(3)
    await pool.is_exact(engine)
    assert await pool.records(b"begin") == 1


def process(pool: Pool) -> IngestProcess:
    return IngestProcess(IngestOptions(pool.server.url, None, "pool", "model", b"", Ports(), "warning"))


def replicas_of(*processes: IngestProcess) -> list[ReplicaId]:
    return [each._replica for each in processes if each._replica is not None]


def knows(ingest: IngestProcess) -> bool:
    return any(stats.connected for stats in ingest.stats())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_the_ingest_process_is_killed(how: int, engine: Engine, pool: Pool, eventually: Any) -> None:
    ingest = process(pool)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(ingest.close)
        await ingest.start()
        ingest.follow([engine.spec])
        for _ in range(4):
            await pool.is_exact(engine)
            engine.work(KEPT // 2)
        await pool.is_exact(engine)
        pool.watch()
        killed = ingest.pid
        assert killed is not None
        os.kill(killed, how)
        engine.work(KEPT // 2)
        await eventually(lambda: ingest.pid not in (killed, None) and knows(ingest))
        await pool.is_exact(engine)
        assert {tokens for _, tokens in pool.seen} == {8}
        assert await pool.records(b"begin") == 1


async def test_an_ingest_process_that_was_stopped_finds_that_it_was_followed(
    engine: Engine, pool: Pool, eventually: Any
) -> None:
    one, two = process(pool), process(pool)
    async with AsyncExitStack() as stack:
        for ingest in (one, two):
            stack.push_async_callback(ingest.close)
            await ingest.start()
            ingest.follow([engine.spec])
        await eventually(lambda: len(replicas_of(one, two)) == 2)
        # who comes first owns it, but perhaps not for long
        stopped, other = sorted((one, two), key=lambda each: each._replica != owner_of(POD, replicas_of(one, two)))
        await eventually(lambda: knows(stopped) and not knows(other))
        for _ in range(4):
            await pool.is_exact(engine)
            engine.work(KEPT // 2)
        await pool.is_exact(engine)
        assert stopped.pid is not None
        os.kill(stopped.pid, signal.SIGSTOP)
        engine.work(KEPT // 4)
        await eventually(lambda: pool.picker.mode(POD) is Mode.APPROX)
        await eventually(lambda: knows(other))
        await pool.is_exact(engine)
        os.kill(stopped.pid, signal.SIGCONT)
        for _ in range(4):
            engine.work(KEPT // 8)
            await pool.is_exact(engine)
        await eventually(lambda: knows(one) ^ knows(two))
        await pool.is_exact(engine)
        assert await pool.records(b"begin") == 1


async def test_silence_that_nobody_can_explain_is_not_exact(
    owner: Start, engine: Engine, pool: Pool, eventually: Any
) -> None:
    """Nothing comes, and the replay socket, which could tell whether that is all, does not answer."""
    await first(owner, engine, pool)
    engine.publisher.deaf = True
    await eventually(lambda: pool.picker.mode(POD) is Mode.APPROX)
    engine.publisher.deaf = False
    await pool.is_exact(engine)
    assert await pool.records(b"begin") == 1


async def test_owners_tell_all_as_soon_as_the_store_is_back(
    owner: Start, engine: Engine, pool: Pool, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often they have tried meanwhile, and however long they would have waited for the next time."""
    one = await first(owner, engine, pool)
    monkeypatch.setattr(incarnation, "_PAUSE_S", (3_600.0, 3_600.0))
    await pool.server.kill()
    engine.work(1)

    def waits() -> bool:
        told = one.ingest._feeds[POD].incarnation
        return told is not None and told.pause_s > 0

    await eventually(waits)
    await pool.server.start()
    await eventually(lambda: one.index.degraded is None)
    store = await open_connection(parse_url(pool.server.url), "", 10.0)
    pool.store = store
    await pool.is_exact(engine)
    store.close()
