"""`LocalIndex`: the index in this process, as lookups need it. The log of the shared truth is played into it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

from multipick_epp.blocks import Chains
from multipick_epp.state.caches import CACHES_AT_MOST, GPU, Caches, is_main
from multipick_epp.state.hit import hit_tokens
from multipick_epp.state.lookup import SHARDS, Depths, depths
from multipick_epp.state.mirror import Mirror, indexes
from multipick_epp.state.optimistic import OptimisticEntries
from multipick_epp.state.protocol import Cache, Hit
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId

Listener = Callable[[Endpoint, Sequence[BlockKey]], None]


class Digest(NamedTuple):
    """What one cache holds, in three numbers: equal sets of blocks have equal ones, in whatever order they came."""

    blocks: int
    total: int  # XOR of their keys
    expected: int  # blocks beside these that no event has told of yet


class LocalIndex:
    """Caches, masks, optimistic entries and modes of one pool.

    Nothing here knows of sequences and epochs: what is written has passed the fence already. Only `digest` waits.
    """

    def __init__(self, weights: Mapping[str, float], stats: StateStats) -> None:
        self.listeners: list[Listener] = []
        self._weights = weights
        self._stats = stats
        self._mirror = Mirror()
        self._caches = Caches()
        self._expected = OptimisticEntries(self._mirror)

    # --- written by the log

    def change(self, cache: Cache, stored: Sequence[BlockKey], removed: Sequence[BlockKey]) -> None:
        """Events changed a cache. Caches beyond an endpoint's `CACHES_AT_MOST` are ignored."""
        bit = self._caches.bits.get(cache) or self._new_cache(cache)
        if bit is None:
            return
        self._expected.settle(bit, stored)
        self._expected.settle(bit, removed)
        self._mirror.store(bit, stored)
        self._mirror.remove(bit, removed)
        self._mirror.sweep()
        self._stats.operations += len(stored) + len(removed)
        if stored and self.listeners and is_main(cache):
            for listener in self.listeners:
                listener(cache.endpoint, stored)

    def void(self, cache: Cache) -> None:
        """The cache is empty, also of what was expected."""
        if cache in self._caches.bits:
            self._retire(self._caches.assign(cache, self._mirror.new_bit()))

    def forget(self, cache: Cache) -> None:
        """The endpoint has no such cache any more."""
        self._retire(self._caches.forget(cache))

    def drop_caches(self, endpoint: Endpoint) -> None:
        """A new incarnation of the engine: nothing is known of its caches."""
        for cache in self.caches(endpoint):
            self.forget(cache)

    def drop(self, endpoint: Endpoint) -> None:
        """Forget the endpoint."""
        self.drop_caches(endpoint)
        self._caches.set_mode(endpoint, None)

    def fresh(self) -> int:
        """A bit to `fill` with all of a cache's contents and then to `swap` in or `discard`; no lookup sees it yet."""
        return self._mirror.new_bit()

    def fill(self, bit: int, keys: Sequence[BlockKey]) -> None:
        """Contents of the cache that `bit` will be."""
        self._mirror.store(bit, keys)
        self._mirror.sweep()

    def swap(self, cache: Cache, bit: int) -> None:
        """`bit` is the cache's contents from now on."""
        self._retire(self._caches.assign(cache, bit))

    def discard(self, bit: int) -> None:
        """The contents could not be loaded to the end."""
        self._retire(bit)

    def expect(
        self,
        endpoint: Endpoint,
        block_size: int,
        keys: Sequence[BlockKey],
        deadline: float,
        owner: ReservationId | None = None,
    ) -> None:
        """Count `keys` as resident on the endpoint's GPU until `deadline`, or until `owner` withdraws them."""
        caches = self._caches.of_endpoint(endpoint)
        bits = [bit for cache, bit in caches.items() if cache.medium == GPU and cache.block_size == block_size]
        if not bits and not any(map(is_main, caches)):
            bits = [bit] if (bit := self._new_cache(Cache(endpoint, block_size))) else []
        for bit in bits:
            self._expected.add(bit, keys, deadline, owner)

    def withdraw(self, owner: ReservationId) -> Sequence[BlockKey]:
        """What this reservation alone expected is not resident. Returns all that it expected and no event told of."""
        return self._expected.withdraw(owner)

    def expire(self, now: float) -> None:
        """Take back expectations whose deadline has passed."""
        before = len(self._expected)
        self._expected.expire(now)
        self._stats.expired += before - len(self._expected)

    def set_mode(self, endpoint: Endpoint, mode: Mode) -> None:
        """How well the endpoint's cache is known."""
        self._caches.set_mode(endpoint, mode)

    # --- read by the picker

    def mode(self, endpoint: Endpoint) -> Mode:
        """BLIND before the first `set_mode`."""
        return self._caches.mode(endpoint)

    def block_size(self, endpoint: Endpoint) -> int | None:
        """Tokens a block of the endpoint's full-attention GPU cache."""
        return next((cache.block_size for cache in self._caches.of_endpoint(endpoint) if is_main(cache)), None)

    def block_sizes(self) -> Sequence[int]:
        """The distinct block sizes of the known caches, ascending."""
        return sorted(self._caches.by_size)

    def endpoints(self) -> Sequence[Endpoint]:
        """Those with a cache."""
        return list(self._caches.of)

    def caches(self, endpoint: Endpoint) -> Sequence[Cache]:
        """The endpoint's caches."""
        return list(self._caches.of_endpoint(endpoint))

    def holds(self, endpoint: Endpoint, key: BlockKey) -> bool:
        """Whether the block is resident on the endpoint's GPU, or expected there."""
        caches = self._caches.of_endpoint(endpoint)
        return any(self._holds(key, bit) for cache, bit in caches.items() if cache.medium == GPU)

    def blocks_of(self, endpoint: Endpoint) -> int:
        """Blocks that the endpoint holds by its events, over all its caches; not those that are only expected there."""
        bits = self._caches.of_endpoint(endpoint).values()
        return sum(self._mirror.keys_of[bit] - len(self._expected.of(bit)) for bit in bits)

    async def digest(self, endpoint: Endpoint) -> Mapping[Cache, Digest]:
        """What each of the endpoint's caches holds by its events, to be compared with another replica's index.

        Walks the whole mirror, and lets the loop run after each shard (13 million keys: milliseconds): what changes
        meanwhile may be counted or not.
        """
        caches = dict(self._caches.of_endpoint(endpoint))
        digests = dict.fromkeys(caches, Digest(0, 0, 0))
        for shard in range(SHARDS):
            for cache, bit in caches.items():
                if self._caches.bits.get(cache) != bit:
                    continue  # void since
                expected = self._expected.of(bit)
                blocks, total, pending = digests[cache]
                for key in self._mirror.held(bit, shard):
                    if key in expected:
                        pending += 1
                    else:
                        blocks += 1
                        total ^= key
                digests[cache] = Digest(blocks, total, pending)
            await asyncio.sleep(0)
        return digests

    def __len__(self) -> int:
        """Distinct block keys."""
        return len(self._mirror)

    def hits(self, chains: Chains) -> Mapping[Endpoint, Hit]:
        """The hit of every endpoint that has one."""
        hits: dict[Endpoint, Hit] = {}
        caches = self._caches
        plain = [(mode, mask) for mode, mask in caches.plain.items() if mask]
        decisive = reduce(or_, (mask for _, mask in plain), 0)
        mixed: dict[int, int] = {}  # bit -> depth, of caches that don't decide alone
        for size, keys in chains.by_size.items():
            wanted = caches.by_size.get(size, 0)
            found = depths(self._mirror.shards, keys, min(chains.usable(size), len(keys)), wanted)
            self._count_holes(found)
            holders = reduce(or_, (ring for _, ring in found.rings), 0)
            for number, (depth, ring) in enumerate(found.rings):
                named = ring if number else holders  # all with the shallowest: who holds more is written again
                for mode, mask in plain:
                    if members := named & mask:
                        hits |= dict.fromkeys(caches.endpoints_of(members), Hit(depth * size, mode))
                for index in indexes(ring & ~decisive):
                    mixed[1 << index] = depth
        for endpoint in {caches.endpoint_at[bit.bit_length() - 1] for bit in mixed}:
            tokens = hit_tokens(chains, caches.of_endpoint(endpoint), mixed, self._holds, self._weights)
            if tokens:
                hits[endpoint] = Hit(tokens, self.mode(endpoint))
        return hits

    # ---

    def _holds(self, key: BlockKey, bit: int) -> bool:
        return bool(self._mirror.mask(key) & bit)

    def _new_cache(self, cache: Cache) -> int | None:
        if len(self._caches.of_endpoint(cache.endpoint)) >= CACHES_AT_MOST:
            return None
        bit = self._mirror.new_bit()
        self._caches.assign(cache, bit)
        return bit

    def _retire(self, bit: int | None) -> None:
        if bit is not None:
            self._expected.forget(bit)
            self._mirror.retire(bit)

    def _count_holes(self, found: Depths) -> None:
        if found.holes:
            self._stats.holes += found.holes.bit_count()
