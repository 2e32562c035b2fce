"""Engine events -> the bodies that vLLM publishes, before msgpack.

Maps are those of vLLM 0.24 to 0.32, arrays those of 0.22 and 0.23 (its `distributed/kv_events.py`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multipick_sim.engine.values import Cleared, Event, Removed, Stored
from multipick_sim.pod.settings import EventFormat

if TYPE_CHECKING:
    from array import array

GROUP = 0
KIND = "full_attention"
MEDIUM = "GPU"


@dataclass(frozen=True, slots=True)
class Content:
    """What a request's blocks hold."""

    ids: "array[int]"  # prompt and answer
    lora: str | None = None
    lora_id: int | None = None
    salt: str | None = None

    def extra_keys(self, block: int) -> list[str] | None:
        """What the engine hashes with a block besides its tokens: the adapter with each, the salt with the first."""
        keys = [self.lora] if self.lora else []
        if self.salt and block == 0:
            keys.append(self.salt)
        return keys or None


def bodies(
    events: Iterable[Event], content: Callable[[str], Content], block_size: int, format_: EventFormat
) -> list[Any]:
    """One batch's events; `content` knows every request that a stored block belongs to."""
    found: list[Any] = []
    for event in events:
        match event:
            case Stored():
                found.append(_stored(event, content(event.request_id), block_size, format_))
            case Removed(hashes=hashes) if format_ is EventFormat.MAP:
                found += [
                    {"type": "BlockRemoved", "block_hashes": [hash_], "medium": MEDIUM, "group_idx": GROUP}
                    for hash_ in hashes
                ]
            case Removed(hashes=hashes):
                found += [["BlockRemoved", [hash_], MEDIUM, GROUP] for hash_ in hashes]
            case Cleared():
                found.append({"type": "AllBlocksCleared"} if format_ is EventFormat.MAP else ["AllBlocksCleared"])
    return found


def _stored(event: Stored, content: Content, block_size: int, format_: EventFormat) -> Any:
    blocks = range(event.first, event.first + len(event.hashes))
    ids = content.ids[blocks.start * block_size : blocks.stop * block_size].tolist()
    extra_keys = [content.extra_keys(block) for block in blocks]
    if format_ is EventFormat.ARRAY:
        window = None
        values = [event.hashes, event.parent, ids, block_size, content.lora_id, MEDIUM, content.lora, extra_keys]
        return ["BlockStored", *values, GROUP, KIND, window]
    return {
        "type": "BlockStored",
        "block_hashes": event.hashes,
        "parent_block_hash": event.parent,
        "token_ids": ids,
        "block_size": block_size,
        "lora_id": content.lora_id,
        "medium": MEDIUM,
        "lora_name": content.lora,
        "extra_keys": extra_keys,
        "group_idx": GROUP,
        "kv_cache_spec_kind": KIND,
    }
