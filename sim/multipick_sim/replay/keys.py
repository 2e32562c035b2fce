"""The prefixes of a workload -> the keys of an engine's blocks."""

import itertools
from collections.abc import Callable, Sequence

ANSWER_KEYS = 1 << 52  # above every key of a workload

KeyMaker = Callable[[Sequence[int], int, int], list[int]]
"""(prefixes, tokens they hold for, tokens of prompt and answer) -> keys of all full blocks."""


def key_maker(trace_block: int, block_size: int) -> KeyMaker:
    """A function for a workload with blocks of `trace_block` tokens and engines with blocks of `block_size`.

    Blocks that the workload doesn't know, an answer's mostly, get keys that nobody else has. The last token of an
    answer has no KV. Raises ValueError where neither size is a multiple of the other.
    """
    if max(trace_block, block_size) % min(trace_block, block_size):
        raise ValueError(
            f"blocks of {block_size} tokens don't go into the workload's of {trace_block}, nor the reverse"
        )
    fresh = itertools.count(ANSWER_KEYS)
    pieces, whole = max(1, trace_block // block_size), max(1, block_size // trace_block)

    def keys(prefixes: Sequence[int], known_tokens: int, tokens: int) -> list[int]:
        known: list[int] = []
        if pieces > 1:
            for prefix in prefixes:
                known.extend(range(prefix * pieces, (prefix + 1) * pieces))
        else:
            known.extend(prefixes[whole - 1 :: whole])
        blocks = (tokens - 1) // block_size
        del known[min(known_tokens // block_size, blocks) :]
        known.extend(itertools.islice(fresh, blocks - len(known)))
        return known

    return keys
