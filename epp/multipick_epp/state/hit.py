"""From blocks held by each cache to tokens that an endpoint need not prefill.

The rule of hybrid models, after vLLM's KV-cache coordinator: the hit is the longest prefix that every full-attention
group holds, lowered until each sliding-window group has the last `ceil((window - 1) / block_size)` blocks before its
end (all of them, if there are fewer). Mamba groups need the one block before it. Groups with different block sizes meet
at multiples of them all.
"""

from collections.abc import Callable, Mapping, Sequence
from math import lcm

from multipick_epp.blocks import Chains
from multipick_epp.state.caches import GPU, is_sliding
from multipick_epp.state.protocol import Cache
from multipick_epp.types import BlockKey

Holds = Callable[[BlockKey, int], bool]
"""Whether the cache with this bit holds this key."""


def hit_tokens(
    chains: Chains, caches: Mapping[Cache, int], depth: Mapping[int, int], holds: Holds, weights: Mapping[str, float]
) -> int:
    """The hit of one endpoint.

    `caches` has the bit of each of its caches; `depth` the blocks that a bit holds from the start (absent: none). A
    medium with a weight lends that share of the tokens that it holds beyond the GPU's.
    """
    on_gpu = {cache: bit for cache, bit in caches.items() if cache.medium == GPU}
    tokens = _gpu_tokens(chains, on_gpu, depth, holds) if on_gpu else 0
    best = float(tokens)
    for cache, bit in caches.items():
        weight = weights.get(cache.medium, 0.0)
        if weight and cache.medium != GPU and not is_sliding(cache):
            beyond = max(0, depth.get(bit, 0) * cache.block_size - tokens)
            best = max(best, tokens + weight * beyond)
    return int(best)


def _gpu_tokens(chains: Chains, caches: Mapping[Cache, int], depth: Mapping[int, int], holds: Holds) -> int:
    unit = lcm(*(cache.block_size for cache in caches))
    sliding = [
        (cache, bit, chains.by_size.get(cache.block_size, ())) for cache, bit in caches.items() if is_sliding(cache)
    ]
    tokens = min(
        depth.get(bit, 0) * cache.block_size if not is_sliding(cache) else _chained_tokens(chains, cache)
        for cache, bit in caches.items()
    )
    tokens -= tokens % unit
    settled = False
    while tokens and not settled:
        settled = True
        for cache, bit, keys in sliding:
            end = _last_gap(keys, tokens // cache.block_size, _needed(cache), bit, holds)
            if end is not None:
                tokens = end * cache.block_size
                tokens -= tokens % unit
                settled = False
    return tokens


def _chained_tokens(chains: Chains, cache: Cache) -> int:
    keys = chains.by_size.get(cache.block_size, ())
    return min(chains.usable(cache.block_size), len(keys)) * cache.block_size


def _needed(cache: Cache) -> int:
    return -(-(cache.window - 1) // cache.block_size) if cache.window > 0 else 1


def _last_gap(keys: Sequence[BlockKey], end: int, needed: int, bit: int, holds: Holds) -> int | None:
    """The last of the `needed` blocks before `end` that is missing; None where they are all there."""
    for index in range(end - 1, max(0, end - needed) - 1, -1):
        if not holds(keys[index], bit):
            return index
    return None
