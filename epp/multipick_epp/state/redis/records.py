"""What stands in the streams and in the sets, as bytes. One record is one field of a stream entry; the field's name is
its kind: `delta`, `void`, `begin`, `drop`, `mode`, `owner` in the log, `by`, `expect`, `withdraw`, `outlier` among the
hints.

All of it is read as input: another version of multipick may write beside this one, and anybody else. What a younger
version may add, and older ones pass over: kinds of records, words behind a mode record's two, elements behind a cache
name's six, modes. Two names with the same six elements are one cache.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from multipick_epp.state.cache import Cache
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId, ReservationId

MALFORMED: Final = msgspec.MsgspecError, struct.error, ValueError, RecursionError
"""What the readers here raise for bytes that none of our writers has written."""
HINT_KEYS: Final = 1_750
"""Of a longer prompt only the head is told: 28,000 tokens, 16 a block. With `HINT_ENTRIES` it bounds the stream."""
_NAME_BYTES: Final = 4_096
_HINT_TTL_S: Final = 600.0
_KEY_BYTES: Final = 8
_DELTA = struct.Struct("<HI")  # bytes of the cache's name, stored keys
_EXPECT = struct.Struct("<HHII")  # bytes of the replica, bytes of the endpoint, block size, milliseconds

_Word = Annotated[str, msgspec.Meta(max_length=64)]
_BlockSize = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]  # also what a lookup can work with
_Group = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
_Window = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Name = tuple[str, _BlockSize, _Word, _Group, _Word, _Window]
_NAME = msgspec.json.Decoder(list[Any])


def read_endpoint(name: bytes) -> Endpoint:
    """An endpoint's name. Raises ValueError for what can be none."""
    return _endpoint(name.decode())


def _endpoint(name: str) -> Endpoint:
    if not 0 < len(name) <= 255 or not name.isprintable() or " " in name:
        raise ValueError("not an endpoint")
    return Endpoint(name)


@lru_cache(maxsize=8192)
def cache_name(cache: Cache) -> bytes:
    """A cache in bytes: part of its set's key, and a field of its endpoint's fence."""
    return msgspec.json.encode((cache.endpoint, cache.block_size, cache.medium, cache.group, cache.kind, cache.window))


@lru_cache(maxsize=8192)
def cache_named(name: bytes) -> Cache:
    """The cache of `cache_name`, or of a younger version's longer name. Raises `MALFORMED`."""
    if len(name) > _NAME_BYTES:
        raise ValueError("not a cache")
    endpoint, *rest = msgspec.convert(_NAME.decode(name)[:6], _Name)
    return Cache(_endpoint(endpoint), *rest)


def pack_keys(keys: Iterable[int]) -> bytes:
    """8 bytes a key, little-endian."""
    packed = array("Q", keys)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_keys(data: bytes) -> Sequence[BlockKey]:
    """The keys of `pack_keys`. Raises ValueError for a piece of a key."""
    packed = array("Q")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()  # type: ignore[return-value]  # BlockKey is int


def read_members(members: Sequence[bytes]) -> tuple[Sequence[BlockKey], int]:
    """The keys among a set's members, and how many members are none. The empty one is neither."""
    keys = [member for member in members if len(member) == _KEY_BYTES]
    return unpack_keys(b"".join(keys)), sum(1 for member in members if len(member) not in (0, _KEY_BYTES))


def delta_record(cache: Cache, stored: Sequence[BlockKey], removed: Sequence[BlockKey]) -> bytes:
    """Keys that came to and left a cache."""
    name = cache_name(cache)
    return _DELTA.pack(len(name), len(stored)) + name + pack_keys(stored) + pack_keys(removed)


def read_delta(record: bytes) -> tuple[Cache, Sequence[BlockKey], Sequence[BlockKey]]:
    """Cache, stored and removed keys of `delta_record`. Raises `MALFORMED`."""
    length, stored = _DELTA.unpack_from(record)
    at = _DELTA.size + length
    keys = unpack_keys(record[at:])
    if stored > len(keys):
        raise ValueError("keys are missing")
    return cache_named(record[_DELTA.size : at]), keys[:stored], keys[stored:]


