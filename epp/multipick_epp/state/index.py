"""`LocalIndex`: the index in this process, as lookups need it. The log of the shared truth is played into it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

from multipick_epp.blocks import Chains
from multipick_epp.state.expected import Expected
from multipick_epp.state.hit import hit_tokens
from multipick_epp.state.lookup import SHARDS, Depths, depths
from multipick_epp.state.mirror import Mirror, indexes
from multipick_epp.state.protocol import Hit, Slot
from multipick_epp.state.slots import GPU, SLOTS_AT_MOST, Slots, is_main
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode

Listener = Callable[[Endpoint, Sequence[BlockKey]], None]


class Digest(NamedTuple):
    """What one cache holds, in three numbers: equal sets of blocks have equal ones, in whatever order they came."""

    blocks: int
    total: int  # XOR of their keys
    expected: int  # blocks beside these that no event has told of yet


class LocalIndex:
    """Slots, masks, optimistic entries and modes of one pool.

    Nothing here knows of sequences and epochs: what is written has passed the fence already. Only `digest` waits.
    """

    def __init__(self, weights: Mapping[str, float], stats: StateStats) -> None:
        self.listeners: list[Listener] = []
        self._weights = weights
        self._stats = stats
        self._mirror = Mirror()
        self._slots = Slots()
        self._expected = Expected(self._mirror)

    # --- written by the log

    def change(self, slot: Slot, stored: Sequence[BlockKey], removed: Sequence[BlockKey]) -> None:
        """Events changed a slot. Slots beyond an endpoint's `SLOTS_AT_MOST` are ignored."""
        bit = self._slots.bits.get(slot) or self._new_slot(slot)
        if bit is None:
            return
        self._expected.settle(bit, stored)
        self._expected.settle(bit, removed)
        self._mirror.store(bit, stored)
        self._mirror.remove(bit, removed)
        self._mirror.sweep()
        self._stats.operations += len(stored) + len(removed)
        if stored and self.listeners and is_main(slot):
            for listener in self.listeners:
                listener(slot.endpoint, stored)

    def void(self, slot: Slot) -> None:
        """The cache is empty, also of what was expected."""
        if slot in self._slots.bits:
            self._retire(self._slots.assign(slot, self._mirror.new_bit()))

    def forget(self, slot: Slot) -> None:
        """The endpoint has no such slot any more."""
        self._retire(self._slots.forget(slot))

    def drop_slots(self, endpoint: Endpoint) -> None:
        """A new incarnation of the engine: nothing is known of its caches."""
        for slot in self.slots(endpoint):
            self.forget(slot)

    def drop(self, endpoint: Endpoint) -> None:
        """Forget the endpoint."""
        self.drop_slots(endpoint)
        self._slots.set_mode(endpoint, None)

    def fresh(self) -> int:
        """A bit to `fill` with a slot's whole contents and then to `swap` in or `discard`; lookups don't see it yet."""
        return self._mirror.new_bit()

    def fill(self, bit: int, keys: Sequence[BlockKey]) -> None:
        """Contents of the slot that `bit` will be."""
        self._mirror.store(bit, keys)
        self._mirror.sweep()

    def swap(self, slot: Slot, bit: int) -> None:
        """`bit` is the slot's contents from now on."""
        self._retire(self._slots.assign(slot, bit))

    def discard(self, bit: int) -> None:
        """The contents could not be loaded to the end."""
        self._retire(bit)

    def expect(self, endpoint: Endpoint, block_size: int, keys: Sequence[BlockKey], deadline: float) -> None:
        """Count `keys` as resident on the endpoint's GPU until `deadline`."""
        slots = self._slots.of_endpoint(endpoint)
        bits = [bit for slot, bit in slots.items() if slot.medium == GPU and slot.block_size == block_size]
        if not bits and not any(map(is_main, slots)):
            bits = [bit] if (bit := self._new_slot(Slot(endpoint, block_size))) else []
        for bit in bits:
            self._expected.add(bit, keys, deadline)

    def expire(self, now: float) -> None:
        """Take back expectations whose deadline has passed."""
        before = len(self._expected)
        self._expected.expire(now)
        self._stats.expired += before - len(self._expected)

    def set_mode(self, endpoint: Endpoint, mode: Mode) -> None:
        """How well the endpoint's cache is known."""
        self._slots.set_mode(endpoint, mode)

    # --- read by the picker

    def mode(self, endpoint: Endpoint) -> Mode:
        """BLIND before the first `set_mode`."""
        return self._slots.mode(endpoint)

    def block_size(self, endpoint: Endpoint) -> int | None:
        """Tokens a block of the endpoint's full-attention GPU slot."""
        return next((slot.block_size for slot in self._slots.of_endpoint(endpoint) if is_main(slot)), None)

    def block_sizes(self) -> Sequence[int]:
        """The distinct block sizes of the known slots, ascending."""
        return sorted(self._slots.by_size)

    def endpoints(self) -> Sequence[Endpoint]:
        """Those with a slot."""
        return list(self._slots.of)

    def slots(self, endpoint: Endpoint) -> Sequence[Slot]:
        """The endpoint's slots."""
        return list(self._slots.of_endpoint(endpoint))

    def holds(self, endpoint: Endpoint, key: BlockKey) -> bool:
        """Whether the block is resident on the endpoint's GPU, or expected there."""
        slots = self._slots.of_endpoint(endpoint)
        return any(self._holds(key, bit) for slot, bit in slots.items() if slot.medium == GPU)

    def blocks_of(self, endpoint: Endpoint) -> int:
        """Blocks that the endpoint holds by its events, over all its slots; not those that are only expected there."""
        bits = self._slots.of_endpoint(endpoint).values()
        return sum(self._mirror.keys_of[bit] - len(self._expected.of(bit)) for bit in bits)

    async def digest(self, endpoint: Endpoint) -> Mapping[Slot, Digest]:
        """What each of the endpoint's caches holds by its events, to be compared with another replica's index.

        Walks the whole mirror, and lets the loop run after each shard (13 million keys: milliseconds): what changes
        meanwhile may be counted or not.
        """
        slots = dict(self._slots.of_endpoint(endpoint))
        digests = dict.fromkeys(slots, Digest(0, 0, 0))
        for shard in range(SHARDS):
            for slot, bit in slots.items():
                if self._slots.bits.get(slot) != bit:
                    continue  # void since
                expected = self._expected.of(bit)
                blocks, total, pending = digests[slot]
                for key in self._mirror.held(bit, shard):
                    if key in expected:
                        pending += 1
                    else:
                        blocks += 1
                        total ^= key
                digests[slot] = Digest(blocks, total, pending)
            await asyncio.sleep(0)
        return digests

    def __len__(self) -> int:
        """Distinct block keys."""
        return len(self._mirror)

    def hits(self, chains: Chains) -> Mapping[Endpoint, Hit]:
        """The hit of every endpoint that has one."""
        hits: dict[Endpoint, Hit] = {}
        slots = self._slots
        plain = [(mode, mask) for mode, mask in slots.plain.items() if mask]
        decisive = reduce(or_, (mask for _, mask in plain), 0)
        mixed: dict[int, int] = {}  # bit -> depth, of slots that don't decide alone
        for size, keys in chains.by_size.items():
            wanted = slots.by_size.get(size, 0)
            found = depths(self._mirror.shards, keys, min(chains.usable(size), len(keys)), wanted)
            self._count_holes(found)
            holders = reduce(or_, (ring for _, ring in found.rings), 0)
            for number, (depth, ring) in enumerate(found.rings):
                named = ring if number else holders  # all with the shallowest: who holds more is written again
                for mode, mask in plain:
                    if members := named & mask:
                        hits |= dict.fromkeys(slots.endpoints_of(members), Hit(depth * size, mode))
                for index in indexes(ring & ~decisive):
                    mixed[1 << index] = depth
        for endpoint in {slots.endpoint_at[bit.bit_length() - 1] for bit in mixed}:
            tokens = hit_tokens(chains, slots.of_endpoint(endpoint), mixed, self._holds, self._weights)
            if tokens:
                hits[endpoint] = Hit(tokens, self.mode(endpoint))
        return hits

    # ---

    def _holds(self, key: BlockKey, bit: int) -> bool:
        return bool(self._mirror.mask(key) & bit)

    def _new_slot(self, slot: Slot) -> int | None:
        if len(self._slots.of_endpoint(slot.endpoint)) >= SLOTS_AT_MOST:
            return None
        bit = self._mirror.new_bit()
        self._slots.assign(slot, bit)
        return bit

    def _retire(self, bit: int | None) -> None:
        if bit is not None:
            self._expected.forget(bit)
            self._mirror.retire(bit)

    def _count_holes(self, found: Depths) -> None:
        if found.holes:
            self._stats.holes += found.holes.bit_count()
