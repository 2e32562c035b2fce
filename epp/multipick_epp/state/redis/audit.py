"""Sees to it that the loads in the store are what the living replicas charge, whatever happened to the store's keys.

What a replica charges each endpoint is its own record, which it compares with its ledger once a second. An endpoint's
load is the sum of these: one replica, that with the smallest name of those alive, has the store compare them all.
"""

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Argument, Connection, LostError
from multipick_epp.state.redis.keys import KEEP_S, Keys
from multipick_epp.state.redis.leases import Leases
from multipick_epp.state.redis.reasons import PROTOCOL
from multipick_epp.state.redis.scripts import load
from multipick_epp.state.stats import StateStats
from multipick_epp.types import ReplicaId

REAP_AFTER_S: Final = 7.0
"""A replica that has not renewed its lease for so long is dead. With a renewal a second: reaped within 10 s."""
ALIVE_S: Final = 2.5
"""Who has not renewed its lease for so long checks nothing, as far as the others care."""
REPLICAS_AT_MOST: Final = 256
FIELDS_AT_MOST: Final = 20_000
"""Of the loads, or of what a replica charges: two an endpoint."""
FIGURES_A_CHECK: Final = 1_024
"""One call compares so many, in less than a millisecond: fields x replicas."""

_ALONE: Final = b" alone"  # ends the stamp of such a lease: see `lua/renew.lua`


class Audit:
    """The lease of this replica, and what it knows of the others'."""

    def __init__(self, keys: Keys, replica: ReplicaId, stats: StateStats) -> None:
        self._renew, self._reap, self._charged, self._check = self.scripts = [
            load(name, when_full=True) for name in ("renew", "reap", "charged", "check")
        ]
        self._keys = keys
        self._replica = replica.encode()
        self.charges = keys.charges(self._replica)
        self._stats = stats
        self._leases = Leases()
        self._renewals = itertools.count(1)
        self._stamps: Mapping[bytes, bytes] = {}
        self._was_alone = False
        self._quiet_s: Mapping[bytes, float] = {}

    async def begin(self, connection: Connection) -> bytes:
        """Take the lease on a connection, as `renew`."""
        self._was_alone = False
        return await self.renew(connection)

    async def renew(self, connection: Connection) -> bytes:
        """Renew the lease, and see the others'; the generation of the store's data."""
        pool = self._keys
        keys = (pool.leases, pool.generation, pool.load, self.charges, pool.routed)
        bounds = (REPLICAS_AT_MOST, FIELDS_AT_MOST)
        arguments = (self._replica, next(self._renewals), uuid4().hex, *bounds, int(self._was_alone))
        command = self._renew.command(keys, *arguments)
        generation, leases = replies.listed(await connection.call(*command), 2)
        connection.send("EXPIRE", self.charges, KEEP_S)
        stamps = dict(replies.pairs(leases))
        if self._replica not in stamps:
            raise LostError(PROTOCOL, "a lease that was renewed is not there")
        self._stamps = stamps
        self._was_alone = len(stamps) == 1
        self._quiet_s = self._leases.see(stamps, asyncio.get_running_loop().time())
        return replies.string(generation)

    async def check(self, connection: Connection, fields: Iterable[str | bytes]) -> None:
        """Make these fields of the loads the sum of what is charged there."""
        pool = self._keys
        replicas = list(self._stamps)
        keys: tuple[Argument, ...] = (pool.load, pool.leases, *map(pool.charges, replicas))
        step = max(1, FIGURES_A_CHECK // len(replicas))
        for some in _steps(list(fields), step):
            command = self._check.command(keys, len(replicas), *replicas, *some)
            wrong = replies.number(await connection.call(*command))
            if wrong < 0:  # somebody has just come: in a second we know of it
                return
            self._stats.load_repairs += wrong

    async def check_all(self, connection: Connection) -> None:
        """The same of all fields."""
        keys: tuple[Argument, ...] = (self._keys.load, *map(self._keys.charges, self._stamps))
        fields = await connection.call(*self._charged.command(keys, FIELDS_AT_MOST))
        await self.check(connection, replies.strings(fields))

    @property
    def is_alone(self) -> bool:
        """Whether the store has said with our lease that there is no other, dead or alive: only what this one charges
        is in the store, and who comes waits until we have heard of it.
        """
        return self._stamps[self._replica].endswith(_ALONE)

    @property
    def is_unheard_of(self) -> bool:
        """Whether there is another, perhaps dead by now, that was told so before we came."""
        return any(stamp.endswith(_ALONE) for replica, stamp in self._stamps.items() if replica != self._replica)

    @property
    def is_first(self) -> bool:
        """Whether it is on us to check all loads."""
        return self._replica == min(replica for replica, quiet_s in self._quiet_s.items() if quiet_s < ALIVE_S)

    async def reap(self, connection: Connection) -> None:
        """Take back what the dead have charged."""
        pool = self._keys
        for replica, quiet_s in self._quiet_s.items():
            if quiet_s > REAP_AFTER_S:
                keys = (pool.load, pool.leases, pool.charges(replica))
                command = self._reap.command(keys, replica, self._stamps[replica], FIELDS_AT_MOST)
                self._stats.reaped += replies.number(await connection.call(*command))

    async def give_up(self, connection: Connection) -> None:
        """So that the others need not wait for the lease's end. Nothing is charged any more."""
        connection.send("HDEL", self._keys.leases, self._replica)
        await connection.call("UNLINK", self.charges)


def _steps(fields: Sequence[str | bytes], size: int) -> Iterable[Sequence[str | bytes]]:
    return (fields[at : at + size] for at in range(0, len(fields), size))
