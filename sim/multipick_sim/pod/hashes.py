"""The engine's own block hashes: 64 bits, chained, seeded with what shares no blocks. Not the picker's block keys."""

from collections.abc import Sequence

import msgspec
from multipick_epp.blocks import token_bytes
from xxhash import xxh3_64_intdigest


def block_hashes(ids: Sequence[int], block_size: int, lora: str | None, salt: str | None) -> list[int]:
    """Hashes of all full blocks of `ids`. Raises OverflowError or TypeError for what is no 32-bit token id."""
    view = memoryview(token_bytes(ids))
    size = 4 * block_size
    hash_ = xxh3_64_intdigest(msgspec.msgpack.encode(("engine", lora, salt)))
    hashes = []
    for start in range(0, len(view) - size + 1, size):
        hash_ = xxh3_64_intdigest(view[start : start + size], hash_)
        hashes.append(hash_)
    return hashes
