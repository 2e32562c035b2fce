"""Reservations, charged in the store; in this process's own view while the store is away."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from uuid import uuid4

from multipick_epp.state.ledger import NO_LOAD, Charge, with_equal_prompt
from multipick_epp.state.protocol import Candidate, EqualPrompt, Reserved
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.keys import HINT_ENTRIES, KEEP_S, Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.records import expect_record
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.state.redis.turns import Outcome, Turns
from multipick_epp.state.redis.view import View
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Load, ReplicaId, ReservationId

STALL_S = 0.05
"""A reserve waits no longer for the store: the local view decides then."""
POLL_S = 0.025
"""So old is what a decision knows of the other pickers' charges, before the store decides among the best."""
RENEW_S = 1.0
REAP_AFTER_MS = 7_000
"""A replica whose lease is older is dead. With `RENEW_S`: its reservations are gone within 10 s."""
REAP_A_CALL = 256
IN_FLIGHT = 2**35
"""A load in the store is one number, requests in flight * IN_FLIGHT + queued tokens: see `lua/common.lua`."""
CANDIDATES_AT_MOST = 1_000
"""So many are sent to the store (callers send 16); Lua's stack takes twice as many."""
FORGET_OTHERS_S = 10.0
"""Without the store: after so long most of the requests of other replicas, as we last saw them, have ended."""
_TABLE = b""  # the field that makes a hash a table: see `lua/common.lua`


