"""How deep each cache holds a prompt: a walk over sampled blocks, then bisection where the holders changed.

Holders only get fewer along a prompt, as long as engines free a chain's tail before its head. So it is enough to find
the blocks where the set of holders changes. At most `SAMPLES` evenly spread blocks are looked up exactly, left to
right: whoever misses one of them ends there, whatever it holds later. Between two samples with different holders,
bisection finds the change points; a hole that it meets ends the hit there, too. So a hit is exact for prompts of up to
`SAMPLES` blocks; in longer ones a false hit needs a hole that falls between two samples, hence is shorter than
`count / SAMPLES` blocks. Where the samples lie depends on the prompt, so that such a hole is not missed for ever.
"""

from collections.abc import Sequence

import msgspec

from multipick_epp.types import BlockKey

SAMPLES = 32
SHARDS = 1024
Shards = Sequence[dict[BlockKey, int]]
"""Block key -> bits of the caches that hold it; a key lives in shard `key % SHARDS`."""


class Depths(msgspec.Struct):
    """What a lookup found. `rings`: (blocks held from the start, bits of the caches that hold exactly so many)."""

    rings: list[tuple[int, int]]
    holes: int = 0  # bits of the caches whose hit ends although they hold a later block


def depths(shards: Shards, keys: Sequence[BlockKey], count: int, wanted: int) -> Depths:
    """Walk the first `count` keys for the caches in `wanted`; those that miss the first block are in no ring."""
    found = Depths([])
    if count <= 0:
        return found
    key = keys[0]
    holders = shards[key % SHARDS].get(key, 0) & wanted
    if not holders:
        return found
    before = holders
    low = 0
    last = count - 1
    stride = -(-count // SAMPLES)
    first = 1 + keys[last] % stride if stride > 1 else 1
    for high in (*range(first, last, stride), last) if last else ():
        key = keys[high]
        mask = shards[key % SHARDS].get(key, 0) & before
        if mask != holders:
            found.holes |= mask & ~holders
            if (mask := mask & holders) != holders:
                holders = _narrow(found, shards, keys, low, high, holders, mask)
                if not holders:
                    return found
        low = high
    found.rings.append((count, holders))
    return found


def _narrow(
    found: Depths, shards: Shards, keys: Sequence[BlockKey], low: int, high: int, at_low: int, at_high: int
) -> int:
    """Note how deep each of `at_low` goes that does not hold all blocks up to `high`; the bits of those that do.

    `at_high` is a part of `at_low`: who holds both ends.
    """
    if high - low == 1:
        found.rings.append((high, at_low & ~at_high))
        return at_high
    middle = (low + high) // 2
    key = keys[middle]
    at_middle = shards[key % SHARDS].get(key, 0) & at_low
    if at_middle != at_low:
        at_middle = _narrow(found, shards, keys, low, middle, at_low, at_middle)
    holed = at_high & ~at_middle
    if holed:
        found.holes |= holed
        at_high &= at_middle
    if at_high != at_middle:
        at_high = _narrow(found, shards, keys, middle, high, at_middle, at_high)
    return at_high