def expect_record(
    replica: ReplicaId, endpoint: Endpoint, block_size: int, keys: Sequence[BlockKey], ttl_s: float
) -> bytes:
    """A prompt that `replica` routed; its head, if it is long."""
    names = replica.encode(), endpoint.encode()
    header = _EXPECT.pack(*map(len, names), block_size, int(1000 * ttl_s))
    return b"".join((header, *names, pack_keys(keys[:HINT_KEYS])))


def is_hint_of(replica: bytes, fields: Sequence[bytes]) -> bool:
    """Whether an entry of the hints is of one prompt that this replica routed. Its keys are not read."""
    if len(fields) != 4 or fields[0] != b"by" or fields[2] != b"expect":
        return False
    record = fields[3]
    return record.startswith(replica, _EXPECT.size) and int.from_bytes(record[:2], "little") == len(replica)


def read_expect(record: bytes) -> tuple[ReplicaId, Endpoint, int, Sequence[BlockKey], float]:
    """What `expect_record` was given. Raises `MALFORMED`."""
    replica_length, length, block_size, ttl_ms = _EXPECT.unpack_from(record)
    name_at = _EXPECT.size + replica_length
    at = name_at + length
    replica, endpoint = record[_EXPECT.size : name_at].decode(), read_endpoint(record[name_at:at])
    if not 0 < block_size <= 1 << 20:
        raise ValueError("not a block size")
    keys = unpack_keys(record[at:])[:HINT_KEYS]
    return ReplicaId(replica), endpoint, block_size, keys, min(ttl_ms / 1000, _HINT_TTL_S)


def read_owner(name: bytes) -> ReservationId:
    """A reservation's name. Raises ValueError for what can be none."""
    if not 0 < len(name) <= 255:
        raise ValueError("not a reservation")
    return ReservationId(name.decode())


def withdraw_record(endpoint: Endpoint, owner: ReservationId) -> bytes:
    """A reservation whose prompt `endpoint` won't compute."""
    return f"{owner} {endpoint}".encode()


def read_withdraw(record: bytes) -> tuple[Endpoint, ReservationId]:
    """Endpoint and reservation of `withdraw_record`. Raises ValueError."""
    owner, _, endpoint = record.partition(b" ")
    return read_endpoint(endpoint), read_owner(owner)


def outlier_record(replica: ReplicaId, endpoint: Endpoint, level: int) -> bytes:
    """An endpoint that `replica` left out, or (level 0) has back."""
    return f"{replica} {level} {endpoint}".encode()


def read_outlier(record: bytes) -> tuple[bytes, Endpoint, int]:
    """Replica, endpoint and level of `outlier_record`. Raises ValueError."""
    replica, level, endpoint = record.split(b" ", 3)[:3]
    return replica, read_endpoint(endpoint), read_level(level)


def read_level(text: bytes) -> int:
    """How often in a row an endpoint was left out. Raises ValueError for what is no such number."""
    if not text.isdigit() or len(text) > 6:
        raise ValueError("not a level")
    return int(text)


def mode_record(endpoint: Endpoint, mode: Mode) -> bytes:
    """How well an endpoint is known."""
    return f"{mode} {endpoint}".encode()


def read_mode(record: bytes) -> tuple[Endpoint, Mode | None]:
    """Endpoint and mode of `mode_record`; None: a mode that we don't know. Raises `MALFORMED`."""
    mode, _, rest = record.partition(b" ")
    return read_endpoint(rest.partition(b" ")[0]), mode_named(mode)


def owner_record(replica: ReplicaId, endpoint: Endpoint) -> bytes:
    """The replica that writes an endpoint from now on."""
    return f"{replica} {endpoint}".encode()


def read_owner_record(record: bytes) -> tuple[bytes, Endpoint]:
    """Replica and endpoint of `owner_record`. Raises ValueError."""
    replica, _, rest = record.partition(b" ")
    return replica, read_endpoint(rest.partition(b" ")[0])


def mode_named(name: bytes) -> Mode | None:
    """The mode of that name; None where we know none."""
    return _MODES.get(name)


_MODES: Final = {mode.value.encode(): mode for mode in Mode}
