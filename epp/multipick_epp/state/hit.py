"""From blocks held by each slot to tokens that an endpoint need not prefill.

The rule of hybrid models, after vLLM's KV-cache coordinator: the hit is the longest prefix that every full-attention
group holds, lowered until each sliding-window group has the last `ceil((window - 1) / block_size)` blocks before its
end (all of them, if there are fewer). Mamba groups need the one block before it. Groups with different block sizes meet
at multiples of them all.
"""

from collections.abc import Callable, Mapping, Sequence
from math import lcm

from multipick_epp.blocks import Chains
from multipick_epp.state.protocol import Slot
from multipick_epp.state.slots import GPU, is_sliding
from multipick_epp.types import BlockKey

Holds = Callable[[BlockKey, int], bool]
"""Whether the slot with this bit holds this key."""


def hit_tokens(
    chains: Chains, slots: Mapping[Slot, int], depth: Mapping[int, int], holds: Holds, weights: Mapping[str, float]
) -> int:
    """The hit of one endpoint.

    `slots` has the bit of each of its slots; `depth` the blocks that a bit holds from the start (absent: none). A
    medium with a weight lends that share of the tokens that it holds beyond the GPU's.
    """
    on_gpu = {slot: bit for slot, bit in slots.items() if slot.medium == GPU}
    tokens = _gpu_tokens(chains, on_gpu, depth, holds) if on_gpu else 0
    best = float(tokens)
    for slot, bit in slots.items():
        weight = weights.get(slot.medium, 0.0)
        if weight and slot.medium != GPU and not is_sliding(slot):
            beyond = max(0, depth.get(bit, 0) * slot.block_size - tokens)
            best = max(best, tokens + weight * beyond)
    return int(best)


def _gpu_tokens(chains: Chains, slots: Mapping[Slot, int], depth: Mapping[int, int], holds: Holds) -> int:
    unit = lcm(*(slot.block_size for slot in slots))
    sliding = [(slot, bit, chains.by_size.get(slot.block_size, ())) for slot, bit in slots.items() if is_sliding(slot)]
    tokens = min(
        depth.get(bit, 0) * slot.block_size if not is_sliding(slot) else _chained_tokens(chains, slot)
        for slot, bit in slots.items()
    )
    tokens -= tokens % unit
    settled = False
    while tokens and not settled:
        settled = True
        for slot, bit, keys in sliding:
            end = _last_gap(keys, tokens // slot.block_size, _needed(slot), bit, holds)
            if end is not None:
                tokens = end * slot.block_size
                tokens -= tokens % unit
                settled = False
    return tokens


def _chained_tokens(chains: Chains, slot: Slot) -> int:
    keys = chains.by_size.get(slot.block_size, ())
    return min(chains.usable(slot.block_size), len(keys)) * slot.block_size


def _needed(slot: Slot) -> int:
    return -(-(slot.window - 1) // slot.block_size) if slot.window > 0 else 1


def _last_gap(keys: Sequence[BlockKey], end: int, needed: int, bit: int, holds: Holds) -> int | None:
    """The last of the `needed` blocks before `end` that is missing; None where they are all there."""
    for index in range(end - 1, max(0, end - needed) - 1, -1):
        if not holds(keys[index], bit):
            return index
    return None
