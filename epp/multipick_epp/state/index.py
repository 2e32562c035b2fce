"""`LocalIndex`: the index in this process, as lookups need it. The log of the shared truth is played into it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import NamedTuple

from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import GPU, Caches, is_main
from multipick_epp.state.hit import Ring, beyond, gpu_hits
from multipick_epp.state.lookup import SHARDS, depths
from multipick_epp.state.mirror import Mirror
from multipick_epp.state.optimistic import OptimisticEntries
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
        self.mode_changes = 0
        self._weights = weights
        self._stats = stats
        self._mirror = Mirror()
        self._caches = Caches(self._mirror.lanes, weights)
        self._expected = OptimisticEntries(self._mirror)
        self._guessed: dict[Endpoint, Cache] = {}  # caches that only we name: of endpoints with no other on their GPU

    # --- written by the log

    def change(self, cache: Cache, stored: Sequence[BlockKey], removed: Sequence[BlockKey]) -> None:
        """Events changed a cache. It is ignored where the endpoint has too many, or empties them too often."""
        if self._guessed and cache.medium == GPU:
            self._guess_no_more(cache)
        bit = self._caches.bits.get(cache) or self._another_cache(cache)
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
            guessed = self._guessed.get(cache.endpoint) == cache
            self.forget(cache)
            if not guessed:
                self._new_cache(cache)
            self._mirror.sweep()

    def forget(self, cache: Cache) -> None:
        """The endpoint has no such cache any more."""
        if self._guessed.get(cache.endpoint) == cache:
            del self._guessed[cache.endpoint]
        self._retire(self._caches.forget(cache))

    def drop_caches(self, endpoint: Endpoint) -> None:
        """A new incarnation of the engine: nothing is known of its caches."""
        for cache in self.caches(endpoint):
            self.forget(cache)
        self._mirror.sweep()

    def drop(self, endpoint: Endpoint) -> None:
        """Forget the endpoint."""
        self.drop_caches(endpoint)
        self._caches.set_mode(endpoint, None)
        self.mode_changes += 1

    def fresh(self, cache: Cache) -> int | None:
        """A bit to `fill` with all of the cache's contents and then to `swap` in or `discard`; no lookup sees it yet.

        None where the cache is to be ignored, as `change` does.
        """
        return self._mirror.new_bit(cache.endpoint) if self._caches.has_room(cache) else None

    def fill(self, bit: int, keys: Sequence[BlockKey]) -> None:
        """Contents of the cache that `bit` will be."""
        self._mirror.store(bit, keys)
        self._mirror.sweep()

    def swap(self, cache: Cache, bit: int) -> None:
        """`bit` is the cache's contents from now on."""
        if cache.medium == GPU and (guess := self._guessed.get(cache.endpoint)):
            self.forget(guess)
        old = self._caches.forget(cache)
        self._caches.assign(cache, bit)
        self._retire(old)

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
        """Count `keys` as resident on the endpoint's GPU until `deadline`, or until `owner` withdraws them.

        Where no event has told what caches there are, in one that is guessed to be.
        """
        bits = self._on_gpu(endpoint, block_size)
        if not bits and not any(cache.medium == GPU for cache in self._caches.of_endpoint(endpoint)):
            guess = Cache(endpoint, block_size)
            if bit := self._new_cache(guess):
                self._guessed[endpoint] = guess
                bits = [bit]
        for bit in bits:
            self._expected.add(bit, keys, deadline, owner)

    def withdraw(self, owner: ReservationId) -> Sequence[BlockKey]:
        """What this reservation alone expected is not resident. Returns all that it expected and no event told of."""
        return self._expected.withdraw(owner)

    def expire(self, now: float) -> None:
        """Take back expectations whose deadline has passed."""
        self._stats.expired += self._expected.expire(now)

    def set_mode(self, endpoint: Endpoint, mode: Mode) -> None:
        """How well the endpoint's cache is known."""
        self.mode_changes += 1
        self._caches.set_mode(endpoint, mode)

    # --- read by the picker

    def mode(self, endpoint: Endpoint) -> Mode:
        """BLIND before the first `set_mode`."""
        return self._caches.mode_of.get(endpoint, Mode.BLIND)

    def block_size(self, endpoint: Endpoint) -> int | None:
        """Tokens a block of the endpoint's full-attention GPU cache."""
        return self._caches.block_size_of.get(endpoint)

    def block_sizes(self) -> Mapping[int, int]:
        """See `State`."""
        return dict(self._caches.engines)

    def endpoints(self) -> Sequence[Endpoint]:
        """Those with a cache."""
        return list(self._caches.of)

    def known(self) -> Collection[Endpoint]:
        """Those of which anything is known: a cache, or a mode."""
        return self._caches.of.keys() | self._caches.mode_of.keys()

    def caches(self, endpoint: Endpoint) -> Sequence[Cache]:
        """The endpoint's caches."""
        return list(self._caches.of_endpoint(endpoint))

    def holders(self, key: BlockKey) -> Set[Endpoint]:
        """The endpoints on whose GPU the block is resident, or expected."""
        bits = self._mirror.mask(key) & self._caches.on_gpu
        return frozenset(self._caches.endpoints_of(self._mirror.lanes.fold(bits)) if bits else ())

    def blocks_of(self, endpoint: Endpoint) -> int:
        """Blocks that the endpoint holds by its events, over all its caches; not those that are only expected there."""
        return self.blocks_by_cache(endpoint).total()

    def blocks_by_cache(self, endpoint: Endpoint) -> Counter[Cache]:
        """The same by cache; without those that hold none."""
        bits = self._caches.of_endpoint(endpoint)
        held = {cache: self._mirror.keys_of[bit] - len(self._expected.of(bit)) for cache, bit in bits.items()}
        return +Counter(held)

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

    def hits(self, chains: Chains) -> Mapping[Endpoint, int]:
        """See `State`."""
        caches, fold = self._caches, self._mirror.lanes.fold
        rings: list[Ring] = []
        for size, keys in chains.by_size.items():
            found = depths(self._mirror.shards, keys, min(chains.usable(size), len(keys)), caches.deep.get(size, 0))
            if found.holes:
                self._stats.holes += found.holes.bit_count()
            rings += [(depth * size, bits) for depth, bits in found.rings]
        if not rings and not caches.windows:
            return {}
        gpu = gpu_hits(chains, caches, rings, self._mirror.shards, fold)
        hits = self._named(gpu)
        more: dict[Endpoint, int] = {}
        for medium, bits in caches.full.items():
            if medium == GPU:
                continue
            tier = [(tokens, fold(ring & bits)) for tokens, ring in rings if ring & bits]
            for tokens, lanes in beyond(gpu, tier):
                for endpoint in caches.endpoints_of(lanes):
                    have = hits.get(endpoint, 0)
                    lent = int(have + self._weights[medium] * (tokens - have))
                    if lent > more.get(endpoint, have):
                        more[endpoint] = lent
        return hits | more if more else hits

    # ---

    def _named(self, rings: Sequence[Ring]) -> dict[Endpoint, int]:
        """`rings` in lanes, shortest first."""
        hits: dict[Endpoint, int] = {}
        everyone = 0
        for _, lanes in rings:
            everyone |= lanes
        for tokens, lanes in rings:
            if hits:
                hits.update(self._caches.named(lanes, tokens))
            else:  # all with the shortest: who has more is written again
                hits = self._caches.named(everyone, tokens)
        return hits

    def _on_gpu(self, endpoint: Endpoint, block_size: int) -> Sequence[int]:
        caches = self._caches.of_endpoint(endpoint)
        return [bit for cache, bit in caches.items() if cache.medium == GPU and cache.block_size == block_size]

    def _guess_no_more(self, named: Cache) -> None:
        """The first cache on the endpoint's GPU is named: it takes the place of the guess, and what is expected there.

        A guess that stayed would be one more group that has to hold each block, and never will.
        """
        guess = self._guessed.pop(named.endpoint, named)
        if guess == named or (bit := self._caches.forget(guess)) is None:
            return
        if guess.block_size == named.block_size and self._caches.has_room(named):
            self._caches.assign(named, bit)
        else:
            self._retire(bit)

    def _another_cache(self, cache: Cache) -> int | None:
        """A cache that is named for the first time. What is expected on a GPU is in all its groups."""
        before = self._on_gpu(cache.endpoint, cache.block_size) if cache.medium == GPU else ()
        bit = self._new_cache(cache)
        if bit is not None and before:
            self._expected.share(before[0], bit)
        return bit

    def _new_cache(self, cache: Cache) -> int | None:
        bit = self.fresh(cache)
        if bit is not None:
            self._caches.assign(cache, bit)
        return bit

    def _retire(self, bit: int | None) -> None:
        if bit is not None:
            self._expected.forget(bit)
            self._mirror.retire(bit)
