"""Reservations, charged in the store; by this process's own view while it is alone there, or the store away."""

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress

from multipick_epp.state.ledger import Charge, negative, with_equal_prompt
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt, LoadColumns, Reserved
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.audit import Audit
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.figures import CONTEXTS, fields_of, read_load
from multipick_epp.state.redis.hashes import is_text, read_charges, read_loads
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.reasons import FLUSHED
from multipick_epp.state.redis.records import (
    expect_record,
    outlier_record,
    read_endpoint,
    read_level,
    withdraw_record,
)
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.state.redis.sets import ENDPOINTS_AT_MOST
from multipick_epp.state.redis.turns import Outcome, Reserve, Turns
from multipick_epp.state.redis.view import View
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Load, ReplicaId, ReservationId

STALL_S = 0.05
"""A reserve waits no longer for the store: the local view decides then."""
POLL_S = 0.025
"""So old is what a decision knows of the other pickers' charges, before the store decides among the best."""
RENEW_S = 1.0
"""So soon it knows that there are others."""
HEARD_WITHIN_S = 1.5
"""A replica that goes by its own view, since it was alone, has heard by then of one that came; or it is dead."""
CANDIDATES_AT_MOST = 1_000
"""So many are sent to the store (callers send 16); Lua's stack takes twice as many."""
FORGET_OTHERS_S = 10.0
"""Without the store: after so long most of the requests of other replicas, as we last saw them, have ended."""


