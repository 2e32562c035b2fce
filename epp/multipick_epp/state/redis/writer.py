"""The index as its owners write it."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.owners import owned_by
from multipick_epp.state.protocol import Applied, Cache, Delta
from multipick_epp.state.redis import fences, replies
from multipick_epp.state.redis.connection import Connection, LostError, WrongTypeError
from multipick_epp.state.redis.ingest_lease import IngestLease
from multipick_epp.state.redis.keys import KEEP_S, LOG_ENTRIES, REFRESH_S, Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.parts import Part, calls_of
from multipick_epp.state.redis.reasons import AWAY
from multipick_epp.state.redis.records import cache_name, delta_record, mode_record
from multipick_epp.state.redis.scripts import Script, install, load
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId

log = logging.getLogger(__name__)

RENEW_S = 1.0
_TRIES = 5


class Writer:
    """Writes what events tell, and keeps count of what the store may have lost of it.

    Invariants: `_wrote` has the endpoints that this process has begun or replaced and that aren't dropped, with the
    last epoch and sequence that were written; `_owed` those of them that the store does not hold exactly, as far as we
    know; `_gone` those whose drop it has not heard of.
    """

    def __init__(self, keys: Keys, replica: ReplicaId, owns: bool, local: LocalIndex | None, stats: StateStats) -> None:
        """`owns`: this replica takes its part of the endpoints. `local` is written to while the store is away."""
        self._keys = keys
        self._replica = replica
        self._lease = IngestLease(keys, replica, owns)
        self._local = local
        self._stats = stats
        self._malformed = Malformed(stats.malformed)
        self._connection: Connection | None = None
        self._generation: bytes | None = None
        self._wrote: dict[Endpoint, tuple[int, int]] = {}
        self._owed: set[Endpoint] = set()
        self._gone: set[Endpoint] = set()
        self._modes: dict[Endpoint, Mode] = {}  # as this process set them
        self._listeners: list[Callable[[Endpoint], None]] = []
        self._apply, self._begin, self._clear, self._drop, self._mode, self._keep = map(
            load, ("apply", "begin", "clear", "drop", "mode", "keep")
        )

    @property
    def owners(self) -> tuple[ReplicaId, ...]:
        """The replicas that share the endpoints' events."""
        return self._lease.owners

    def on_lost(self, listener: Callable[[Endpoint], None]) -> None:
        """See `State`."""
        self._listeners.append(listener)

    # --- what events tell

    async def begin(self, endpoint: Endpoint, epoch: int) -> bool:
        """See `State`."""
        self._wrote.setdefault(endpoint, (epoch, -1))
        self._gone.discard(endpoint)
        try:
            return await self._void(endpoint, epoch, -1, force=False)
        except LostError:
            self._owe(endpoint)
            if self._local is not None:
                self._local.drop_caches(endpoint)
            return True

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        """See `State`."""
        outcome = [Applied.DUPLICATE] * len(deltas)  # the least of a delta's parts
        calls = list(calls_of(deltas))
        answers = [self._call(self._apply, *self._apply_arguments([part for _, part in call])) for call in calls]
        for call, answer in zip(calls, answers, strict=True):
            try:
                codes = [replies.outcome(code) for code in replies.listed(await answer, len(call))]
            except LostError:
                codes = [Applied.REFUSED] * len(call)
                for _, part in call:
                    self._refused(part)
            for (place, part), code in zip(call, codes, strict=True):
                outcome[place] = _worse(outcome[place], code)
                self._note(part.cache.endpoint, part.epoch, part.last, outcome[place])
        self._stats.applied.update(outcome)
        return outcome

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None = None) -> Applied:
        """See `State`."""
        try:
            names = [name for name in await self._caches(endpoint) if fences.is_on(medium, name, self._malformed)]
            keys = (self._keys.log, self._keys.fence(endpoint), *map(self._keys.blocks, names))
            code = await self._call(self._clear, keys, LOG_ENTRIES, epoch, seq, KEEP_S, *names)
            applied = replies.outcome(code)
            self._note(endpoint, epoch, seq, applied)
        except LostError:
            self._owe(endpoint)
            if self._local is not None:
                for cache in self._local.caches(endpoint):
                    if medium in (None, cache.medium):
                        self._local.void(cache)
            applied = Applied.REFUSED
        self._stats.applied[applied] += 1
        return applied

    async def replace(
        self, endpoint: Endpoint, epoch: int, seq: int, contents: Mapping[Cache, Sequence[BlockKey]]
    ) -> Applied:
        """See `State`."""
        self._wrote[endpoint] = (epoch, seq)
        self._gone.discard(endpoint)
        self._owed.discard(endpoint)
        try:
            if not await self._void(endpoint, epoch, seq, force=True):
                return Applied.STALE
        except LostError:
            self._owe(endpoint)
            if self._local is not None:
                self._local.drop_caches(endpoint)
                for cache, keys in contents.items():
                    self._local.change(cache, keys, ())
            return Applied.REFUSED
        # Batch `seq` is in the fence already, so these are pieces that advance nothing.
        outcome = await self.apply([Delta(cache, epoch, seq + 1, seq, keys) for cache, keys in contents.items()])
        return max(outcome, default=Applied.NEW, key=_BADNESS.index)

    async def drop(self, endpoint: Endpoint) -> None:
        """See `State`."""
        self._wrote.pop(endpoint, None)
        self._owed.discard(endpoint)
        self._modes.pop(endpoint, None)
        if self._local is not None:
            self._local.drop(endpoint)
        self._gone.add(endpoint)
        pool = self._keys
        fixed = (pool.log, pool.endpoints, pool.modes, pool.fence(endpoint))
        try:
            for _ in range(_TRIES):
                names = await self._caches(endpoint)
                keys = (*fixed, *map(pool.blocks, names))
                if await self._call(self._drop, keys, LOG_ENTRIES, endpoint, *names) == 1:
                    self._gone.discard(endpoint)
                    return
        except LostError:
            return  # told when the store is back

    async def set_mode(self, endpoint: Endpoint, mode: Mode) -> None:
        """See `State`."""
        self._modes[endpoint] = mode
        if self._local is not None:
            self._local.set_mode(endpoint, mode)
        try:
            await self._send_mode(endpoint, mode)
        except LostError:
            return  # told again when the store is back

    # --- the link to the store

    async def session(self, connection: Connection, link: Link) -> None:
        """Renew the lease, watch over the store's data, keep the keys alive; until the connection is lost."""
        self._lease.connected()
        scripts = (self._apply, self._begin, self._clear, self._drop, self._mode, self._keep, self._lease.script)
        await install(connection, *scripts)
        await self._renew(connection)
        await self._compare(connection)
        self._connection = connection
        try:
            for endpoint in list(self._gone):
                await self.drop(endpoint)
            link.up()
            refresh_at = 0.0
            while True:
                self._tell_owed()
                await self._tell_modes()
                now = asyncio.get_running_loop().time()
                if now >= refresh_at:
                    refresh_at = now + REFRESH_S
                    await self._refresh()
                await asyncio.sleep(RENEW_S)
                await self._renew(connection)
        finally:
            self._connection = None

    async def leave(self) -> None:
        """Give up the lease, so that the others need not wait for its end."""
        if self._connection is not None:
            with suppress(LostError):
                await self._lease.give_up(self._connection)

    async def _renew(self, connection: Connection) -> None:
        pool = self._keys
        for key in pool.of_the_pool():
            connection.send("EXPIRE", key, KEEP_S)
        generation = await self._lease.renew(connection)
        before, self._generation = self._generation, generation
        if before is not None and generation != before:
            log.warning("the store lost its data", extra={"endpoints": len(self._wrote)})
            self._owed.update(self._wrote)
            if self._connection is not None:
                raise LostError("flushed")  # what a session sets up is to be set up again

    async def _compare(self, connection: Connection) -> None:
        """A store that came back with an older save lacks what we wrote since, and no event may come for long."""
        wrote = list(self._wrote.items())
        reads = [connection.read("HMGET", self._keys.fence(endpoint), "epoch", "last") for endpoint, _ in wrote]
        for (endpoint, ours), fence in zip(wrote, await asyncio.gather(*reads, return_exceptions=True), strict=True):
            if isinstance(fence, BaseException) and not isinstance(fence, WrongTypeError):
                raise fence
            position = fences.position(fence)
            if position is None or position < ours:
                self._owed.add(endpoint)

    async def _refresh(self) -> None:
        await asyncio.gather(*map(self._refresh_endpoint, list(self._wrote)))

    async def _refresh_endpoint(self, endpoint: Endpoint) -> None:
        """Keep alive what we wrote. Who lost something of it is told: no event may come for long."""
        pool = self._keys
        names = await self._caches(endpoint)
        keys = (pool.endpoints, pool.fence(endpoint), *map(pool.blocks, names))
        if not replies.number(await self._call(self._keep, keys, endpoint, KEEP_S)):
            self._owe(endpoint)

    def _tell_owed(self) -> None:
        while self._owed:
            endpoint = self._owed.pop()
            for listener in self._listeners:
                listener(endpoint)

    # ---

    def _call(self, script: Script, keys: tuple[Any, ...], *arguments: Any) -> "asyncio.Future[Any]":
        if self._connection is None:
            away: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            away.set_exception(LostError(AWAY))
            return away
        return self._connection.call(*script.command(keys, *arguments))

    def _apply_arguments(self, parts: Sequence[Part]) -> tuple[Any, ...]:
        keys: list[Any] = [self._keys.log]
        arguments: list[Any] = [LOG_ENTRIES, CACHES_AT_MOST, KEEP_S]
        for part in parts:
            name = cache_name(part.cache)
            keys += (self._keys.fence(part.cache.endpoint), self._keys.blocks(name))
            arguments += (name, part.epoch, part.first, part.last, len(part.stored), len(part.removed))
            arguments.append(delta_record(part.cache, part.stored, part.removed))
        return tuple(keys), *arguments

    async def _void(self, endpoint: Endpoint, epoch: int, seq: int, *, force: bool) -> bool:
        pool = self._keys
        for _ in range(_TRIES):
            names = await self._caches(endpoint)
            keys = (pool.log, pool.endpoints, pool.fence(endpoint), *map(pool.blocks, names))
            done = await self._call(self._begin, keys, LOG_ENTRIES, endpoint, epoch, seq, int(force), KEEP_S, *names)
            if replies.number(done) != -1:
                return bool(done)
        raise LostError("busy", f"{endpoint} has two writers")

    async def _caches(self, endpoint: Endpoint) -> list[bytes]:
        if self._connection is None:
            raise LostError(AWAY)
        return await fences.cache_names(self._connection, self._keys, endpoint, self._malformed)

    async def _tell_modes(self) -> None:
        """Tell how well the endpoints that are ours are known; what we said of others is void.

        While replicas come, or the store has forgotten the leases, two take an endpoint for theirs: without repetition
        the last word could stay that of the one that was wrong.
        """
        self._modes = {
            endpoint: self._modes[endpoint] for endpoint in owned_by(self._replica, self._modes, self.owners)
        }
        await asyncio.gather(*(self._send_mode(endpoint, mode) for endpoint, mode in self._modes.items()))

    def _send_mode(self, endpoint: Endpoint, mode: Mode) -> "asyncio.Future[Any]":
        keys = (self._keys.log, self._keys.modes)
        return self._call(self._mode, keys, LOG_ENTRIES, endpoint, str(mode), mode_record(endpoint, mode))

    def _refused(self, part: Part) -> None:
        self._owe(part.cache.endpoint)
        if self._local is not None:
            self._local.change(part.cache, part.stored, part.removed)

    def _note(self, endpoint: Endpoint, epoch: int, last: int, applied: Applied) -> None:
        if applied > Applied.STALE and endpoint in self._wrote:
            self._wrote[endpoint] = max(self._wrote[endpoint], (epoch, last))

    def _owe(self, endpoint: Endpoint) -> None:
        if endpoint in self._wrote:
            self._owed.add(endpoint)


_BADNESS = (Applied.DUPLICATE, Applied.NEW, Applied.GAP, Applied.STALE, Applied.REFUSED)


def _worse(one: Applied, other: Applied) -> Applied:
    return max(one, other, key=_BADNESS.index)
