"""Reservations, charged in the store; in this process's own view while the store is away."""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from uuid import uuid4

from multipick_epp.state.ledger import NO_LOAD, Charge, Ledger
from multipick_epp.state.protocol import Candidate, Repeat, Reserved
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.keys import HINT_ENTRIES, KEEP_S, Keys
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.records import expect_record
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.state.redis.view import View
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Load, ReplicaId, ReservationId

STALL_S = 0.05
"""A reserve waits no longer for the store: the local view decides then."""
POLL_S = 0.1
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
    """Invariants: `_ledger` has exactly the reservations that this replica made and did not release. While
    `_connection` is set, the store's record of them is the ledger's, less what is under way on that connection.
    """

    def __init__(self, keys: Keys, replica: ReplicaId, stats: StateStats) -> None:
        self._keys = keys
        self._replica = replica
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger()
        self._view = View()
        self._connection: Connection | None = None
        self._away_since = self._loop.time()
        self._reserve, self._charge, self._release, self._reap, self._lease, self._expect = (
            load(name, when_full=True) for name in ("reserve", "charge", "release", "reap", "lease", "expect")
        )
        self._charged_keys = (keys.load, keys.reservations(replica), keys.dropped)
        self._reserve_keys = (*self._charged_keys, keys.routed)

    def load(self, endpoint: Endpoint) -> Load:
        """See `State`."""
        return self._best_view().get(endpoint, NO_LOAD)

    def loads(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """See `State`."""
        get = self._best_view().get
        return [get(endpoint, NO_LOAD) for endpoint in endpoints]

    async def reserve(
        self, reservation: ReservationId, candidates: Sequence[Candidate], repeat: Repeat | None
    ) -> Reserved:
        """See `State`."""
        if not candidates:
            raise ValueError("no candidates")
        connection = self._connection
        if connection is not None:
            endpoints, *columns = zip(*candidates[:CANDIDATES_AT_MOST], strict=True)
            prompt, again = (repeat.key, repeat.new_tokens) if repeat is not None else ("", 0)
            packed = struct.pack(f"<{1 + 3 * len(endpoints)}q", again, *columns[0], *columns[1], *columns[2])
            mark = self._view.number
            try:
                reply = await connection.call(
                    *self._reserve.command(self._reserve_keys, reservation, packed, prompt, *endpoints)
                )
            except LostError:
                pass
            except asyncio.CancelledError:
                self._undo(connection, reservation)
                raise
            else:
                return self._reserved(reservation, candidates, mark, endpoints, reply)
        self._stats.reserved_here += 1
        before = self._ledger.charges.get(reservation)
        reserved = self._ledger.reserve(reservation, candidates, self.load)
        if before:
            self._view.shift(before.endpoint, -before.queued_tokens, -1)
        charge = self._ledger.charges[reservation]
        self._view.shift(charge.endpoint, charge.queued_tokens, 1)
        return reserved

    def progress(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        if gone := self._ledger.progress(reservation, queued_tokens):
            charge = self._ledger.charges[reservation]
            self._change(charge.endpoint, -gone, 0)
            self._send_charge(self._connection, reservation, charge)

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        """See `State`."""
        if before := self._ledger.move(reservation, endpoint):
            self._change(before.endpoint, -before.queued_tokens, -1)
            self._change(endpoint, before.queued_tokens, 1)
            self._send_charge(self._connection, reservation, self._ledger.charges[reservation])

    def release(self, reservation: ReservationId) -> None:
        """See `State`."""
        if before := self._ledger.release(reservation):
            self._change(before.endpoint, -before.queued_tokens, -1)
            if self._connection is not None:
                self._connection.send(*self._release.command(self._charged_keys, reservation))

    def dropped(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, and its load with it: our reservations there are void."""
        for reservation in [each for each, charge in self._ledger.charges.items() if charge.endpoint == endpoint]:
            self._ledger.release(reservation)
            if self._connection is not None:
                self._connection.send(*self._release.command(self._charged_keys, reservation))
        self._view.drop(endpoint)

    def expect(self, endpoint: Endpoint, block_size: int, keys: Sequence[BlockKey], ttl_s: float) -> None:
        """Tell the other replicas of a routed prompt. The stream is capped: this works in a full store, too."""
        if self._connection is not None:
            record = expect_record(self._replica, endpoint, block_size, keys, ttl_s)
            self._connection.send(*self._expect.command((self._keys.hints,), HINT_ENTRIES, record))

    # --- the link to the store

    async def session(self, connection: Connection, link: Link) -> None:
        """Renew the lease, read the loads, reap the dead; until the connection is lost."""
        await install(connection, self._reserve, self._charge, self._release, self._reap, self._lease, self._expect)
        generation = await self._renew(connection, None)
        await self._reconcile(connection)
        try:
            link.up()
            renew_at = 0.0
            while True:
                now = self._loop.time()
                if now >= renew_at:
                    renew_at = now + RENEW_S
                    await self._renew(connection, generation)
                mark = self._view.number
                self._view.read(mark, _loads(await connection.call("HGETALL", self._keys.load)))
                await asyncio.sleep(POLL_S)
        finally:
            self._connection = None
            self._away_since = self._loop.time()

    def _best_view(self) -> Mapping[Endpoint, Load]:
        """Of all replicas as last read; our own alone once the store was away for long."""
        long_away = self._connection is None and self._loop.time() - self._away_since > FORGET_OTHERS_S
        return self._ledger.loads if long_away else self._view.loads

    async def leave(self) -> None:
        """Release all reservations and give up the lease, so that the others need not wait for its end."""
        for reservation in list(self._ledger.charges):
            self.release(reservation)
        if self._connection is not None:
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

    async def _reconcile(self, connection: Connection) -> None:
        """Make the store's record of our reservations the ledger's, and use the connection from then on."""
        fields = await connection.call("HGETALL", self._keys.reservations(self._replica))
        recorded = dict(zip(fields[::2], fields[1::2], strict=True))
        recorded.pop(_TABLE, None)
        for reservation, charge in self._ledger.charges.items():
            record = recorded.pop(reservation.encode(), b"")
            if record.split(b" ", 2)[::2] != [b"%d" % charge.queued_tokens, charge.endpoint.encode()]:
                self._stats.recharged += 1
                self._send_charge(connection, reservation, charge)
        for name in recorded:
            connection.send(*self._release.command(self._charged_keys, name))
        # No await since the reply: nothing has changed in between.
        self._connection = connection

    # ---

    def _undo(self, connection: Connection, reservation: ReservationId) -> None:
        """A reserve was given up, and may have charged something."""
        if charge := self._ledger.charges.get(reservation):
            self._send_charge(connection, reservation, charge)
        else:
            connection.send(*self._release.command(self._charged_keys, reservation))

    def _reserved(
        self,
        reservation: ReservationId,
        candidates: Sequence[Candidate],
        mark: int,
        endpoints: Sequence[Endpoint],
        reply: tuple[int, int, list[int]],
    ) -> Reserved:
        winner, new_tokens, sums = reply
        loads = [*map(_load, sums)]
        endpoint = endpoints[winner]
        before = self._ledger.charges.get(reservation)
        known = before is not None and before.endpoint == endpoint
        if before and not known:
            self._view.shift(before.endpoint, -before.queued_tokens, -1)
        self._view.read_some(mark, endpoints, loads)
        if len(candidates) > len(endpoints):
            loads += [self.load(each.endpoint) for each in candidates[CANDIDATES_AT_MOST:]]
        if not known:
            self._ledger.charge(reservation, Charge(endpoint, new_tokens))
            self._view.shift(endpoint, new_tokens, 1)
        return Reserved(winner, new_tokens, loads)

    def _send_charge(self, connection: Connection | None, reservation: ReservationId, charge: Charge) -> None:
        if connection is not None:
            arguments = (reservation, charge.endpoint, charge.queued_tokens)
            connection.send(*self._charge.command(self._charged_keys, *arguments))

    def _change(self, endpoint: Endpoint, queued_tokens: int, in_flight: int) -> None:
        """Our own doing, of which the store is told now, if it is there."""
        change = self._view.shift if self._connection is None else self._view.sends
        change(endpoint, queued_tokens, in_flight)


def _loads(fields: Sequence[bytes]) -> dict[Endpoint, Load]:
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return {Endpoint(name.decode()): _load(int(figure)) for name, figure in pairs if name != _TABLE}


@lru_cache(maxsize=8192)  # of sixteen candidates, one or two have changed since the last reply
def _load(figure: int) -> Load:
    in_flight, queued_tokens = divmod(figure, IN_FLIGHT)
    return Load(queued_tokens, in_flight)
