"""The lease by which a replica takes its part of the ingest, and what it knows of the others' leases.

Whoever has come since we look counts at once, and for longer only if it renews its lease: a name alone takes no
endpoint. For a moment a newcomer and the owner before it both take an endpoint for theirs; the fence lets only the last
one write.
"""

import asyncio
from typing import Any
from uuid import uuid4

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.leases import ALIVE_S, Leases
from multipick_epp.state.redis.scripts import load
from multipick_epp.types import ReplicaId

RENEW_S = 0.25
OWNER_LEASE_S = 3.5
"""A replica that was not seen to renew for so long ingests nothing any more: hand-over within 5 s."""
NEWCOMER_S = 0.6
"""A name that has appeared counts for so long without a renewal: two more looks."""
LEAVING_S = 5.0
"""Who gives up its lease follows its endpoints for so long at most."""
FORGET_OWNER_S = 60.0
LEASES_AT_MOST = 1024
"""Of one pool, those of the dead of a minute among them."""


class IngestLease:
    """`owners` are the replicas that share the endpoints, this one among them if it `takes_part`."""

    def __init__(self, keys: Keys, replica: ReplicaId, takes_part: bool, replaces: ReplicaId | None = None) -> None:
        """`replaces`: one that is dead; nobody has to wait for the end of its lease."""
        self.script = load("lease")
        self.owners: tuple[ReplicaId, ...] = ()
        self._keys = keys
        self._replica = replica
        self._takes_part = takes_part
        self._replaces = replaces
        self._leases = Leases()
        self._renewed: dict[bytes, float] = {}  # when each was last seen to, within ALIVE_S
        self._unproven: set[bytes] = set()  # those that have a lease, and were not seen to renew it so far
        self._generation: object = None
        self._before: set[ReplicaId] = set()  # owners before the store was away that were not heard of since
        self._settled_at = 0.0  # until then these count, too

    def connected(self) -> None:
        """The store may have lost the leases, or was away for longer than they last: let the others renew theirs."""
        self._before = set(self.owners)
        self._settled_at = asyncio.get_running_loop().time() + OWNER_LEASE_S

    async def renew(self, connection: Connection) -> bytes | None:
        """Renew it, see the others'; the generation of the store's data, None before it has one."""
        pool = self._keys
        if not self._takes_part:
            found = await connection.read("GET", pool.generation)
            return None if found is None else replies.string(found)
        if self._replaces is not None:
            connection.send("ZREM", pool.owners, self._replaces)
            self._replaces = None
        keys: tuple[Any, ...] = (pool.owners, pool.generation)
        reply = await connection.call(*self.script.command(keys, self._replica, uuid4().hex, LEASES_AT_MOST))
        generation, leases = replies.listed(reply, 2)
        if self._generation not in (None, generation):
            self.connected()
        self._generation = generation
        now = asyncio.get_running_loop().time()
        quiet_s = self._leases.see(dict(replies.pairs(leases)), now)
        renewed = self._leases.renewed
        self._renewed = self._leases.alive(self._renewed, now)
        self._unproven = {name for name, quiet in quiet_s.items() if name not in renewed and quiet < ALIVE_S}
        known = renewed | self._leases.at_first
        living = {
            name
            for name, quiet in quiet_s.items()
            if quiet < (OWNER_LEASE_S if name in known else NEWCOMER_S) and is_name(name)
        }
        owners = {self._replica, *(ReplicaId(name.decode()) for name in living)}
        self._before = {name for name in self._before if name.encode() not in living and now < self._settled_at}
        owners |= self._before
        self.owners = tuple(sorted(owners))
        for name in (name for name, quiet in quiet_s.items() if not is_name(name) or quiet > FORGET_OWNER_S):
            connection.send("ZREM", pool.owners, name)
        return replies.string(generation)

    async def lives(self, name: bytes, connection: Connection) -> bool | None:
        """Whether that replica keeps what it owns, or did a moment ago; None: we have not looked for long enough."""
        if name == self._replica.encode() or name in self._renewed:
            return True
        if name in self._unproven:
            return None
        return bool(replies.number(await connection.call("EXISTS", self._keys.leaving(name))))

    async def give_up(self, connection: Connection) -> None:
        """So that the others need not wait for its end. From then on this replica takes no part."""
        if self._takes_part:
            self._takes_part = False
            self.owners = tuple(name for name in self.owners if name != self._replica)
            connection.send("SET", self._keys.leaving(self._replica.encode()), "", "PX", int(1000 * LEAVING_S))
            await connection.call("ZREM", self._keys.owners, self._replica)


def is_name(name: bytes) -> bool:
    """Whether this can be a replica's: those are words of ASCII."""
    return 0 < len(name) <= 255 and name.isascii() and name.decode().isprintable()
