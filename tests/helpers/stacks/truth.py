"""What a pod really has cached, by its own account, which is not made of events."""

from collections.abc import Sequence

from multipick_epp.blocks import child_key, encode_extra, root_key, token_bytes
from multipick_epp.types import BlockKey

from stacks.process import Json

MODEL = "demo"


def block_keys_of(blocks: Sequence[Json]) -> set[BlockKey]:
    """`GET /sim/cache` as block keys. A cached block's parent is cached: engines free a chain from its end."""
    by_hash = {block["hash"]: block for block in blocks}
    keys: dict[int, BlockKey] = {}
    for block in blocks:
        chain = []
        while block["hash"] not in keys:
            chain.append(block)
            if block["parent"] is None:
                break
            block = by_hash[block["parent"]]
        for each in reversed(chain):
            lora, parent = each["lora_name"], each["parent"]
            extras = encode_extra([extra for extra in each["extra_keys"] or () if extra != lora])
            before = root_key(b"", MODEL, lora) if parent is None else keys[parent]
            keys[each["hash"]] = child_key(before, token_bytes(each["token_ids"]), extras)
    return set(keys.values())


def xor(keys: set[BlockKey]) -> int:
    total = 0
    for key in keys:
        total ^= key
    return total
