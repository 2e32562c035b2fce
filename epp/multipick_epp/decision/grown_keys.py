"""Block keys of prompts that grew: only the blocks behind what is known of their beginning are hashed."""

from collections.abc import Mapping, Sequence
from itertools import chain

from multipick_epp.beginnings import Beginnings
from multipick_epp.blocks import keys_of_bytes, token_bytes
from multipick_epp.types import BlockKey

STRIDE_TOKENS = 1_024

_KEY_BYTES = 40
"""Of a key in a list: a place and an int."""


class GrownKeys:
    """The keys of prompts seen lately. Used by one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._beginnings: Beginnings[list[BlockKey]] = Beginnings(max_bytes, lambda keys: _KEY_BYTES * len(keys))

    def keys(
        self, root: BlockKey, token_ids: Sequence[int], block_size: int, extras: Mapping[int, bytes]
    ) -> list[BlockKey]:
        """As `block_keys`, and raises as it does."""
        data = token_bytes(token_ids)
        blocks = max(1, STRIDE_TOKENS // block_size)
        stride = 4 * block_size * blocks
        if len(data) < stride:
            return keys_of_bytes(root, data, block_size, extras)
        known = self._beginnings.find((root, block_size, *sorted(extras.items())), data, stride)
        keys = [*chain.from_iterable(known.values)]
        done = len(keys)
        rest = data[4 * block_size * done :]
        left = {index - done: extra for index, extra in extras.items()}
        keys += keys_of_bytes(keys[-1] if keys else root, rest, block_size, left)
        full = len(keys) - len(keys) % blocks
        self._beginnings.keep(known, data, (keys[start : start + blocks] for start in range(done, full, blocks)))
        return keys
