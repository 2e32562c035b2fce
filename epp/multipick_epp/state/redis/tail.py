"""Keeps this process's mirror as the log says, and loads it from the sets where the log alone does not do."""

import asyncio
import logging
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import msgspec

from multipick_epp.state.index import Listener, LocalIndex
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.records import cache_named, read_delta, read_expect, read_mode, unpack_keys
from multipick_epp.state.stats import StateStats
from multipick_epp.types import Endpoint, Mode, ReplicaId

log = logging.getLogger(__name__)

BLOCK_S = 0.5
"""A read waits so long for news: a store that lost its data is noticed within it."""
STALL_S = BLOCK_S + 2.0
ENTRIES_A_READ = 128
MEMBERS_A_SCAN = 2_000
TURN_S = 0.002
"""Log entries are played for so long before the loop may do something else."""
_START = b"0-0"
MALFORMED = msgspec.MsgspecError, struct.error, ValueError
"""What reading a record raises that none of our writers has written."""
UNCONFIRMED_S = 30.0
"""After the store lost its data: an endpoint that no owner has uploaded in this time is gone."""


class Tail:
    """Invariant: the mirror is what the store's sets were when `_position` was the log's end (unless the store lost
    data: then it is what it was before, and owners upload what they know).
    """

    def __init__(
        self,
        keys: Keys,
        replica: ReplicaId,
        index: LocalIndex,
        dropped: Callable[[Endpoint], None],
        stats: StateStats,
    ) -> None:
        """`dropped` is told of each endpoint that some replica dropped."""
        self.on_routed_elsewhere: list[Listener] = []  # of what a replica with a smaller name routed
        self._keys = keys
        self._replica = replica
        self._index = index
        self._dropped = dropped
        self._stats = stats
        self._generation: bytes | None = None
        self._position: bytes | None = None
        self._hints_position = _START
        self._unconfirmed: set[Endpoint] = set()
        self._confirm_until = 0.0
        self._loop = asyncio.get_running_loop()

    async def session(self, connection: Connection, link: Link) -> None:
        """Load what is missing, then follow the log until the connection is lost."""
        if self._position is not None and not await self._continues(connection):
            log.warning("the log is not the one that was read: loading the sets")
            self._position = None
        check_at = 0.0
        while True:
            if self._position is None or self._loop.time() >= check_at:
                generation = await self._ask_generation(connection)
                check_at = self._loop.time() + BLOCK_S
                if self._position is None or generation != self._generation:
                    await self._load(connection, generation)
                link.up()
            await self._read(connection)

    async def _ask_generation(self, connection: Connection) -> bytes:
        name = self._keys.generation
        if await connection.call("GET", name) is None:  # an empty store, which nobody has named yet
            await connection.call("SET", name, uuid4().hex, "NX")
        return bytes(await connection.call("GET", name))

    async def _read(self, connection: Connection) -> None:
        assert self._position is not None
        before = self._position
        reply = await connection.call(
            *("XREAD", "COUNT", ENTRIES_A_READ, "BLOCK", int(1000 * BLOCK_S)),
            *("STREAMS", self._keys.log, self._keys.hints, before, self._hints_position),
        )
        self._forget_unconfirmed()
        news = {name.decode(): entries for name, entries in reply or ()}
        if changes := news.get(self._keys.log):
            if len(changes) == ENTRIES_A_READ and await self._trimmed(connection, before):
                log.warning("the log was trimmed before it was read: loading the sets")
                self._position = None
                return
            async for identity in self._play(changes):
                self._position = identity
        if hints := news.get(self._keys.hints):
            async for identity in self._play(hints):
                self._hints_position = identity

    async def _trimmed(self, connection: Connection, position: bytes) -> bool:
        """Whether entries after `position` may be gone. A reader that keeps up never asks."""
        oldest = await connection.call("XRANGE", self._keys.log, "-", "+", "COUNT", 1)
        return not oldest or _order(oldest[0][0]) > _order(position)

    async def _continues(self, connection: Connection) -> bool:
        """Whether this server has the entry that we played last. One restored from a save, or promoted, may not."""
        assert self._position is not None
        at = self._position
        return at == _START or bool(await connection.call("XRANGE", self._keys.log, at, at))

    async def _play(self, entries: list[Any]) -> AsyncIterator[bytes]:
        """Play entries; yields the identity of each that is done."""
        turn_ends = self._loop.time() + TURN_S
        for identity, fields in entries:
            for kind, record in zip(fields[::2], fields[1::2], strict=True):
                try:
                    self._play_record(kind, record)
                except MALFORMED:
                    self._stats.malformed += 1
            yield identity
            if self._loop.time() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = self._loop.time() + TURN_S
        self._stats.log_lag_s = max(0.0, time.time() - _order(entries[-1][0])[0] / 1000)

    def _play_record(self, kind: bytes, record: bytes) -> None:
        index = self._index
        if kind == b"delta":
            index.change(*read_delta(record))
        elif kind == b"expect":
            replica, endpoint, block_size, keys, ttl_s = read_expect(record)
            if replica != self._replica:  # our own we have noted already
                index.expect(endpoint, block_size, keys, self._loop.time() + ttl_s)
                if replica < self._replica:
                    for listener in self.on_routed_elsewhere:
                        listener(endpoint, keys)
        elif kind == b"void":
            index.void(cache_named(record))
        elif kind == b"mode":
            index.set_mode(*read_mode(record))
        elif kind == b"begin":
            endpoint = Endpoint(record.decode())
            self._unconfirmed.discard(endpoint)
            index.drop_caches(endpoint)
        elif kind == b"drop":
            endpoint = Endpoint(record.decode())
            self._unconfirmed.discard(endpoint)
            index.drop(endpoint)
            self._dropped(endpoint)

    async def _load(self, connection: Connection, generation: bytes) -> None:
        """Note the log's end, take the sets, go on from there: what is played twice changes nothing."""
        pool = self._keys
        newest = await connection.call("XREVRANGE", pool.log, "+", "-", "COUNT", 1)
        newest_hint = await connection.call("XREVRANGE", pool.hints, "+", "-", "COUNT", 1)
        endpoints = {Endpoint(name.decode()) for name in await connection.call("SMEMBERS", pool.endpoints)}
        for endpoint in endpoints:
            await self._load_endpoint(connection, endpoint)
        modes = await connection.call("HGETALL", pool.modes)
        for name, mode in zip(modes[::2], modes[1::2], strict=True):
            self._index.set_mode(Endpoint(name.decode()), Mode(mode.decode()))
        absent = set(self._index.endpoints()) - endpoints
        if self._generation in (None, generation):
            self._unconfirmed.clear()
            for endpoint in absent:
                self._index.drop(endpoint)
        else:
            self._unconfirmed = absent
            self._confirm_until = self._loop.time() + UNCONFIRMED_S
        self._generation = generation
        self._position = newest[0][0] if newest else _START
        self._hints_position = newest_hint[0][0] if newest_hint else _START
        self._stats.bootstraps += 1
        log.info("index loaded", extra={"endpoints": len(endpoints), "keys": len(self._index)})

    async def _load_endpoint(self, connection: Connection, endpoint: Endpoint) -> None:
        names = [name for name in await connection.call("HKEYS", self._keys.fence(endpoint)) if name.startswith(b"[")]
        caches = [cache_named(name) for name in names]
        for gone in set(self._index.caches(endpoint)) - set(caches):
            self._index.forget(gone)
        for cache, name in zip(caches, names, strict=True):
            bit = self._index.fresh()
            try:
                cursor: bytes | int = 0
                while cursor != b"0":
                    cursor, members = await connection.call(
                        "SSCAN", self._keys.blocks(name), cursor, "COUNT", MEMBERS_A_SCAN
                    )
                    self._index.fill(bit, unpack_keys(b"".join(members)))
            except BaseException:
                self._index.discard(bit)
                raise
            self._index.swap(cache, bit)

    def _forget_unconfirmed(self) -> None:
        if self._unconfirmed and self._loop.time() >= self._confirm_until:
            for endpoint in self._unconfirmed:
                self._index.drop(endpoint)
            self._unconfirmed.clear()


def _order(identity: bytes) -> tuple[int, int]:
    milliseconds, _, number = identity.partition(b"-")
    return int(milliseconds), int(number)
