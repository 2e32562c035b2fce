"""What stands in the streams and in the sets, as bytes. One record is one field of a stream entry; the field's name is
its kind: `delta`, `void`, `begin`, `drop`, `mode` in the log, `expect` among the hints.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from multipick_epp.state.protocol import Cache
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId

_DELTA = struct.Struct("<HI")  # bytes of the cache's name, stored keys
_EXPECT = struct.Struct("<HHII")  # bytes of the replica, bytes of the endpoint, block size, milliseconds
_NAME = msgspec.json.Decoder(tuple[str, int, str, int, str, int])


@lru_cache(maxsize=8192)
def cache_name(cache: Cache) -> bytes:
    """A cache in bytes: part of its set's key, and a field of its endpoint's fence."""
    return msgspec.json.encode((cache.endpoint, cache.block_size, cache.medium, cache.group, cache.kind, cache.window))


@lru_cache(maxsize=8192)
def cache_named(name: bytes) -> Cache:
    """The cache of `cache_name`. Raises msgspec.MsgspecError for other bytes."""
    endpoint, block_size, medium, group, kind, window = _NAME.decode(name)
    return Cache(Endpoint(endpoint), block_size, medium, group, kind, window)


def pack_keys(keys: Sequence[BlockKey]) -> bytes:
    """8 bytes a key, little-endian."""
    packed = array("Q", keys)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_keys(data: bytes) -> Sequence[BlockKey]:
    """The keys of `pack_keys`."""
    packed = array("Q")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()  # type: ignore[return-value]  # BlockKey is int


def delta_record(cache: Cache, stored: Sequence[BlockKey], removed: Sequence[BlockKey]) -> bytes:
    """Keys that came to and left a cache."""
    name = cache_name(cache)
    return _DELTA.pack(len(name), len(stored)) + name + pack_keys(stored) + pack_keys(removed)


def read_delta(record: bytes) -> tuple[Cache, Sequence[BlockKey], Sequence[BlockKey]]:
    """Cache, stored and removed keys of `delta_record`."""
    length, stored = _DELTA.unpack_from(record)
    at = _DELTA.size + length
    keys = unpack_keys(record[at:])
    return cache_named(record[_DELTA.size : at]), keys[:stored], keys[stored:]


def expect_record(
    replica: ReplicaId, endpoint: Endpoint, block_size: int, keys: Sequence[BlockKey], ttl_s: float
) -> bytes:
    """A prompt that `replica` routed."""
    names = replica.encode(), endpoint.encode()
    return b"".join((_EXPECT.pack(*map(len, names), block_size, int(1000 * ttl_s)), *names, pack_keys(keys)))


def read_expect(record: bytes) -> tuple[ReplicaId, Endpoint, int, Sequence[BlockKey], float]:
    """What `expect_record` was given."""
    replica_length, length, block_size, ttl_ms = _EXPECT.unpack_from(record)
    name_at = _EXPECT.size + replica_length
    at = name_at + length
    replica, endpoint = record[_EXPECT.size : name_at].decode(), record[name_at:at].decode()
    return ReplicaId(replica), Endpoint(endpoint), block_size, unpack_keys(record[at:]), ttl_ms / 1000


def mode_record(endpoint: Endpoint, mode: Mode) -> bytes:
    """How well an endpoint is known."""
    return f"{mode} {endpoint}".encode()


def read_mode(record: bytes) -> tuple[Endpoint, Mode]:
    """Endpoint and mode of `mode_record`."""
    mode, _, endpoint = record.decode().partition(" ")
    return Endpoint(endpoint), Mode(mode)
