"""Loads the mirror from the store's sets."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection, WrongTypeError
from multipick_epp.state.redis.fences import Fences
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.records import MALFORMED, cache_named, mode_named, read_endpoint, read_members
from multipick_epp.state.redis.scripts import Script
from multipick_epp.types import Endpoint, Mode

T = TypeVar("T")

MEMBERS_A_SCAN = 2_000
ENDPOINTS_AT_MOST: Final = 4_096
"""Of one pool; others that stand in the store are passed over."""
NAMES_AT_MOST: Final = 20_000
"""More than that were written by nobody who keeps to the bound above: to read them all would hold up requests."""


class Known(NamedTuple):
    """What the store says of a pool's endpoints."""

    endpoints: set[Endpoint]  # that have a fence; those with a mode, where the key can't be read
    modes: dict[Endpoint, Mode | None]  # None: a mode that we don't know
    holders: dict[Endpoint, bytes]  # the replica that writes each


class Sets:
    """What can't be read is skipped; all else is loaded."""

    def __init__(
        self, connection: Connection, keys: Keys, fences: Fences, index: LocalIndex, malformed: Malformed
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._fences = fences
        self._index = index
        self._malformed = malformed

    async def known(self, script: Script) -> Known:
        """What stands there of all endpoints. `script`: that of `lua/known.lua`."""
        pool = self._keys
        keys = (pool.endpoints, pool.modes, pool.holders)
        reply = replies.listed(await self._connection.call(*script.command(keys, NAMES_AT_MOST)), 3)
        kinds = zip(("endpoints", "modes", "owners"), keys, reply, strict=True)
        names, modes, holders = (self._all_of(*each) for each in kinds)
        said = {endpoint: mode_named(mode) for endpoint, mode in self._by_endpoint(modes or [])}
        endpoints = set(said) if names is None else set(self._readable("endpoint", names, read_endpoint))
        if len(endpoints) > ENDPOINTS_AT_MOST:
            self._malformed.skip("endpoints", pool.endpoints, f"more than {ENDPOINTS_AT_MOST}")
        return Known(set(sorted(endpoints)[:ENDPOINTS_AT_MOST]), said, dict(self._by_endpoint(holders or [])))

    def _all_of(self, kind: str, key: str, found: object) -> list[bytes] | None:
        """What a key has; None where it is of no use, and says why."""
        if isinstance(found, list):
            return replies.strings(found)
        self._malformed.skip(kind, key, replies.string(found))
        return None

    def _by_endpoint(self, flat: Sequence[bytes]) -> Iterator[tuple[Endpoint, bytes]]:
        for name, text in replies.pairs(flat):
            for endpoint in self._readable("endpoint", [name], read_endpoint):
                yield endpoint, text

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
        for name in await self._fences.cache_names(self._connection, endpoint):
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
