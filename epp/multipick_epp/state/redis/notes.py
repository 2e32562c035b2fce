"""What an owner notes for its successor, as fields of the endpoint's notes.

| field | value |
|---|---|
| empty | empty: notes without it were evicted, or have expired |
| `position` | the epoch of its writer, a space, the position in JSON |
| 12 bytes: an engine's hash, the block size | 16 bytes: the block's key, that of the block before it |
| 8 bytes and a cache's name: a block's key | how many copies of it the cache has, where there are several |
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from multipick_epp.state.cache import Cache
from multipick_epp.state.redis.connection import Argument
from multipick_epp.state.redis.keys import KEEP_S
from multipick_epp.state.redis.records import cache_name, cache_named, pack_keys
from multipick_epp.state.succession import Name, Notes, Position
from multipick_epp.types import BlockKey

FIELDS_A_CALL: Final = 512
_CALLED: Final = struct.Struct("<QI")
_NAME: Final = struct.Struct("<QQ")
_KEY: Final = struct.Struct("<Q")
_SIZE: Final = struct.Struct("<I")
_KEY_BYTES: Final = 8
_COPIES_AT_MOST: Final = 1 << 32
_AMID_A_WRITE: Final = b"amid a write"
"""As `lua/index.lua` has it."""
_position = msgspec.json.Decoder(Position)


def position_of(text: bytes) -> Position | None:
    """The position without its epoch, as `lua/take.lua` gives it; None where it is none."""
    try:
        return _position.decode(text)
    except msgspec.MsgspecError:
        return None


def calls_of(epoch: int, notes: Notes) -> Iterator[tuple[Argument, ...]]:
    """The arguments of each call of `lua/note.lua`; only the last one says the position."""
    kept: list[tuple[bytes, bytes]] = []
    gone: list[bytes] = []
    for names in notes.names:
        size = _SIZE.pack(names.block_size)
        columns = map(pack_keys, (names.keys, names.keys.values(), names.parents))
        hashes, keys, parents = (
            [column[at : at + _KEY_BYTES] for at in range(0, len(column), _KEY_BYTES)] for column in columns
        )
        kept += [(one + size, key + parent) for one, key, parent in zip(hashes, keys, parents, strict=True)]
        gone += [_KEY.pack(one) + size for one in names.forgotten]
    for cache, copies in notes.copies.items():
        name = cache_name(cache)
        for key, count in copies.items():
            if count > 1:
                kept.append((_KEY.pack(key) + name, b"%d" % count))
            else:
                gone.append(_KEY.pack(key) + name)
    position = b"" if notes.position is None else b"%d %s" % (epoch, msgspec.json.encode(notes.position))
    anew = KEEP_S if notes.whole else 0
    at, end = 0, len(kept) + len(gone)
    while True:
        left = at + FIELDS_A_CALL
        fields = [part for pair in kept[at:left] for part in pair]
        deleted = gone[max(0, at - len(kept)) : max(0, left - len(kept))]
        yield epoch, anew, position if left >= end else _AMID_A_WRITE, len(fields) // 2, *fields, *deleted
        at, anew = left, 0
        if at >= end:
            return


def _copied(field: bytes) -> tuple[Cache, BlockKey]:
    return cache_named(field[_KEY.size :]), BlockKey(*_KEY.unpack(field[: _KEY.size]))


class NotesRead:
    """Collects the fields of an endpoint's notes. Raises `MALFORMED` for what no owner has written."""

    def __init__(self) -> None:
        self.complete = False  # they are as they were written
        self.names: dict[int, dict[int, Name]] = {}
        self.length = 0
        self.copies: dict[Cache, dict[BlockKey, int]] = {}

    def add(self, fields: Mapping[bytes, bytes]) -> None:
        """Some of the fields, in any order."""
        self.length += len(fields)
        for field, value in fields.items():
            if len(field) == _CALLED.size:
                block_hash, block_size = _CALLED.unpack(field)
                key, parent = _NAME.unpack(value)
                self.names.setdefault(block_size, {})[block_hash] = Name(BlockKey(key), BlockKey(parent))
            elif not field:
                self.complete = True
            elif field != b"position":
                cache, key = _copied(field)
                count = int(value)
                if not 1 < count < _COPIES_AT_MOST:
                    raise ValueError("not a number of copies")
                self.copies.setdefault(cache, {})[key] = count
