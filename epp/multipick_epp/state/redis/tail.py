"""Keeps this process's mirror as the log says, and loads it from the sets where the log alone does not do."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

from multipick_epp.state.index import Listener, LocalIndex
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.comparison import Comparison
from multipick_epp.state.redis.connection import Connection, TooLongError, WrongTypeError
from multipick_epp.state.redis.fences import Fences
from multipick_epp.state.redis.ingest_lease import LEASES_AT_MOST
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.records import (
    MALFORMED,
    cache_named,
    is_hint_of,
    read_delta,
    read_endpoint,
    read_expect,
    read_mode,
    read_outlier,
    read_owner,
    read_owner_record,
    read_withdraw,
)
from multipick_epp.state.redis.replies import START, Entry
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.state.redis.sets import Sets
from multipick_epp.state.redis.trust import Trust
from multipick_epp.state.stats import StateStats
from multipick_epp.types import Endpoint, Mode, ReplicaId, ReservationId

log = logging.getLogger(__name__)

BLOCK_S = 0.25
"""A read waits so long for news: a store that lost its data, or an owner that is gone, is noticed within it."""
STALL_S = BLOCK_S + 2.0
ENTRIES_A_READ = 128
HINTS_APART_S = 0.02
"""Hints that come so soon after others are read together: a read for each routed prompt costs a tenth of a decision.
What an equal prompt has to know at once the store knows (`routed`), and loads are as old. The log is read at once: it
may say that an endpoint is `exact` no more.
"""
TURN_S = 0.002
"""Log entries are played for so long before the loop may do something else."""
UNCONFIRMED_S = 30.0
"""After the store lost its data: an endpoint that no owner has uploaded in this time is gone."""


class Look(NamedTuple):
    """Where the streams are; see `lua/look.lua`."""

    generation: bytes
    log_end: bytes  # the newest entry; empty: the key is no stream
    hints_end: bytes  # the same
    continues: bool  # the log has the entries that were asked for
    owners: dict[bytes, bytes]  # the leases of those who ingest: name and stamp


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
        self.on_withdrawn_elsewhere: list[Listener] = []
        self.on_joined: list[Callable[[], None]] = []
        self.on_announced: list[Callable[[Endpoint, int], None]] = []
        self._keys = keys
        self._replica = replica
        self._name = replica.encode()
        self._index = index
        self._dropped = dropped
        self._stats = stats
        self._malformed = Malformed(stats.malformed)
        self._script = load("look", reads=True)
        self._names = load("known", reads=True)
        self._fences = Fences(keys)
        self._generation: bytes | None = None
        self._position: bytes | None = None  # the entry of the log that was played last
        self._anchor = START  # the one that was so at the last look; the first one, where there was none
        self._hints_position = START
        self._hints_at = 0.0  # they are not read before
        self._by: ReservationId | None = None  # who expects what the next record tells
        self._unconfirmed: set[Endpoint] = set()
        self._confirm_until = 0.0
        self._loop = asyncio.get_running_loop()
        self.trust = Trust(index, self._loop.time)
        self._comparison = Comparison(keys, index, stats, self._loop.time)

    async def session(self, connection: Connection, link: Link) -> None:
        """Load what is missing, then follow the log until the connection is lost."""
        await install(connection, self._script, self._names, self._fences.script, self._comparison.script)
        try:
            await self._session(connection, link)
        finally:
            self.trust.lost()

    async def _session(self, connection: Connection, link: Link) -> None:
        while True:
            # As long as the log has what was read before all that was read since, none between them was missed.
            look = await self._look(connection, self._anchor, self._position or START)
            if self._position is not None and not look.continues:
                log.warning("the log is not the one that was read: loading the sets")
                self._position = None
            if self._position is None or look.generation != self._generation:
                await self._load(connection, look)
                continue
            self._anchor = self._position
            if not look.hints_end or replies.order(look.hints_end) < replies.order(self._hints_position):
                self._hints_position = look.hints_end or START  # another stream than the one that was read
            self.trust.saw(look.owners)
            if look.log_end == self._position:
                self.trust.heard()
            link.up()
            sure = set(self._index.known()) - self._unconfirmed
            await self._comparison.go_on(connection, self._sets(connection), sure)
            self._comparison.reached(self._position)
            await self._follow(connection, look)

    async def _look(self, connection: Connection, *entries: bytes) -> Look:
        pool = self._keys
        command = self._script.command((pool.generation, pool.log, pool.hints, pool.owners), LEASES_AT_MOST, *entries)
        generation, log_end, hints_end, continues, owners = replies.listed(await connection.call(*command), 5)
        if not generation:  # an empty store, which nobody has named yet
            generation = uuid4().hex.encode()
            if await connection.call("SET", pool.generation, generation, "NX") is None:
                generation = b""  # by now it has one; or what stands there is none, and an owner will see to it
        log_end, hints_end = (replies.identity(end) if end else b"" for end in (log_end, hints_end))
        stamps = dict(replies.pairs(owners))
        return Look(replies.string(generation), log_end, hints_end, bool(replies.number(continues)), stamps)

    async def _follow(self, connection: Connection, look: Look) -> None:
        """Read for a while what is new in those streams that are streams."""
        until = self._loop.time() + BLOCK_S
        while self._position is not None and (now := self._loop.time()) < until:
            streams: list[tuple[str, bytes]] = []
            ends = until
            if look.log_end:
                streams.append((self._keys.log, self._position))
            if look.hints_end and now < self._hints_at:
                ends = min(until, self._hints_at)
            elif look.hints_end:
                streams.append((self._keys.hints, self._hints_position))
            if streams:
                await self._read(connection, ends - now, *zip(*streams, strict=True))
            else:
                await asyncio.sleep(ends - now)
            self._forget_unconfirmed()

    async def _read(
        self, connection: Connection, within_s: float, names: Sequence[str], positions: Sequence[bytes]
    ) -> None:
        """What is new now, or will be in this time."""
        before = self._position
        block = ("XREAD", "COUNT", ENTRIES_A_READ, "BLOCK", 1 + int(1000 * within_s), "STREAMS")
        try:
            news = replies.news(await connection.read(*block, *names, *positions))
        except WrongTypeError:
            self._position = None  # overwritten just now
            return
        except TooLongError:
            self._position = None  # the sets have it, too
            raise
        changes = news.get(self._keys.log.encode(), [])
        if changes:
            if len(changes) == ENTRIES_A_READ and await self._trimmed(connection, before or START):
                log.warning("the log was trimmed before it was read: loading the sets")
                self._position = None
                return
            if self._anchor == START:
                self._anchor = changes[0].identity
            await self._play(changes, self._has_played)
        if len(changes) < ENTRIES_A_READ and self._keys.log in names:
            self.trust.heard()
        if hints := news.get(self._keys.hints.encode()):
            await self._play(hints, self._has_played_hint)
            if len(hints) < ENTRIES_A_READ:
                self._hints_at = self._loop.time() + HINTS_APART_S

    async def _trimmed(self, connection: Connection, position: bytes) -> bool:
        """Whether entries after `position` may be gone. A reader that keeps up never asks."""
        return position == START or not (await self._look(connection, position)).continues

    def _has_played(self, identity: bytes) -> None:
        self._position = identity
        self._comparison.reached(identity)

    def _has_played_hint(self, identity: bytes) -> None:
        self._hints_position = identity

    async def _play(self, entries: Sequence[Entry], done: Callable[[bytes], None]) -> None:
        """Play entries; `done` is told the identity of each that is."""
        turn_ends = self._loop.time() + TURN_S
        for identity, fields in entries:
            if not is_hint_of(self._name, fields):  # our own we have noted already
                self._play_entry(fields)
            done(identity)
            if self._loop.time() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = self._loop.time() + TURN_S
        self._stats.log_lag_s = max(0.0, time.time() - replies.order(entries[-1].identity)[0] / 1000)

    def _play_entry(self, fields: Sequence[bytes]) -> None:
        if len(fields) % 2:
            self._malformed.skip("record", fields[-1], "a name without a record")
        for kind, record in zip(fields[::2], fields[1::2], strict=False):
            try:
                self._play_record(kind, record)
            except MALFORMED as error:
                self._malformed.skip("record", kind, error)

    def _play_record(self, kind: bytes, record: bytes) -> None:
        index = self._index
        match kind:
            case b"delta":
                index.change(*read_delta(record))
            case b"by":
                self._by = read_owner(record)
            case b"expect":
                owner, self._by = self._by, None
                self._play_hint(record, owner)
            case b"withdraw":
                endpoint, owner = read_withdraw(record)
                if withdrawn := index.withdraw(owner):  # none where it was ours
                    for listener in self.on_withdrawn_elsewhere:
                        listener(endpoint, withdrawn)
            case b"joined":
                if record != self._name:
                    for listens in self.on_joined:
                        listens()
            case b"outlier":
                replica, endpoint, level = read_outlier(record)
                if replica != self._name:
                    for heard in self.on_announced:
                        heard(endpoint, level)
            case b"void":
                index.void(cache_named(record))
            case b"mode":
                endpoint, mode = read_mode(record)
                self.trust.says(endpoint, self._known(endpoint, mode))
            case b"owner":
                replica, endpoint = read_owner_record(record)
                self.trust.holds(endpoint, replica)
            case b"begin":
                endpoint = read_endpoint(record)
                self._unconfirmed.discard(endpoint)
                index.drop_caches(endpoint)
            case b"drop":
                endpoint = read_endpoint(record)
                self._unconfirmed.discard(endpoint)
                self._forget(endpoint)
                self._dropped(endpoint)
            case _:  # of a younger version
                self._malformed.skip("record", kind, "unknown kind")

    def _play_hint(self, record: bytes, owner: ReservationId | None) -> None:
        replica, endpoint, block_size, keys, ttl_s = read_expect(record)
        if replica != self._replica:  # our own we have noted already
            self._index.expect(endpoint, block_size, keys, self._loop.time() + ttl_s, owner)
            if replica < self._replica:
                for listener in self.on_routed_elsewhere:
                    listener(endpoint, keys)

    def _known(self, endpoint: Endpoint, mode: Mode | None) -> Mode:
        """A mode that we don't know says at least that the endpoint has an owner; it is never taken for EXACT."""
        if mode is None:
            self._malformed.skip("mode", endpoint, "unknown mode")
        return mode or Mode.APPROX

    def _forget(self, endpoint: Endpoint) -> None:
        self._index.drop(endpoint)
        self.trust.dropped(endpoint)

    async def _load(self, connection: Connection, look: Look) -> None:
        """Take the sets, and go on from where the log ended before: what is played twice changes nothing."""
        sets = self._sets(connection)
        endpoints, modes, holders = await sets.known(self._names)
        for endpoint in endpoints:
            await sets.load(endpoint)
        self.trust.loaded({endpoint: self._known(endpoint, mode) for endpoint, mode in modes.items()}, holders)
        absent = set(self._index.endpoints()) - endpoints
        if self._generation in (None, look.generation):
            self._unconfirmed.clear()
            for endpoint in absent:
                self._forget(endpoint)
        else:
            self._unconfirmed = absent
            self._confirm_until = self._loop.time() + UNCONFIRMED_S
        self._generation = look.generation
        self._anchor = self._position = look.log_end or START
        self._hints_position = look.hints_end or START
        self._stats.bootstraps += 1
        log.info("index loaded", extra={"endpoints": len(endpoints), "keys": len(self._index)})

    def _sets(self, connection: Connection) -> Sets:
        return Sets(connection, self._keys, self._fences, self._index, self._malformed)

    def _forget_unconfirmed(self) -> None:
        if self._unconfirmed and self._loop.time() >= self._confirm_until:
            for endpoint in self._unconfirmed:
                self._forget(endpoint)
            self._unconfirmed.clear()
