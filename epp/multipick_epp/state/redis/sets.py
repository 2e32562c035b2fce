"""Loads the mirror from the store's sets."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection, WrongTypeError
from multipick_epp.state.redis.fences import cache_names
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.records import MALFORMED, cache_named, mode_named, read_endpoint, read_members
from multipick_epp.types import Endpoint, Mode

T = TypeVar("T")

MEMBERS_A_SCAN = 2_000
ENDPOINTS_AT_MOST: Final = 4_096
"""Of one pool; others that stand in the store are passed over."""


class Sets:
    """What can't be read is skipped; all else is loaded."""

    def __init__(self, connection: Connection, keys: Keys, index: LocalIndex, malformed: Malformed) -> None:
        self._connection = connection
        self._keys = keys
        self._index = index
        self._malformed = malformed

    async def modes(self) -> dict[Endpoint, Mode | None]:
        """How well the endpoints are known; None: a mode that we don't know."""
        modes: dict[Endpoint, Mode | None] = {}
        try:
            for name, mode in replies.pairs(await self._connection.read("HGETALL", self._keys.modes)):
                for endpoint in self._readable("endpoint", [name], read_endpoint):
                    modes[endpoint] = mode_named(mode)
        except WrongTypeError as error:
            self._malformed.skip("modes", self._keys.modes, error)
        return modes

    async def holders(self) -> dict[Endpoint, bytes]:
        """The replica that writes each endpoint."""
        holders: dict[Endpoint, bytes] = {}
        try:
            for name, replica in replies.pairs(await self._connection.read("HGETALL", self._keys.holders)):
                for endpoint in self._readable("endpoint", [name], read_endpoint):
                    holders[endpoint] = replica
        except WrongTypeError as error:
            self._malformed.skip("owners", self._keys.holders, error)
        return holders

    async def endpoints(self, with_mode: Iterable[Endpoint]) -> set[Endpoint]:
        """Those that are said to have a fence; those with a mode, where that key can't be read."""
        try:
            names = replies.strings(await self._connection.read("SMEMBERS", self._keys.endpoints))
            endpoints = set(self._readable("endpoint", names, read_endpoint))
        except WrongTypeError as error:
            self._malformed.skip("endpoints", self._keys.endpoints, error)
            endpoints = set(with_mode)
        if len(endpoints) > ENDPOINTS_AT_MOST:
            self._malformed.skip("endpoints", self._keys.endpoints, f"more than {ENDPOINTS_AT_MOST}")
        return set(sorted(endpoints)[:ENDPOINTS_AT_MOST])

    async def load(self, endpoint: Endpoint, *, if_whole: bool = False) -> bool:
        """Take an endpoint's caches into the mirror; `if_whole`: but none of which the store has lost something, as far
        as one can see. Whether all were taken.
        """
        caches = await self.caches(endpoint)
        for gone in set(self._index.caches(endpoint)) - set(caches):
            self._index.forget(gone)
        all_taken = True
        for cache, names in caches.items():
            bit = self._index.fresh(cache)
            if bit is None:
                self._index.forget(cache)
                all_taken = False
                continue
            try:
                whole = [await self._fill(bit, self._keys.blocks(name)) for name in names]
            except BaseException:
                self._index.discard(bit)
                raise
            if if_whole and not all(whole):
                self._index.discard(bit)
                all_taken = False
            else:
                self._index.swap(cache, bit)
        return all_taken

    async def caches(self, endpoint: Endpoint) -> dict[Cache, list[bytes]]:
        """The endpoint's caches by its fence, each with its names."""
        caches: defaultdict[Cache, list[bytes]] = defaultdict(list)
        for name in await cache_names(self._connection, self._keys, endpoint, self._malformed):
            for cache in self._readable("cache", [name], cache_named):
                if cache.endpoint != endpoint or (cache not in caches and len(caches) == CACHES_AT_MOST):
                    self._malformed.skip("cache", name, "another endpoint's, or too many")
                else:
                    caches[cache].append(name)
        return caches

    async def _fill(self, bit: int, key: bytes) -> bool:
        """Whether the set has its empty member: else it was evicted, or has expired."""
        cursor = b""
        whole = False
        while cursor != b"0":
            try:
                step = await self._connection.read("SSCAN", key, cursor or 0, "COUNT", MEMBERS_A_SCAN)
            except WrongTypeError as error:
                self._malformed.skip("blocks", key, error)
                return False
            cursor, members = replies.scanned(step)
            whole = whole or b"" in members
            keys, others = read_members(members)
            if others:
                self._malformed.skip("blocks", key, f"{others} members that are no block keys")
            self._index.fill(bit, keys)
        return whole

    def _readable(self, kind: str, names: Iterable[bytes], read: Callable[[bytes], T]) -> Iterator[T]:
        for name in names:
            try:
                yield read(name)
            except MALFORMED as error:
                self._malformed.skip(kind, name, error)
