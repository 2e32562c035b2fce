"""What one cache of one engine holds, copy by copy.

vLLM keeps several copies of a block, announces each of them, and announces the removal of each while the others still
serve hits. So copies are counted, and only the first and the last one change the index.

After lost events nothing that we hold is sure: it is *confirmed* again when an event stores it, or names it as the
parent of a stored block. What a whole turn of the cache has neither confirmed nor removed is dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multipick_epp.events.key_table import KeyTable
from multipick_epp.state.protocol import Cache
from multipick_epp.types import BlockKey

MAX_UNNAMED = 65536


@dataclass(frozen=True, slots=True)
class Change:
    """Blocks that came to and left a cache; none is in both."""

    cache: Cache
    stored: Sequence[BlockKey]
    removed: Sequence[BlockKey]


class CacheContents:
    """Invariants: `copies` counts at least 1 for every block; `unnamed` (by engine hash) has no hash that has a name;
    `confirmed` is None where everything is sure, else a subset of `copies`; `changes` has the last operation (True:
    stored, False: removed) on every block since the last `take`.
    """

    def __init__(self, cache: Cache, names: KeyTable, sure: bool) -> None:
        self.cache = cache
        self.names = names
        self.copies: dict[BlockKey, int] = {}
        self.unnamed: dict[int, int] = {}
        self.confirmed: set[BlockKey] | None = None if sure else set()
        self.changes: dict[BlockKey, bool] = {}
        names.residents.append(self.copies)

    def add(self, block_hash: int) -> bool:
        """A copy of the block came. False where its key isn't known (yet)."""
        key = self.names.keys.get(block_hash)
        if key is None:
            self.unnamed[block_hash] = self.unnamed.get(block_hash, 0) + 1
            if len(self.unnamed) > MAX_UNNAMED:
                del self.unnamed[next(iter(self.unnamed))]
            return False
        self.names.came(block_hash)
        # Of a block that was in doubt it isn't known whether the copies before still exist.
        self._hold(key, self.copies.get(key, 0) + 1 if self._sure_of(key) else 1)
        return True

    def remove(self, block_hash: int) -> bool:
        """A copy of the block went. False for one that we don't hold."""
        key = self.names.keys.get(block_hash)
        if key is None:
            unnamed = self.unnamed.pop(block_hash, 0)
            if unnamed > 1:
                self.unnamed[block_hash] = unnamed - 1
            return unnamed > 0
        self.names.went(block_hash)
        copies = self.copies.get(key)
        if copies is None:
            return False
        if copies > 1:
            self.copies[key] = copies - 1
        else:
            del self.copies[key]
            if self.confirmed is not None:
                self.confirmed.discard(key)
            self.changes[key] = False
        return True

    def confirm_chain(self, key: BlockKey, parents: Mapping[BlockKey, BlockKey]) -> None:
        """The block is resident, and all before it, back to one that is sure: those before were confirmed with it."""
        while key in parents and not self._sure_of(key):
            self._hold(key, 1)
            key = parents[key]

    def named(self, block_hash: int) -> None:
        """The block's key is known now."""
        for _ in range(self.unnamed.pop(block_hash, 0)):
            self.add(block_hash)

    def doubt(self) -> None:
        """Events were lost: what we hold may be gone."""
        self.confirmed = set()
        self.copies.update(dict.fromkeys(self.copies, 1))

    def settle(self) -> None:
        """The cache has turned over since: drop what is still in doubt, and be sure of the rest."""
        if self.confirmed is None:
            return
        for key in self.copies.keys() - self.confirmed:
            del self.copies[key]
            self.changes[key] = False
        self.confirmed = None

    def clear(self) -> None:
        """Everything is gone, for sure. No change tells it: the caller clears the medium as a whole."""
        self.changes.clear()
        self.copies.clear()
        self.unnamed.clear()
        self.confirmed = None

    def take(self) -> Change:
        """The changes since the last call."""
        changes, self.changes = self.changes, {}
        stored = [key for key, came in changes.items() if came]
        return Change(self.cache, stored, [key for key, came in changes.items() if not came])

    def _sure_of(self, key: BlockKey) -> bool:
        return key in self.copies and (self.confirmed is None or key in self.confirmed)

    def _hold(self, key: BlockKey, copies: int) -> None:
        if key not in self.copies:
            self.changes[key] = True
        self.copies[key] = copies
        if self.confirmed is not None:
            self.confirmed.add(key)
