"""One message of an engine's event publisher -> event values.

vLLM's and SGLang's `EventBatch` is a msgpack array `[ts, events, data_parallel_rank]`. Its events are arrays
`["BlockStored", field, ...]` up to vLLM 0.23 and SGLang 0.5.18, and maps `{"type": "BlockStored", ...}` since.
Fields that this reader doesn't know are skipped, and an event that can't be read is counted: it never loses its batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from multipick_epp.blocks import encode_extra, token_bytes

MAX_PAYLOAD_BYTES = 64 << 20
_NO_EXTRAS: Mapping[int, bytes] = {}


class UndecodableBatch(ValueError):  # noqa: N818 (named for what it is)
    """The payload is no event batch at all."""


class Stored(Struct, frozen=True, gc=False):
    """Blocks came to a cache. `hashes` follow each other in the prompt; engine hashes are ints of at most 64 bits."""

    hashes: Sequence[int]
    parent: int | None  # hash of the block before the first; None at the start of a prompt
    tokens: bytes  # little-endian u32, of all blocks; empty or of another length where the engine doesn't say them
    block_size: int  # tokens; 0: not said (offload tiers)
    medium: str
    group: int  # KV-cache group
    kind: str
    window: int  # tokens; sliding-window groups only
    lora: str | None
    extras: Mapping[int, bytes]  # `blocks.encode_extra` by index of the block
    remote: bool  # lies elsewhere: the engine would have to fetch it


class Removed(Struct, frozen=True, gc=False):
    """One copy of each block left a cache."""

    hashes: Sequence[int]
    medium: str
    group: int
    remote: bool


class Cleared(Struct, frozen=True, gc=False):
    """The GPU cache was dropped as a whole; offload tiers keep theirs."""


Event = Stored | Removed | Cleared


class Batch(Struct, frozen=True, gc=False):
    """What one engine step changed, in order."""

    published_s: float  # Unix time, by the engine's clock
    events: Sequence[Event]
    rank: int  # data-parallel rank
    unreadable: int = 0  # events of a known kind that can't be read: something is missing here
    unknown: int = 0  # events of a kind that this reader doesn't know


class _Batch(Struct, array_like=True):
    ts: float
    events: list[Raw]
    rank: int | None = None


class _StoredArray(Struct, array_like=True, tag="BlockStored"):
    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | dict[str, Any] | None = None  # SGLang 0.5.18 has a map of metadata in its place
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None


class _StoredMap(Struct, tag="BlockStored"):
    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None = None
    token_ids: list[int] = []
    block_size: int = 0
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None
    cache_salt: str | None = None  # SGLang


class _RemovedArray(Struct, array_like=True, tag="BlockRemoved"):
    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None


class _RemovedMap(Struct, tag="BlockRemoved"):
    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None


class _ClearedArray(Struct, array_like=True, tag="AllBlocksCleared"):
    pass


class _ClearedMap(Struct, tag="AllBlocksCleared"):
    pass


_TAGS = {"BlockStored", "BlockRemoved", "AllBlocksCleared"}
_batch = msgspec.msgpack.Decoder(_Batch)
_array = msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray)
_map = msgspec.msgpack.Decoder(_StoredMap | _RemovedMap | _ClearedMap)


def decode(payload: bytes) -> Batch:
    """Read one message. Raises UndecodableBatch for what is no batch, or larger than MAX_PAYLOAD_BYTES."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise UndecodableBatch(f"a batch of {len(payload)} bytes")
    try:
        batch = _batch.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UndecodableBatch(str(error)) from error
    events: list[Event] = []
    unreadable = unknown = 0
    for raw in batch.events:
        try:
            events.append(_event(raw))
        except (msgspec.DecodeError, RecursionError, OverflowError, TypeError):
            if _tag(raw) in _TAGS:
                unreadable += 1
            else:
                unknown += 1
    return Batch(batch.ts, events, batch.rank or 0, unreadable, unknown)


def _event(raw: Raw) -> Event:
    first = memoryview(raw)[0]
    event = _array.decode(raw) if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD) else _map.decode(raw)
    if isinstance(event, (_RemovedMap, _RemovedArray)):
        remote = isinstance(event, _RemovedMap) and event.locality == "REMOTE"
        return Removed(_hashes(event.block_hashes), event.medium or "GPU", event.group_idx or 0, remote)
    if isinstance(event, (_StoredMap, _StoredArray)):
        return _stored(event)
    return Cleared()


def _stored(event: _StoredMap | _StoredArray) -> Stored:
    lora, salt, remote = event.lora_name, None, False
    if isinstance(lora, dict):
        metadata, lora = lora, None
        salt = metadata.get("cache_salt")
    if isinstance(event, _StoredMap):
        salt, remote = event.cache_salt, event.locality == "REMOTE"
    parent = event.parent_block_hash
    extras = _extras(event.extra_keys, lora) if event.extra_keys else _NO_EXTRAS
    if salt and parent is None:
        extras = {0: encode_extra([salt])}
    if lora is None and event.lora_id is not None:
        # Until vLLM 0.13 the adapter's name is not said. Its blocks get a root that no request has.
        lora = f"\0lora-id-{event.lora_id}"
    return Stored(
        _hashes(event.block_hashes),
        None if parent is None else _hash(parent),
        token_bytes(event.token_ids),
        event.block_size,
        event.medium or "GPU",
        event.group_idx or 0,
        event.kv_cache_spec_kind or "full_attention",
        event.kv_cache_spec_sliding_window or 0,
        lora,
        extras,
        remote,
    )


def _extras(extra_keys: list[list[Any] | None], lora: str | None) -> Mapping[int, bytes]:
    """The engine puts the adapter's name first on every block; it is in the root key already."""
    extras: dict[int, bytes] = {}
    for index, values in enumerate(extra_keys):
        if values and lora is not None and values[0] == lora:
            values = values[1:]
        if values:
            extras[index] = encode_extra(values)
    return extras or _NO_EXTRAS


def _hashes(hashes: list[int | bytes]) -> list[int]:
    return [value if type(value) is int else _hash(value) for value in hashes]


def _hash(value: int | bytes) -> int:
    """A raw digest as the int that the engine would have sent: its last 8 bytes."""
    return value if isinstance(value, int) else int.from_bytes(value[-8:], "big")


def _tag(raw: Raw) -> object:
    try:
        event = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    if isinstance(event, dict):
        return event.get("type")
    return event[0] if isinstance(event, list) and event else None