class Loads:
    """Invariants: `_view` has exactly the reservations that this replica made and did not release. While `_turns` is
    set, the store's record of them is the view's, less what is under way on that connection.
    """

    def __init__(
        self, keys: Keys, replica: ReplicaId, holds: Callable[[Endpoint, BlockKey], bool], stats: StateStats
    ) -> None:
        """`holds`: whether a block is resident, or expected, as far as is known here."""
        self._keys = keys
        self._replica = replica
        self._holds = holds
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._view = View()
        self._connection: Connection | None = None
        self._turns: Turns | None = None
        self._forget: asyncio.TimerHandle | None = None
        self._turn, self._reap, self._lease, self._expect = (
            load(name, when_full=True) for name in ("turn", "reap", "lease", "expect")
        )

    def load(self, endpoint: Endpoint) -> Load:
        """See `State`."""
        return self._view.load(endpoint)

    def loads(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """See `State`."""
        get = self._view.loads.get
        return [*map(get, endpoints, itertools.repeat(NO_LOAD))]

    async def reserve(
        self, reservation: ReservationId, candidates: Sequence[Candidate], equal_prompt: EqualPrompt | None
    ) -> Reserved:
        """See `State`."""
        if not candidates:
            raise ValueError("no candidates")
        turns = self._turns
        if turns is not None:
            try:
                outcome = await turns.reserve(reservation, candidates[:CANDIDATES_AT_MOST], equal_prompt)
            except LostError:
                pass
            except asyncio.CancelledError:
                self._undo(turns, reservation)
                raise
            else:
                return self._reserved(reservation, candidates, outcome)
        self._stats.reserved_here += 1
        if equal_prompt is not None:
            candidates = with_equal_prompt(candidates, equal_prompt, self._holds)
        return self._view.reserve(reservation, candidates, self._view.load)

    def progress(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        if (gone := self._view.progress(reservation, queued_tokens)) and self._turns is not None:
            charge = self._view.charges[reservation]
            self._view.told(charge.endpoint, -gone, 0)
            self._turns.charge(reservation, charge)

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        """See `State`."""
        if (before := self._view.move(reservation, endpoint)) and self._turns is not None:
            self._view.told(before.endpoint, -before.queued_tokens, -1)
            self._view.told(endpoint, before.queued_tokens, 1)
            self._turns.charge(reservation, self._view.charges[reservation])

    def release(self, reservation: ReservationId) -> None:
        """See `State`."""
        if (before := self._view.release(reservation)) and self._turns is not None:
            self._view.told(before.endpoint, -before.queued_tokens, -1)
            self._turns.release(reservation)

    def dropped(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, and its load with it: our reservations there are void."""
        for reservation in self._view.drop(endpoint):
            if self._turns is not None:
                self._turns.release(reservation)

    def expect(self, endpoint: Endpoint, block_size: int, keys: Sequence[BlockKey], ttl_s: float) -> None:
        """Tell the other replicas of a routed prompt. The stream is capped: this works in a full store, too."""
        if self._connection is not None:
            record = expect_record(self._replica, endpoint, block_size, keys, ttl_s)
            self._connection.send(*self._expect.command((self._keys.hints,), HINT_ENTRIES, record))

    # --- the link to the store

    async def session(self, connection: Connection, link: Link) -> None:
        """Renew the lease, read the loads, reap the dead; until the connection is lost."""
        await install(connection, self._turn, self._reap, self._lease, self._expect)
        generation = await self._renew(connection, None)
        turns = await self._reconcile(connection)
        try:
            link.up()
            renew_at = 0.0
            while True:
                now = self._loop.time()
                if now >= renew_at:
                    renew_at = now + RENEW_S
                    await self._renew(connection, generation)
                turns.flush()
                self._view.asked()
                self._view.read(_loads(await connection.call("HGETALL", self._keys.load)))
                await asyncio.sleep(POLL_S)
        finally:
            self._connection = self._turns = None
            self._forget = self._loop.call_later(FORGET_OTHERS_S, self._view.forget_others)

    async def leave(self) -> None:
        """Release all reservations and give up the lease, so that the others need not wait for its end."""
        for reservation in list(self._view.charges):
            self.release(reservation)
        if self._turns is not None and self._connection is not None:
            self._turns.flush()
            with suppress(LostError):
                await self._connection.call("ZREM", self._keys.replicas, self._replica)

    async def _renew(self, connection: Connection, expected: bytes | None) -> bytes:
        """Renew the lease and reap the dead; the store's generation.

        Raises `LostError` where the store knows our reservations no more; `expected` is the generation that did.
        """
        pool = self._keys
        mine = pool.reservations(self._replica)
        keys = (pool.replicas, pool.generation, pool.load, mine)
        generation, there, leases = await connection.call(*self._lease.command(keys, self._replica, uuid4().hex))
        connection.send("EXPIRE", mine, KEEP_S)
        if expected is not None and not (there and generation == expected):
            raise LostError("flushed" if generation != expected else "reaped")
        for name, age in zip(leases[::2], leases[1::2], strict=True):
            if age > REAP_AFTER_MS:
                await self._reap_replica(connection, ReplicaId(name.decode()))
        return bytes(generation)

    async def _reap_replica(self, connection: Connection, replica: ReplicaId) -> None:
        keys = (self._keys.load, self._keys.reservations(replica), self._keys.dropped, self._keys.replicas)
        cursor: bytes | None = None
        while cursor != b"0":
            arguments = (replica, REAP_AFTER_MS, REAP_A_CALL, cursor or 0)
            cursor, reaped = await connection.call(*self._reap.command(keys, *arguments))
            self._stats.reaped += reaped

    async def _reconcile(self, connection: Connection) -> Turns:
        """Make the store's record of our reservations the view's, and use the connection from then on."""
        mine = self._keys.reservations(self._replica)
        turns = Turns(connection, self._turn, (self._keys.load, mine, self._keys.dropped, self._keys.routed))
        fields = await connection.call("HGETALL", mine)
        recorded = dict(zip(fields[::2], fields[1::2], strict=True))
        recorded.pop(_TABLE, None)
        for reservation, charge in self._view.charges.items():
            record = recorded.pop(reservation.encode(), b"")
            if record.split(b" ", 2)[::2] != [b"%d" % charge.queued_tokens, charge.endpoint.encode()]:
                self._stats.recharged += 1
                turns.charge(reservation, charge)
        for name in recorded:
            turns.release(name)
        # No await since the reply: nothing has changed in between.
        self._connection, self._turns = connection, turns
        if self._forget is not None:
            self._forget.cancel()
        return turns

    # ---

    def _undo(self, turns: Turns, reservation: ReservationId) -> None:
        """A reserve was given up, and may have charged something."""
        if charge := self._view.charges.get(reservation):
            turns.charge(reservation, charge)
        else:
            turns.release(reservation)

    def _reserved(self, reservation: ReservationId, candidates: Sequence[Candidate], outcome: Outcome) -> Reserved:
        winner, new_tokens, load_before = outcome
        endpoint = candidates[winner].endpoint
        known = self._view.charges.get(reservation)
        if known is None or known.endpoint != endpoint:
            self._view.charge(reservation, Charge(endpoint, new_tokens))
        return Reserved(winner, new_tokens, _load(load_before))


def _loads(fields: Sequence[bytes]) -> dict[Endpoint, Load]:
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return {_endpoint(name): _load(figure) for name, figure in pairs if name != _TABLE}


@lru_cache(maxsize=8192)
def _endpoint(name: bytes) -> Endpoint:
    return Endpoint(name.decode())


@lru_cache(maxsize=8192)
def _load(figure: int | bytes) -> Load:
    in_flight, queued_tokens = divmod(int(figure), IN_FLIGHT)
    return Load(queued_tokens, in_flight)
