"""One message of an engine's event publisher -> event values.

vLLM's and SGLang's `EventBatch` is a msgpack array `[ts, events, data_parallel_rank]`. Its events are arrays
`["BlockStored", field, ...]` up to vLLM 0.23 and SGLang 0.5.18, and maps `{"type": "BlockStored", ...}` since.
Fields that this reader doesn't know are skipped, and an event that can't be read is counted: it never loses its batch.
An event is read only if all that it says is within the bounds below: what comes out of here costs a known amount of
time and memory, and fits the store.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from xxhash import xxh3_128_digest

from multipick_epp.blocks import encode_extra, token_bytes

MAX_PAYLOAD_BYTES = 4 << 20
"""The largest of an engine are below 1 MiB: a step's tokens, or the report of a prompt of 100,000 tokens."""
MAX_EVENTS = 1 << 16
"""Of one batch. An engine step evicts at most as many blocks as it fills: some thousands."""
MAX_BLOCKS = 1 << 17
"""Announced by one batch, stored and removed: two prompts of a million tokens at 16 a block. Half a second of work."""
MAX_CLEARS = 16
"""Of one batch: a step drops the cache once, if ever."""
MAX_EXTRA_BYTES = 1 << 16
"""What an engine mixes into a block beside its tokens. More (a client's salt has no bound) is only told by a digest."""
_NO_EXTRAS: Mapping[int, bytes] = {}
_U64 = (1 << 64) - 1
_NIL = Raw(b"\xc0")

_Hash = int | Annotated[bytes, Meta(min_length=1, max_length=64)]
_Hashes = Annotated[list[_Hash], Meta(max_length=MAX_BLOCKS)]
_TokenIds = Annotated[list[int], Meta(max_length=1 << 22)]
_BlockSize = Annotated[int, Meta(ge=0, le=1 << 20)]
_Medium = Annotated[str, Meta(max_length=32)]
_Lora = Annotated[str, Meta(max_length=1024)]
_ExtraKeys = Annotated[list[Raw], Meta(max_length=MAX_BLOCKS)]
_Group = Annotated[int, Meta(ge=0, le=4095)]
_Kind = Annotated[str, Meta(max_length=64)]
_Window = Annotated[int, Meta(ge=0, le=1 << 30)]


class UndecodableBatch(ValueError):  # noqa: N818 (named for what it is)
    """The payload is no event batch at all."""


class Stored(Struct, frozen=True, gc=False):
    """Blocks came to a cache. `hashes` follow each other in the prompt; engine hashes are ints of at most 64 bits."""

    hashes: Sequence[int]
    parent: int | None  # hash of the block before the first; None at the start of a prompt
    tokens: bytes  # little-endian u32, of all blocks; empty or of another length where the engine doesn't say them
    block_size: int  # tokens; 0: not said (offload tiers)
    medium: str  # in capitals
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
    ts: Annotated[float, Meta(ge=0, le=1e11)]
    events: Annotated[list[Raw], Meta(max_length=MAX_EVENTS)]
    rank: Annotated[int, Meta(ge=0, le=65535)] | None = None


class _Metadata(Struct):
    """What SGLang 0.5.18 has in the place of the adapter's name."""

    cache_salt: str | None = None


class _StoredArray(Struct, array_like=True, tag="BlockStored"):
    block_hashes: _Hashes
    parent_block_hash: _Hash | None
    token_ids: _TokenIds
    block_size: _BlockSize
    lora_id: int | None = None
    medium: _Medium | None = None
    lora_name: _Lora | _Metadata | None = None
    extra_keys: _ExtraKeys | None = None
    group_idx: _Group | None = None
    kv_cache_spec_kind: _Kind | None = None
    kv_cache_spec_sliding_window: _Window | None = None


class _StoredMap(Struct, tag="BlockStored"):
    block_hashes: _Hashes
    parent_block_hash: _Hash | None = None
    token_ids: _TokenIds = []
    block_size: _BlockSize = 0
    lora_id: int | None = None
    medium: _Medium | None = None
    lora_name: _Lora | None = None
    extra_keys: _ExtraKeys | None = None
    group_idx: _Group | None = None
    kv_cache_spec_kind: _Kind | None = None
    kv_cache_spec_sliding_window: _Window | None = None
    locality: str | None = None
    cache_salt: str | None = None  # SGLang


class _RemovedArray(Struct, array_like=True, tag="BlockRemoved"):
    block_hashes: _Hashes
    medium: _Medium | None = None
    group_idx: _Group | None = None


class _RemovedMap(Struct, tag="BlockRemoved"):
    block_hashes: _Hashes
    medium: _Medium | None = None
    group_idx: _Group | None = None
    locality: str | None = None


class _ClearedArray(Struct, array_like=True, tag="AllBlocksCleared"):
    pass


class _ClearedMap(Struct, tag="AllBlocksCleared"):
    pass


class _ArrayTag(Struct, array_like=True):
    tag: str


class _MapTag(Struct):
    type: str


