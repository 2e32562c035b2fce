"""`RedisState`: the state of a pool that all its pickers share."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.owners import owned_by
from multipick_epp.state.protocol import Applied, Candidates, Context, Delta, EqualPrompt, LoadColumns, Reserved
from multipick_epp.state.redis import loads, tail, writer
from multipick_epp.state.redis.address import Server
from multipick_epp.state.redis.ingest_lease import IngestLease
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.link import Link, Session
from multipick_epp.state.redis.reasons import REFUSES_WRITES
from multipick_epp.state.redis.server import open_connection
from multipick_epp.state.stats import StateStats
from multipick_epp.state.succession import Notes, Tenure
from multipick_epp.tasks.quiet import quiet
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReplicaId, ReservationId

WRITER_STALL_S = 2.0
LEAVE_S = 0.5
SETTLED_WITHIN_S = 2.5
"""An endpoint whose owner left has another one by then. One whose owner died does not: that takes up to 5 s."""


class RedisState:
    """`State` over one Redis-compatible server (Redis 7, Valkey 8 or younger).

    `replica` names this process and is never used again. `picks`: it keeps a mirror and makes reservations; `ingests`:
    it takes its part of the endpoints' events. A picker that ingests in another process gives that one `picks=False`.

    Three connections: `loads` for what a request waits for, `writer` for the index, `tail` for the log.
    """

    def __init__(
        self,
        server: Server,
        pool: str,
        replica: ReplicaId,
        *,
        picks: bool = True,
        ingests: bool = True,
        medium_weights: Mapping[str, float] | None = None,
        rng: Random | None = None,
        replaces: ReplicaId | None = None,
    ) -> None:
        """`replaces`: a replica that is known to be dead. To be made in a running loop.

        Raises ValueError for a bad pool name.
        """
        self.stats = StateStats()
        self.index = LocalIndex(medium_weights or {}, self.stats)
        self._server = server
        self._keys = keys_of(pool)
        self._replica = replica
        self._rng = rng or Random()
        self._loop = asyncio.get_running_loop()
        lease = IngestLease(self._keys, replica, ingests, replaces)
        self._writer = writer.Writer(self._keys, replica, lease, self.index if picks else None, self.stats)
        self._loads = loads.Loads(self._keys, replica, self.index.holders, self.stats)
        self._tail = tail.Tail(self._keys, replica, self.index, self._loads.dropped, self.stats)
        self._tail.on_joined.append(self._loads.joined)
        sessions: list[tuple[str, float, Session]] = [("writer", WRITER_STALL_S, self._writer.session)]
        if picks:
            sessions += [("loads", loads.STALL_S, self._loads.session), ("tail", tail.STALL_S, self._tail.session)]
        self._sessions = [(self._link(name), stall_s, run) for name, stall_s, run in sessions]
        self._links = [link for link, _, _ in self._sessions]
        self._takes_writes = True
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """See `State`."""
        for link, stall_s, session in self._sessions:
            opener = partial(open_connection, self._server, self._keys.tag, stall_s)
            self._tasks.append(asyncio.create_task(link.run(opener, session), name=f"store {link.name}"))
        for link in self._links:
            await link.settled.wait()

    async def settled(self) -> None:
        """See `State`."""
        await quiet(lambda: self.degraded is None and not self._tail.trust.settled, SETTLED_WITHIN_S)

    async def close(self) -> None:
        """See `State`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._loads.leave()
                await self._writer.retire()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @property
    def degraded(self) -> str | None:
        """See `State`; as "link: reason"."""
        return next((f"{link.name}: {link.outage}" for link in self._links if link.outage), None)

    @property
    def alone(self) -> bool:
        """See `State`."""
        return self._loads.alone

    def _hear_of_outages(self) -> None:
        """Whether the store takes writes, as far as we were told."""
        self._takes_writes = not any(link.outage in REFUSES_WRITES for link in self._links)

    def _link(self, name: str) -> Link:
        return Link(name, self._rng, self.stats.outages, self._hear_of_outages)

    # --- index

    async def take_over(self, endpoint: Endpoint) -> Tenure | None:
        """See `State`."""
        return await self._writer.take_over(endpoint)

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        """See `State`."""
        return await self._writer.apply(deltas)

    async def note(self, endpoint: Endpoint, epoch: int, notes: Notes) -> Applied:
        """See `State`."""
        return await self._writer.note(endpoint, epoch, notes)

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None = None) -> Applied:
        """See `State`."""
        return await self._writer.clear(endpoint, epoch, seq, medium)

    async def replace(
        self, endpoint: Endpoint, epoch: int, seq: int, contents: Mapping[Cache, Sequence[BlockKey]]
    ) -> Applied:
        """See `State`."""
        return await self._writer.replace(endpoint, epoch, seq, contents)

    async def drop(self, endpoint: Endpoint) -> None:
        """See `State`."""
        self._loads.dropped(endpoint)
        await self._writer.drop(endpoint)

    async def set_mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> Applied:
        """See `State`."""
        return await self._writer.set_mode(endpoint, epoch, mode)

    def owned(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """See `State`."""
        return owned_by(self._replica, endpoints, self._writer.owners)

    async def retire(self) -> bool:
        """See `State`."""
        return await self._writer.retire()

    def on_lost(self, listener: Callable[[Endpoint], None]) -> None:
        """See `State`."""
        self._writer.on_lost(listener)

    def expect(
        self,
        endpoint: Endpoint,
        block_size: int,
        keys: Sequence[BlockKey],
        ttl_s: float,
        owner: ReservationId | None = None,
    ) -> None:
        """See `State`."""
        self.index.expect(endpoint, block_size, keys, self._loop.time() + ttl_s, owner)
        self._loads.expect(endpoint, block_size, keys, ttl_s, owner)

    def withdraw(self, endpoint: Endpoint, owner: ReservationId) -> Sequence[BlockKey]:
        """See `State`."""
        withdrawn = self.index.withdraw(owner)
        if withdrawn:
            self._loads.withdraw(endpoint, owner, withdrawn)
        return withdrawn

    def mode(self, endpoint: Endpoint) -> Mode:
        """See `State`."""
        self._tail.trust.judge(self._takes_writes)
        return self.index.mode(endpoint)

    @property
    def mode_changes(self) -> int:
        """See `State`."""
        return self.index.mode_changes

    def block_size(self, endpoint: Endpoint) -> int | None:
        """See `State`."""
        return self.index.block_size(endpoint)

    def block_sizes(self) -> Mapping[int, int]:
        """See `State`."""
        return self.index.block_sizes()

    def hits(self, chains: Chains) -> Mapping[Endpoint, int]:
        """See `State`."""
        self.index.expire(self._loop.time())
        self._tail.trust.judge(self._takes_writes)
        return self.index.hits(chains)

    def on_stored(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """See `State`."""
        self.index.listeners.append(listener)

    def on_routed_elsewhere(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """See `State`."""
        self._tail.on_routed_elsewhere.append(listener)

    def on_withdrawn_elsewhere(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """See `State`."""
        self._tail.on_withdrawn_elsewhere.append(listener)

    def announce(self, endpoint: Endpoint, level: int) -> None:
        """See `State`."""
        self._loads.announce(endpoint, level)

    def on_announced(self, listener: Callable[[Endpoint, int], None]) -> None:
        """See `State`."""
        self._tail.on_announced.append(listener)

    def on_remembered(self, listener: Callable[[Endpoint, int], None]) -> None:
        """See `State`."""
        self._loads.on_remembered.append(listener)

    # --- loads

    def load(self, endpoint: Endpoint) -> Load:
        """See `State`."""
        return self._loads.load(endpoint)

    def loads(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """See `State`."""
        return self._loads.loads(endpoints)

    def load_columns(self, endpoints: Sequence[Endpoint]) -> LoadColumns:
        """See `State`."""
        return self._loads.load_columns(endpoints)

    def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None = None,
        context: Context | None = None,
    ) -> Coroutine[Any, Any, Reserved]:
        """See `State`."""
        return self._loads.reserve(reservation, candidates, equal_prompt, context)

    def progress(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        self._loads.progress(reservation, queued_tokens)

    def recharge(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        self._loads.recharge(reservation, queued_tokens)

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        """See `State`."""
        self._loads.move(reservation, endpoint)

    def release(self, reservation: ReservationId) -> None:
        """See `State`."""
        self._loads.release(reservation)
