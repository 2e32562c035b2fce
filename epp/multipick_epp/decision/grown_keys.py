"""Block keys of prompts that grew: only the blocks behind what is known of their beginning are hashed."""

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from multipick_epp.beginnings import Beginnings, Known
from multipick_epp.blocks import keys_of_bytes, token_bytes
from multipick_epp.types import BlockKey

STRIDE_TOKENS = 1_024

SLICE_TOKENS = 32_768
"""Tokens that are hashed in one call, so that none takes long."""

KEPT_TOKENS = 262_144
"""So much of a prompt's beginning is kept, which takes half a millisecond."""

_KEY_BYTES = 40
"""Of a key in a list: a place and an int."""


class Begun(msgspec.Struct, frozen=True, gc=False):
    """A prompt of which the keys of the beginning are known."""

    root: BlockKey
    data: bytes  # its `token_bytes`
    block_size: int
    extras: Mapping[int, bytes]
    known: Known[list[BlockKey]]
    left: int  # tokens behind what is known

    def keys(self) -> list[BlockKey]:
        """As `block_keys` makes them. In any thread."""
        keys = [*chain.from_iterable(self.known.values)]
        block = 4 * self.block_size
        step = block * max(1, SLICE_TOKENS // self.block_size)
        for start in range(block * len(keys), len(self.data), step):
            extras = {index - len(keys): extra for index, extra in self.extras.items()} if self.extras else self.extras
            last = keys[-1] if keys else self.root
            keys += keys_of_bytes(last, self.data[start : start + step], self.block_size, extras)
        return keys


class GrownKeys:
    """The keys of prompts seen lately. `begin` may be called in any thread, `keep` in one alone."""

    def __init__(self, max_bytes: int) -> None:
        self._beginnings: Beginnings[list[BlockKey]] = Beginnings(max_bytes, lambda keys: _KEY_BYTES * len(keys))

    def begin(self, root: BlockKey, token_ids: Sequence[int], block_size: int, extras: Mapping[int, bytes]) -> Begun:
        """Raises OverflowError or TypeError for what is no 32-bit token id."""
        data = token_bytes(token_ids)
        stride = 4 * block_size * max(1, STRIDE_TOKENS // block_size)
        known = self._beginnings.find((root, block_size, *sorted(extras.items())), data, stride)
        return Begun(root, data, block_size, extras, known, (len(data) - stride * len(known.values)) // 4)

    def keep(self, begun: Begun, keys: Sequence[BlockKey]) -> None:
        """These are its keys."""
        if len(begun.data) < begun.known.stride:
            return
        blocks = begun.known.stride // (4 * begun.block_size)
        first = blocks * len(begun.known.values)
        until = min(len(keys), KEPT_TOKENS // begun.block_size) - blocks
        strides = ([*keys[at : at + blocks]] for at in range(first, until + 1, blocks))
        self._beginnings.keep(begun.known, begun.data, strides)