class Loads:
    """Invariants: `_view` has exactly the reservations that this replica made and did not release. While `_turns` is
    set, the store's record of our charges is what these add up to, less what is under way on that connection; a store
    where that is not so is put right within a second or two.
    """

    def __init__(
        self, keys: Keys, replica: ReplicaId, holders: Callable[[BlockKey], Set[Endpoint]], stats: StateStats
    ) -> None:
        """`holders`: where a block is resident, or expected, as far as is known here."""
        self.on_remembered: list[Callable[[Endpoint, int], None]] = []  # as left out, when we connect
        self._keys = keys
        self._replica = replica
        self._holders = holders
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._view = View()
        self._audit = Audit(keys, replica, stats)
        self._connection: Connection | None = None
        self._turns: Turns | None = None
        self._forget: asyncio.TimerHandle | None = None
        self._turn = load("turn", when_full=True)
        self._outliers = load("outliers", when_full=True)

    def load(self, endpoint: Endpoint) -> Load:
        """See `State`."""
        return self._view.load(endpoint)

    def loads(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """See `State`."""
        return self._view.loads_of(endpoints)

    def load_columns(self, endpoints: Sequence[Endpoint]) -> LoadColumns:
        """See `State`."""
        return self._view.columns(endpoints)

    @property
    def alone(self) -> bool:
        """See `State`."""
        return self._turns is not None and not self._turns.company.is_set()

    async def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None,
        context: Context | None,
    ) -> Reserved:
        """See `State`."""
        if not candidates.endpoints:
            raise ValueError("no candidates")
        if not self.alone:
            if stays := self._view.stays(reservation, candidates):
                return stays
            if self._turns is not None:
                asked = self._turns.reserve(reservation, _bounded(candidates), equal_prompt, context)
                try:
                    return await asked
                except LostError:
                    pass
                except asyncio.CancelledError:
                    if not asked.cancelled() and asked.exception() is None:  # answered before we could be told of it
                        self.release(reservation)
                    raise
            self._stats.reserved_here += 1
        return self._reserve_here(reservation, candidates, equal_prompt, context)

    def progress(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        if change := self._view.progress(reservation, queued_tokens):
            self._tell(self._view.charges[reservation].endpoint, change)

    def recharge(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        if change := self._view.recharge(reservation, queued_tokens):
            self._tell(self._view.charges[reservation].endpoint, change)

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        """See `State`."""
        if before := self._view.move(reservation, endpoint):
            self._take_back(before)
            self._tell(endpoint, before.load)

    def release(self, reservation: ReservationId) -> None:
        """See `State`."""
        if before := self._view.release(reservation):
            self._take_back(before)

    def dropped(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, and its load with it: our reservations there are void."""
        self._tell(endpoint, negative(self._view.drop(endpoint)))

    def expect(
        self,
        endpoint: Endpoint,
        block_size: int,
        keys: Sequence[BlockKey],
        ttl_s: float,
        owner: ReservationId | None,
    ) -> None:
        """Tell the other replicas, where there are any, of a routed prompt."""
        if self._turns is not None and self._turns.company.is_set():
            by = () if owner is None else ("by", owner)
            self._turns.hint(*by, "expect", expect_record(self._replica, endpoint, block_size, keys, ttl_s))

    def withdraw(self, endpoint: Endpoint, owner: ReservationId, keys: Sequence[BlockKey]) -> None:
        """Tell the other replicas that what this reservation expected, `keys`, won't be. An equal prompt comes within
        moments where a client or a gateway asks again: it must not go by a request that came to nothing.
        """
        if self._turns is not None and self._turns.company.is_set():
            self._turns.hint("withdraw", withdraw_record(endpoint, owner))
            # The block that names the prompt: its last, or the one before where the last is full (`Chains.usable`).
            for key in keys[-2:]:
                if endpoint not in self._holders(key):  # none else expects it there
                    self._turns.withdraw(key, endpoint)

    def announce(self, endpoint: Endpoint, level: int) -> None:
        """See `State`."""
        if self._connection is None or self._turns is None:
            return
        if level:
            self._connection.send("HSET", self._keys.outliers, endpoint, level)
        else:
            self._connection.send("HDEL", self._keys.outliers, endpoint)
        self._turns.hint("outlier", outlier_record(self._replica, endpoint, level))
        self._turns.flush()  # whoever connects now reads it

    def joined(self) -> None:
        """Another replica has come, and waits to be heard of."""
        if self._turns is not None:
            self._turns.company.set()

    # --- the link to the store

    async def session(self, connection: Connection, link: Link) -> None:
        """Renew the lease, read the loads, see that they are right; until the connection is lost."""
        await install(connection, self._turn, self._outliers, *self._audit.scripts)
        generation = await self._audit.begin(connection)
        keys = (self._keys.load, self._audit.charges, self._keys.routed, self._keys.hints)
        turns = Turns(connection, self._turn, keys, self._taken, self._take_back)
        try:
            await self._audit.check_all(connection)  # first: there may be more than one can read
            await self._audit.check(connection, await self._read(connection, turns))
            await self._remember(connection)
            await self._is_heard_of(connection, turns)
            link.up()
            audit_at = self._loop.time() + RENEW_S
            while True:
                joined = await self._rest(turns)
                if self._loop.time() < audit_at and not joined:
                    turns.flush()
                    self._view.asked()
                    await connection.take(lambda loads: self._view.read(read_loads(loads)), "HGETALL", self._keys.load)
                else:
                    audit_at = self._loop.time() + RENEW_S
                    turns.flush()  # whoever sees that we have heard of it sees all that we charged alone
                    if await self._audit.renew(connection) != generation:
                        raise LostError(FLUSHED)
                    self._see_company(turns)
                    await self._audit.check(connection, await self._read(connection, turns))
                    await self._audit.reap(connection)
                    if self._audit.is_first:
                        await self._audit.check_all(connection)
        finally:
            self._connection = self._turns = None
            self._forget = self._forget or self._loop.call_later(FORGET_OTHERS_S, self._view.forget_others)

    def _see_company(self, turns: Turns) -> None:
        """The lease was just renewed."""
        if self._audit.is_alone:
            turns.company.clear()
        else:
            turns.company.set()

    async def _is_heard_of(self, connection: Connection, turns: Turns) -> None:
        """Wait until no other replica goes by its own view, or such a one is seen to be dead."""
        until = self._loop.time() + HEARD_WITHIN_S
        while self._audit.is_unheard_of and self._loop.time() < until:
            turns.hint("joined", self._replica)
            turns.flush()
            await asyncio.sleep(POLL_S)
            await self._audit.renew(connection)

    async def _rest(self, turns: Turns) -> bool:
        """Until the loads are to be read again, seldom while nobody else charges; whether somebody has come."""
        if turns.company.is_set():
            await asyncio.sleep(POLL_S)
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                await turns.company.wait()
        return turns.company.is_set()

    async def _remember(self, connection: Connection) -> None:
        """Tell of the endpoints that stand as left out. What is no such key, or an odd field of it, is removed."""
        command = self._outliers.command((self._keys.outliers,), ENDPOINTS_AT_MOST)
        for name, text in replies.pairs(await connection.call(*command)):
            try:
                endpoint, level = read_endpoint(name), read_level(text)
            except ValueError:
                connection.send("HDEL", self._keys.outliers, name)
                continue
            for listener in self.on_remembered:
                listener(endpoint, level)

    async def leave(self) -> None:
        """Release all reservations and give up the lease, so that the others need not wait for its end."""
        for reservation in list(self._view.charges):
            self.release(reservation)
        if self._turns is not None and self._connection is not None:
            self._turns.flush()
            with suppress(LostError):
                await self._audit.give_up(self._connection)

    async def _read(self, connection: Connection, turns: Turns) -> Iterable[str]:
        """Read the loads and the store's record of our charges; make that right, and charge by this connection from
        then on. Returns the fields where it was wrong.
        """

        def take(loads: object) -> Iterable[str]:
            recorded = replies.pairs(record.result())
            if nobodys := [name for name, _ in recorded if not is_text(name)]:  # no change that we send can name them
                connection.send("HDEL", self._audit.charges, *nobodys)
            missing = self._view.missing(read_charges(recorded))
            self._view.read(read_loads(loads), missing)
            for field, change in missing.items():
                self._stats.recharged += 0 if field.endswith(CONTEXTS) else read_load(change).in_flight
                turns.change(field, change)
            turns.flush()
            self._connection, self._turns = connection, turns
            if self._forget is not None:
                self._forget.cancel()
                self._forget = None
            return missing

        turns.flush()
        self._view.asked()
        record = connection.call("HGETALL", self._audit.charges)
        record.add_done_callback(lambda each: each.cancelled() or each.exception())  # both are lost together: said once
        return await connection.take(take, "HGETALL", self._keys.load)

    # ---

    def _tell(self, endpoint: Endpoint, change: Load) -> None:
        """We changed a load by so much: the store has to hear of it."""
        if self._turns is not None:
            self._view.told(endpoint, change)
            for field, number in fields_of(endpoint, change):
                self._turns.change(field, number)

    def _take_back(self, charge: Charge) -> None:
        self._tell(charge.endpoint, charge.end)

    def _reserve_here(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None,
        context: Context | None,
    ) -> Reserved:
        """By the view, which is the truth while nobody else charges."""
        before = self._view.charges.get(reservation)
        if equal_prompt is not None:
            candidates = with_equal_prompt(candidates, equal_prompt, self._holders(equal_prompt.key))
        reserved = self._view.reserve(reservation, candidates, self._view.loads_of, context)
        charge = self._view.charges[reservation]
        if charge is not before:
            if before is not None:
                self._take_back(before)
            self._tell(charge.endpoint, charge.load)
        return reserved

    def _taken(self, reserve: Reserve, outcome: Outcome) -> Reserved:
        reservation, candidates, _, _ = reserve
        charge = reserve.charged(outcome)
        if reservation in self._view.charges:  # charged while we asked
            if stays := self._view.stays(reservation, candidates):
                self._take_back(charge)
                return stays
            self.release(reservation)
        self._view.charge(reservation, charge)
        return Reserved(outcome[0], charge.queued_tokens, read_load(outcome[2]))


def _bounded(candidates: Candidates) -> Candidates:
    if len(candidates.endpoints) <= CANDIDATES_AT_MOST:
        return candidates
    endpoints, new_tokens, queued, in_flight = candidates
    most = CANDIDATES_AT_MOST
    return Candidates(endpoints[:most], new_tokens[:most], queued[:most], in_flight[:most])
