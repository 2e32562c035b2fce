"""Sees to it that the loads in the store are what the living replicas charge, whatever happened to the store's keys.

What a replica charges each endpoint is its own record, which it compares with its ledger once a second. An endpoint's
load is the sum of these: one replica, that with the smallest name of those alive, has the store compare them all.
"""

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from multipick_epp.state.redis.connection import Argument, Connection
from multipick_epp.state.redis.keys import KEEP_S, Keys
from multipick_epp.state.redis.leases import Leases
from multipick_epp.state.redis.scripts import load
from multipick_epp.state.stats import StateStats
from multipick_epp.types import Endpoint, ReplicaId

REAP_AFTER_S: Final = 7.0
"""A replica that has not renewed its lease for so long is dead. With a renewal a second: reaped within 10 s."""
ALIVE_S: Final = 2.5
"""Who has not renewed its lease for so long checks nothing, as far as the others care."""
REPLICAS_AT_MOST: Final = 256
ENDPOINTS_AT_MOST: Final = 10_000
FIGURES_A_CHECK: Final = 1_024
"""One call compares so many, in less than a millisecond: endpoints x replicas."""


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
        self._quiet_s: Mapping[bytes, float] = {}

    async def renew(self, connection: Connection) -> None:
        """Renew the lease, and see the others'."""
        pool = self._keys
        keys = (pool.leases, pool.generation, pool.load, self.charges, pool.routed)
        bounds = (REPLICAS_AT_MOST, ENDPOINTS_AT_MOST)
        command = self._renew.command(keys, self._replica, next(self._renewals), uuid4().hex, *bounds)
        _, fields = await connection.call(*command)
        connection.send("EXPIRE", self.charges, KEEP_S)
        self._stamps = dict(zip(fields[::2], fields[1::2], strict=True))
        self._quiet_s = self._leases.see(self._stamps, asyncio.get_running_loop().time())

    async def check(self, connection: Connection, endpoints: Iterable[Endpoint | bytes]) -> None:
        """Make the loads of these endpoints the sum of what is charged there."""
        pool = self._keys
        replicas = list(self._stamps)
        keys: tuple[Argument, ...] = (pool.load, pool.leases, *map(pool.charges, replicas))
        step = max(1, FIGURES_A_CHECK // len(replicas))
        for some in _steps(list(endpoints), step):
            wrong = await connection.call(*self._check.command(keys, len(replicas), *replicas, *some))
            if wrong < 0:  # somebody has just come: in a second we know of it
                return
            self._stats.load_repairs += wrong

    async def reap_and_check_all(self, connection: Connection) -> None:
        """Take back what the dead have charged; then, if it is our turn, check all loads."""
        pool = self._keys
        for replica, quiet_s in self._quiet_s.items():
            if quiet_s > REAP_AFTER_S:
                keys = (pool.load, pool.leases, pool.charges(replica))
                command = self._reap.command(keys, replica, self._stamps[replica], ENDPOINTS_AT_MOST)
                self._stats.reaped += await connection.call(*command)
        if self._replica == min(replica for replica, quiet_s in self._quiet_s.items() if quiet_s < ALIVE_S):
            charges = map(pool.charges, self._stamps)
            command = self._charged.command((pool.load, *charges), ENDPOINTS_AT_MOST)
            await self.check(connection, await connection.call(*command))

    async def give_up(self, connection: Connection) -> None:
        """So that the others need not wait for the lease's end. Nothing is charged any more."""
        connection.send("HDEL", self._keys.leases, self._replica)
        await connection.call("UNLINK", self.charges)


def _steps(endpoints: Sequence[Endpoint | bytes], size: int) -> Iterable[Sequence[Endpoint | bytes]]:
    return (endpoints[at : at + size] for at in range(0, len(endpoints), size))
