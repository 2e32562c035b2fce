"""The mirror: block key -> bitmask of the caches that hold it."""

from collections.abc import Iterable, Sequence

from multipick_epp.state.lanes import Lanes
from multipick_epp.state.lookup import SHARDS
from multipick_epp.types import BlockKey, Endpoint

INTERNED_AT_MOST = 1 << 16
KEYS_A_SWEEP = 4096
"""A fifth of a millisecond: a small mirror is done in a few steps, a large one in a shard a step."""
KEYS_A_SHARD = 16
"""What looking into a shard costs, in keys."""
_ONES = [tuple(bit for bit in range(8) if octet >> bit & 1) for octet in range(256)]


class Mirror:
    """A dict of masks, in shards so that neither growing nor sweeping it stops the loop for more than milliseconds.

    Invariants: no mask is 0; a bit is in use (`keys_of` counts the masks with it), retired, or free (in no mask).
    """

    def __init__(self) -> None:
        self.shards: list[dict[BlockKey, int]] = [{} for _ in range(SHARDS)]
        self.lanes = Lanes()
        self.keys_of: dict[int, int] = {}
        self._interned: dict[int, int] = {}  # equal masks are one object: most keys share theirs with their neighbours
        self._retired = 0
        self._swept = SHARDS  # shards done in the sweep under way
        self._sweeping = 0  # the retired bits that it removes

    def mask(self, key: BlockKey) -> int:
        """The bits of all caches that hold `key`, retired ones included."""
        return self.shards[key % SHARDS].get(key, 0)

    def new_bit(self, endpoint: Endpoint) -> int | None:
        """A bit that is in no mask, for a cache that starts empty; None where too many wait to be swept."""
        bit = self.lanes.take(endpoint)
        if bit is not None:
            self.keys_of[bit] = 0
        return bit

    def store(self, bit: int, keys: Iterable[BlockKey]) -> Sequence[BlockKey]:
        """Set `bit` on each of `keys`. Returns those on which it was not."""
        shards = self.shards
        new: list[BlockKey] = []
        before = after = 0  # neighbours mostly have the same mask
        for key in keys:
            shard = shards[key % SHARDS]
            mask = shard.get(key)
            if mask is None:
                shard[key] = bit
                new.append(key)
            elif not mask & bit:
                if mask != before:
                    before, after = mask, self._intern(mask | bit)
                shard[key] = after
                new.append(key)
        self.keys_of[bit] += len(new)
        return new

    def remove(self, bit: int, keys: Iterable[BlockKey]) -> None:
        """Clear `bit` on each of `keys`."""
        shards = self.shards
        gone = 0
        before = after = 0
        for key in keys:
            shard = shards[key % SHARDS]
            mask = shard.get(key)
            if mask is None or not mask & bit:
                continue
            gone += 1
            if mask != before:
                before, after = mask, self._intern(mask ^ bit)
            if after:
                shard[key] = after
            else:
                del shard[key]
        self.keys_of[bit] -= gone

    def retire(self, bit: int) -> None:
        """All of this cache's keys are void. Costs nothing now: `sweep` takes the bit out of the masks."""
        self.lanes.release(bit)
        if self.keys_of.pop(bit):
            self._retired |= bit
        else:
            self.lanes.free(bit)

    def sweep(self) -> None:
        """Take the retired bits, if there are any, out of the next `KEYS_A_SWEEP` keys' masks and to the shard's end.

        Call it as often as the mirror changes and as bits retire.
        """
        visited = 0
        while visited < KEYS_A_SWEEP:
            if self._swept == SHARDS:
                if not self._retired:
                    return
                self._sweeping, self._retired, self._swept = self._retired, 0, 0
            visited += KEYS_A_SHARD + len(self.shards[self._swept])
            self._sweep_shard(self._swept, self._sweeping)
            self._swept += 1
            if self._swept == SHARDS:
                for index in indexes(self._sweeping):
                    self.lanes.free(1 << index)
                self._sweeping = 0

    def held(self, bit: int, shard: int) -> Sequence[BlockKey]:
        """The keys of one shard that a cache holds; `shard` counts from 0 to SHARDS."""
        return [key for key, mask in self.shards[shard].items() if mask & bit]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def _sweep_shard(self, number: int, void: int) -> None:
        shard, intern = self.shards[number], self._intern
        if any(mask & void for mask in shard.values()):
            self.shards[number] = {key: intern(mask & ~void) for key, mask in shard.items() if mask & ~void}

    def _intern(self, mask: int) -> int:
        if len(self._interned) >= INTERNED_AT_MOST:
            self._interned.clear()
        return self._interned.setdefault(mask, mask)


def indexes(mask: int) -> list[int]:
    """Which bits of a mask are set, lowest first. A byte at a time: 256 bits take 6 us, one bit at a time 45."""
    octets = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    return [8 * at + one for at, octet in enumerate(octets) if octet for one in _ONES[octet]]
