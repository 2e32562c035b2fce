"""The lease by which a replica takes its part of the ingest, and what it knows of the others' leases."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.scripts import load
from multipick_epp.types import ReplicaId

OWNER_LEASE_MS = 3_500
"""A replica that hasn't renewed for so long ingests nothing any more. Renewed every second: hand-over within 5 s.

One that seems to have renewed later than now has not either: each time is the server's own, read at the renewal.
"""
FORGET_OWNER_MS = 60_000


class IngestLease:
    """`owners` are the replicas that share the endpoints, this one among them if it `takes_part`."""

    def __init__(self, keys: Keys, replica: ReplicaId, takes_part: bool) -> None:
        self.script = load("lease")
        self.owners: tuple[ReplicaId, ...] = (replica,) if takes_part else ()
        self._keys = keys
        self._replica = replica
        self._takes_part = takes_part
        self._settled_at = 0.0  # until then, who was an owner before the store was away counts as one

    def connected(self) -> None:
        """The store may have lost the leases, or was away for longer than they last: let the others renew theirs."""
        self._settled_at = asyncio.get_running_loop().time() + OWNER_LEASE_MS / 1000

    async def renew(self, connection: Connection) -> bytes | None:
        """Renew it, see the others'; the generation of the store's data, None before it has one."""
        pool = self._keys
        if not self._takes_part:
            found = await connection.read("GET", pool.generation)
            return None if found is None else replies.string(found)
        keys: tuple[Any, ...] = (pool.owners, pool.generation)
        reply = await connection.call(*self.script.command(keys, self._replica, uuid4().hex))
        generation, leases = replies.listed(reply, 2)
        ages = list(_ages(replies.listed(leases)))
        living = {ReplicaId(name.decode()) for name, age in ages if is_name(name) and abs(age) < OWNER_LEASE_MS}
        if asyncio.get_running_loop().time() < self._settled_at:
            living.update(self.owners)
        self.owners = tuple(sorted(living))
        for name in (name for name, age in ages if not is_name(name) or abs(age) > FORGET_OWNER_MS):
            connection.send("ZREM", pool.owners, name)
        return replies.string(generation)

    async def give_up(self, connection: Connection) -> None:
        """So that the others need not wait for its end."""
        if self._takes_part:
            await connection.call("ZREM", self._keys.owners, self._replica)


def is_name(name: bytes) -> bool:
    """Whether this can be a replica's: those are words of ASCII."""
    return 0 < len(name) <= 255 and name.isascii() and name.decode().isprintable()


def _ages(leases: list[object]) -> Iterator[tuple[bytes, int]]:
    for name, age in zip(leases[::2], leases[1::2], strict=False):
        yield replies.string(name), replies.number(age)
