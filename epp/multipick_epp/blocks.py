"""Token ids -> block keys: multipick's own chain of prompt-block hashes.

A block key stands for one block of `block_size` tokens *and* all blocks before it, so that equal keys mean equal
prefixes. It is never the engine's hash: vLLM changed that recipe six times, and may seed it at random. The engine's
events carry the token ids, which are hashed here by the same functions as a request's prompt.

`key = xxh3_64(token ids as little-endian u32 ++ extra, seed = parent key)`, cut to 60 bits: an int of two CPython
digits, 16 bytes less in the index of 13 million entries.
"""

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from struct import iter_unpack

import msgspec
from xxhash import xxh3_64_intdigest

from multipick_epp.types import BlockKey

KEY_MASK = (1 << 60) - 1
_NO_EXTRAS: Mapping[int, bytes] = {}


def root_key(secret: bytes, model: str, lora: str | None = None) -> BlockKey:
    """The parent of a prompt's first block.

    `secret` is the pool's: without it nobody can make prompts that collide on purpose. `model` is the pool's base
    model and `lora` the adapter's name, whose cache blocks are never shared with the base model's.
    """
    return BlockKey(xxh3_64_intdigest(msgspec.msgpack.encode((secret, model, lora))) & KEY_MASK)


def child_key(parent: BlockKey, token_bytes: bytes | memoryview, extra: bytes = b"") -> BlockKey:
    """The key of the block of `token_bytes` (u32, little-endian) after `parent`.

    `extra` is what the engine mixes into this block besides its tokens: see `encode_extra`.
    """
    data = bytes(token_bytes) + extra if extra else token_bytes
    return BlockKey(xxh3_64_intdigest(data, parent) & KEY_MASK)


def token_bytes(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian u32, 4 bytes a token.

    Raises OverflowError or TypeError for what is no 32-bit token id.
    """
    if sys.byteorder == "little" and isinstance(token_ids, array) and token_ids.typecode == "I":
        return token_ids.tobytes()
    ids = array("I", token_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


def block_keys(
    root: BlockKey, token_ids: Sequence[int], block_size: int, extras: Mapping[int, bytes] = _NO_EXTRAS
) -> list[BlockKey]:
    """The keys of all full blocks of a prompt; a tail shorter than `block_size` tokens has none.

    `extras` maps a block's index to its `encode_extra` bytes.
    """
    return keys_of_bytes(root, token_bytes(token_ids), block_size, extras)


def keys_of_bytes(
    root: BlockKey, data: bytes, block_size: int, extras: Mapping[int, bytes] = _NO_EXTRAS
) -> list[BlockKey]:
    """`block_keys` of `token_bytes`."""
    step = 4 * block_size
    if step > len(data):
        return []  # and no format of any number of bytes
    whole = memoryview(data)[: len(data) // step * step]
    blocks: Iterator[tuple[bytes]] = iter_unpack(f"{step}s", whole)
    if extras:
        blocks = ((block + extras.get(index, b""),) for index, (block,) in enumerate(blocks))
    keys: list[BlockKey] = []
    add, digest, mask = keys.append, xxh3_64_intdigest, KEY_MASK
    key: int = root
    # As `child_key`, written out: this loop is most of a long prompt's decision, and half as long without the calls.
    for (block,) in blocks:
        key = digest(block, key) & mask
        add(key)  # type: ignore[arg-type]  # a `BlockKey`, of which making one is a call
    return keys


def encode_extra(values: Sequence[object]) -> bytes:
    """The engine's `extra_keys` of one block, less the LoRA name (which is in the root), as bytes; b"" for none.

    vLLM puts multimodal ids on the blocks they cover and the cache salt on block 0.
    """
    return msgspec.msgpack.encode(list(values)) if values else b""


class Chains(msgspec.Struct, frozen=True, gc=False):
    """One prompt as block keys, one chain for each block size that the pool's endpoints use."""

    prompt_tokens: int
    by_size: Mapping[int, Sequence[BlockKey]] = {}

    def usable(self, block_size: int) -> int:
        """Blocks that can hit at most: the engine always computes at least the last prompt token."""
        return max(0, self.prompt_tokens - 1) // block_size
