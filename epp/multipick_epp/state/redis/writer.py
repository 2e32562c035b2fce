"""The index as its owners write it."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from multipick_epp.state.cache import Cache
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.protocol import Applied, Delta
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.calls import Calls
from multipick_epp.state.redis.connection import Connection, LostError, WrongTypeError
from multipick_epp.state.redis.ingest_lease import RENEW_S, IngestLease
from multipick_epp.state.redis.keys import KEEP_S, Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.parts import Part, calls_of
from multipick_epp.state.redis.scripts import install
from multipick_epp.state.redis.written import REFRESH_S, Written
from multipick_epp.state.stats import StateStats
from multipick_epp.state.succession import Notes, Tenure
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId

log = logging.getLogger(__name__)

TELL_S = 1.0
"""What was said of the endpoints is said again, for a store that forgot it."""


class Writer:
    """Writes what events tell, and keeps count of what the store may have lost of it.

    Invariants: `_wrote` has the endpoints that this process has taken over and that nobody else has since, as far as we
    know, and that aren't dropped, with the last epoch and sequence that were written; `_owed` those of them that the
    store does not hold exactly, as far as we know; `_gone` those whose drop it has not heard of.
    """

    def __init__(
        self, keys: Keys, replica: ReplicaId, lease: IngestLease, local: LocalIndex | None, stats: StateStats
    ) -> None:
        """`lease`: of this replica. `local` is written to while the store is away."""
        self._keys = keys
        self._lease = lease
        self._local = local
        self._stats = stats
        self._calls = Calls(keys, replica, Malformed(stats.malformed))
        self._written = Written(keys)
        self._generation: bytes | None = None
        self._wrote: dict[Endpoint, tuple[int, int]] = {}
        self._owed: set[Endpoint] = set()
        self._gone: set[Endpoint] = set()
        self._modes: dict[Endpoint, tuple[int, Mode]] = {}  # as this process set them, and under which epoch
        self._listeners: list[Callable[[Endpoint], None]] = []

    @property
    def owners(self) -> tuple[ReplicaId, ...]:
        """The replicas that share the endpoints' events."""
        return self._lease.owners

    def on_lost(self, listener: Callable[[Endpoint], None]) -> None:
        """See `State`."""
        self._listeners.append(listener)

    # --- what events tell

    async def take_over(self, endpoint: Endpoint) -> Tenure | None:
        """See `State`."""
        try:
            while (keeps := await self._is_kept(endpoint)) is None:
                await asyncio.sleep(RENEW_S)
            tenure = await self._calls.take_over(endpoint, keeps)
        except LostError:
            return None
        self._gone.discard(endpoint)
        self._owed.discard(endpoint)
        self._modes.pop(endpoint, None)
        if tenure.inheritance is not None and tenure.mode is not None:
            self._modes[endpoint] = tenure.epoch, tenure.mode
        self._wrote[endpoint] = tenure.epoch, tenure.last
        return tenure

    async def _is_kept(self, endpoint: Endpoint) -> bool | None:
        """Whether somebody follows it; None: not known yet. Raises LostError."""
        holder = await self._calls.holder(endpoint)
        connection = self._calls.connection
        return holder is not None and connection is not None and await self._lease.lives(holder, connection)

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        """See `State`."""
        outcome = [Applied.DUPLICATE] * len(deltas)  # the least of a delta's parts
        calls = list(calls_of(deltas))
        answers = [self._calls.apply([part for _, part in call]) for call in calls]
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

    async def note(self, endpoint: Endpoint, epoch: int, notes: Notes) -> Applied:
        """See `State`."""
        applied = Applied.NEW
        for answer in self._calls.note(endpoint, epoch, notes):
            try:
                applied = _worse(applied, replies.outcome(await answer))
            except LostError:
                applied = Applied.REFUSED
                self._owe(endpoint)
        return applied

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None = None) -> Applied:
        """See `State`."""
        try:
            applied = await self._calls.clear(endpoint, epoch, seq, medium)
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
            if not await self._calls.void(endpoint, epoch, seq):
                self._fenced_off(endpoint, epoch)
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
        with suppress(LostError):  # told when the store is back
            await self._calls.drop(endpoint)
            self._gone.discard(endpoint)

    async def set_mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> Applied:
        """See `State`."""
        self._modes[endpoint] = epoch, mode
        try:
            applied = replies.outcome(await self._calls.mode(endpoint, epoch, mode))
        except LostError:
            return Applied.REFUSED  # told again when the store is back
        if applied is Applied.STALE:
            self._fenced_off(endpoint, epoch)
        return applied

    # --- the link to the store

    async def session(self, connection: Connection, link: Link) -> None:
        """Renew the lease, watch over the store's data, keep the keys alive; until the connection is lost."""
        await self._calls.install(connection)
        await self._written.install(connection)
        await install(connection, self._lease.script)
        self._lease.connected()
        await self._compare(connection)
        self._calls.connection = connection
        try:
            await self._tell_modes()  # before the lease: who sees it renewed takes them for true
            await self._renew(connection)
            for endpoint in list(self._gone):
                await self.drop(endpoint)
            link.up()
            loop = asyncio.get_running_loop()
            tell_at = refresh_at = 0.0
            while True:
                now = loop.time()
                if now >= refresh_at:
                    refresh_at = now + REFRESH_S
                    self._owed |= await self._written.keep(connection, self._wrote) & self._wrote.keys()
                if now >= tell_at or self._owed:
                    tell_at = now + TELL_S
                    await self._tell_modes()
                while self._owed:
                    self._tell(self._owed.pop())
                await asyncio.sleep(RENEW_S)
                await self._renew(connection)
        finally:
            self._calls.connection = None

    async def retire(self) -> bool:
        """See `State`."""
        if self._calls.connection is None:
            return False
        with suppress(LostError):
            await self._lease.give_up(self._calls.connection)
        return bool(self.owners)

    async def _renew(self, connection: Connection) -> None:
        pool = self._keys
        for key in pool.of_the_pool():
            connection.send("EXPIRE", key, KEEP_S)
        if self._is_another_store(await self._lease.renew(connection)):
            raise LostError("flushed")  # what a session sets up is to be set up again

    async def _compare(self, connection: Connection) -> None:
        """Find out what the store has lost."""
        try:
            generation = await connection.read("GET", self._keys.generation)
        except WrongTypeError:
            generation = None
        if not self._is_another_store(generation):
            self._owed |= await self._written.lacking(connection, dict(self._wrote)) & self._wrote.keys()

    def _is_another_store(self, generation: bytes | None) -> bool:
        """Than was there before. Then it has nothing of ours."""
        before, self._generation = self._generation, generation
        if before is None or generation == before:
            return False
        log.warning("the store lost its data", extra={"endpoints": len(self._wrote)})
        self._owed.update(self._wrote)
        return True

    async def _tell_modes(self) -> None:
        """Tell how well our endpoints are known; not `exact` of those that the store does not have."""
        for endpoint in self._owed & self._modes.keys():
            epoch, mode = self._modes[endpoint]
            self._modes[endpoint] = epoch, Mode.APPROX if mode is Mode.EXACT else mode
        told = [(endpoint, *said) for endpoint, said in self._modes.items()]
        answers = await asyncio.gather(*(self._calls.mode(*each) for each in told))
        for (endpoint, epoch, _), applied in zip(told, map(replies.outcome, answers), strict=True):
            if applied is Applied.STALE:
                self._fenced_off(endpoint, epoch)
                self._tell(endpoint)
            elif applied is Applied.GAP:
                self._owe(endpoint)

    # ---

    def _tell(self, endpoint: Endpoint) -> None:
        for listener in self._listeners:
            listener(endpoint)

    def _refused(self, part: Part) -> None:
        self._owe(part.cache.endpoint)
        if self._local is not None:
            self._local.change(part.cache, part.stored, part.removed)

    def _note(self, endpoint: Endpoint, epoch: int, last: int, applied: Applied) -> None:
        if applied is Applied.STALE:
            self._fenced_off(endpoint, epoch)
        elif applied > Applied.STALE and endpoint in self._wrote:
            self._wrote[endpoint] = max(self._wrote[endpoint], (epoch, last))

    def _fenced_off(self, endpoint: Endpoint, epoch: int) -> None:
        """Somebody else has taken the endpoint over: it is no business of ours until we do."""
        if self._wrote.get(endpoint, (epoch, 0))[0] != epoch:
            return  # it was ourselves, since
        self._wrote.pop(endpoint, None)
        self._modes.pop(endpoint, None)
        self._owed.discard(endpoint)

    def _owe(self, endpoint: Endpoint) -> None:
        if endpoint in self._wrote:
            self._owed.add(endpoint)


_BADNESS = (Applied.DUPLICATE, Applied.NEW, Applied.GAP, Applied.STALE, Applied.REFUSED)


def _worse(one: Applied, other: Applied) -> Applied:
    return max(one, other, key=_BADNESS.index)