_TAGS = {"BlockStored", "BlockRemoved", "AllBlocksCleared"}
_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError, OverflowError, TypeError)
_batch = msgspec.msgpack.Decoder(_Batch)
_array = msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray)
_map = msgspec.msgpack.Decoder(_StoredMap | _RemovedMap | _ClearedMap)
_array_tag = msgspec.msgpack.Decoder(_ArrayTag)
_map_tag = msgspec.msgpack.Decoder(_MapTag)
_extra_values = msgspec.msgpack.Decoder(list)


def decode(payload: bytes) -> Batch:
    """Read one message. Raises UndecodableBatch for what is no batch, or larger than a batch may be."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise UndecodableBatch(f"a batch of {len(payload)} bytes")
    try:
        batch = _batch.decode(payload)
    except _UNREADABLE as error:
        raise UndecodableBatch(str(error)) from error
    events: list[Event] = []
    unreadable = unknown = blocks = clears = 0
    for raw in batch.events:
        try:
            event = _event(raw)
        except _UNREADABLE:
            if _tag(raw) in _TAGS:
                unreadable += 1
            else:
                unknown += 1
            continue
        events.append(event)
        if isinstance(event, Cleared):
            clears += 1
        else:
            blocks += len(event.hashes)
        if blocks > MAX_BLOCKS or clears > MAX_CLEARS:
            raise UndecodableBatch(f"a batch of more than {MAX_BLOCKS} blocks, or {MAX_CLEARS} clears")
    return Batch(batch.ts, events, batch.rank or 0, unreadable, unknown)


def _event(raw: Raw) -> Event:
    event = _array.decode(raw) if _is_array(raw) else _map.decode(raw)
    if isinstance(event, (_RemovedMap, _RemovedArray)):
        remote = isinstance(event, _RemovedMap) and event.locality == "REMOTE"
        return Removed(_hashes(event.block_hashes), _medium(event.medium), event.group_idx or 0, remote)
    if isinstance(event, (_StoredMap, _StoredArray)):
        return _stored(event)
    return Cleared()


def _is_array(raw: Raw) -> bool:
    first = memoryview(raw)[0]
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


def _stored(event: _StoredMap | _StoredArray) -> Stored:
    salt, remote = None, False
    if isinstance(event, _StoredMap):
        lora, salt, remote = event.lora_name, event.cache_salt, event.locality == "REMOTE"
    elif isinstance(event.lora_name, _Metadata):
        lora, salt = None, event.lora_name.cache_salt
    else:
        lora = event.lora_name
    parent = event.parent_block_hash
    extra_keys = event.extra_keys and event.extra_keys[: len(event.block_hashes)]  # one a block: more are nobody's
    extras = _extras(extra_keys, lora) if extra_keys else _NO_EXTRAS
    if salt and parent is None:
        extras = {0: _bounded(encode_extra([salt]))}
    if lora is None and event.lora_id is not None:
        # Until vLLM 0.13 the adapter's name is not said. Its blocks get a root that no request has.
        lora = f"\0lora-id-{event.lora_id}"
    return Stored(
        _hashes(event.block_hashes),
        None if parent is None else _hash(parent),
        token_bytes(event.token_ids),
        event.block_size,
        _medium(event.medium),
        event.group_idx or 0,
        event.kv_cache_spec_kind or "full_attention",
        event.kv_cache_spec_sliding_window or 0,
        lora,
        extras,
        remote,
    )


def _medium(name: str | None) -> str:
    return name.upper() if name else "GPU"


def _extras(extra_keys: list[Raw], lora: str | None) -> Mapping[int, bytes]:
    """The engine puts the adapter's name first on every block; it is in the root key already."""
    if extra_keys.count(_NIL) == len(extra_keys):
        return _NO_EXTRAS
    extras: dict[int, bytes] = {}
    for index, raw in enumerate(extra_keys):
        if raw == _NIL:
            continue
        if len(memoryview(raw)) > MAX_EXTRA_BYTES:
            extras[index] = _bounded(bytes(raw))
            continue
        values = _extra_values.decode(raw)
        if values and lora is not None and values[0] == lora:
            values = values[1:]
        if values:
            extras[index] = _bounded(encode_extra(values))
    return extras or _NO_EXTRAS


def _bounded(extra: bytes) -> bytes:
    """Equal extras need equal bytes, and no more: a request with one that is cut never hits, and does no harm."""
    return extra if len(extra) <= MAX_EXTRA_BYTES else b"\0" + xxh3_128_digest(extra)


def _hashes(hashes: list[int | bytes]) -> list[int]:
    return [value if type(value) is int and value >= 0 else _hash(value) for value in hashes]


def _hash(value: int | bytes) -> int:
    """A raw digest as the int that the engine would have sent: its last 8 bytes. SGLang's ints have a sign."""
    return value & _U64 if isinstance(value, int) else int.from_bytes(value[-8:], "big")


def _tag(raw: Raw) -> str | None:
    """The kind of an event of which no more can be read; nothing else of it is built."""
    try:
        return _array_tag.decode(raw).tag if _is_array(raw) else _map_tag.decode(raw).type
    except _UNREADABLE:
        return None
