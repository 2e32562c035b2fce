"""What one cache of one engine holds, copy by copy.

vLLM keeps several copies of a block, announces each of them, and announces the removal of each while the others still
serve hits. So copies are counted, and only the first and the last one change the index.

After lost events nothing that we hold is sure: it is *confirmed* again when an event stores it, or names it as the
parent of a stored block. What a whole turn of the cache has neither confirmed nor removed is dropped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from multipick_epp.events.key_table import KeyTable
from multipick_epp.events.unnamed import UnnamedBlocks
from multipick_epp.state.cache import Cache
from multipick_epp.types import BlockKey


@dataclass(frozen=True, slots=True)
class Change:
    """Blocks that came to and left a cache; none is in both."""

    cache: Cache
    stored: Sequence[BlockKey]
    removed: Sequence[BlockKey]


class CacheContents:
    """Invariants: `copies` counts at least 1 for every block, and means nothing more where the block is in doubt;
    `unnamed` has no hash that has a name; `confirmed` is None where everything is sure, else a subset of `copies`;
    `changes` has the last operation (True: stored, False: removed) on every block since the last `take`, `recounted`
    the blocks of which there were several copies, or are now, since the last `take_copies`.
    """

    def __init__(self, cache: Cache, names: KeyTable, unnamed: UnnamedBlocks, sure: bool) -> None:
        self.cache = cache
        self.names = names
        self.copies: dict[BlockKey, int] = {}
        self.unnamed = unnamed
        self.confirmed: set[BlockKey] | None = None if sure else set()
        self.changes: dict[BlockKey, bool] = {}
        self.recounted: dict[BlockKey, None] = {}
        names.residents.append(self.copies)

    def add(self, block_hash: int) -> bool:
        """A copy of the block came. False where its key isn't known (yet)."""
        key = self.names.keys.get(block_hash)
        if key is None:
            self.unnamed.add(block_hash)
            return False
        self.names.came(block_hash)
        # Of a block that was in doubt it isn't known whether the copies before still exist.
        self._hold(key, self.copies.get(key, 0) + 1 if self._sure_of(key) else 1)
        return True

    def remove(self, block_hash: int) -> bool:
        """A copy of the block went. False for one that we don't hold."""
        key = self.names.keys.get(block_hash)
        if key is None:
            return self.unnamed.remove(block_hash)
        self.names.went(block_hash)
        copies = self.copies.get(key)
        if copies is None:
            return False
        if copies > 1:
            self.recounted[key] = None
        if copies > 1 and self._sure_of(key):
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
        copies = self.unnamed.take(block_hash)
        if copies == 0:
            self.names.came(block_hash)
            self._have(self.names.keys[block_hash], 1)
        for _ in range(copies or 0):
            self.add(block_hash)

    def doubt(self) -> None:
        """Events were lost: what we hold may be gone."""
        self.confirmed = set()
        self.unnamed.doubt()

    def settle(self) -> None:
        """The cache has turned over since: drop what is still in doubt, and be sure of the rest."""
        if self.confirmed is None:
            return
        for key in self.copies.keys() - self.confirmed:
            del self.copies[key]
            self.changes[key] = False
        self.unnamed.settle()
        self.confirmed = None

    def clear(self) -> None:
        """Everything is gone, for sure. No change tells it: the caller clears the medium as a whole."""
        self.changes.clear()
        self.recounted.clear()
        self.copies.clear()
        self.unnamed.clear()
        self.confirmed = None

    def take(self) -> Change:
        """The changes since the last call."""
        changes, self.changes = self.changes, {}
        stored = [key for key, came in changes.items() if came]
        return Change(self.cache, stored, [key for key, came in changes.items() if not came])

    def take_copies(self) -> Mapping[BlockKey, int]:
        """The copies of each block of which there were several at the last call, or are now."""
        recounted, self.recounted = self.recounted, {}
        return {key: self.copies.get(key, 0) for key in recounted}

    def several(self) -> Mapping[BlockKey, int]:
        """The copies of each block of which there are several."""
        self.recounted.clear()
        return {key: copies for key, copies in self.copies.items() if copies > 1}

    def restore(self, blocks: Iterable[BlockKey], copies: Mapping[BlockKey, int]) -> None:
        """Take these for resident. No change tells it: the index has them."""
        self.copies.update(dict.fromkeys(blocks, 1))
        self.copies.update(copies)

    def forget_nameless(self) -> bool:
        """Drop what `restore` took that has no name, since no event could remove it. Whether there was any."""
        nameless = self.copies.keys() - self.names.parents.keys()
        for key in nameless:
            del self.copies[key]
            self.changes[key] = False
        return bool(nameless)

    def _sure_of(self, key: BlockKey) -> bool:
        return key in self.copies and (self.confirmed is None or key in self.confirmed)

    def _have(self, key: BlockKey, copies: int) -> None:
        before = self.copies.get(key)
        if before is None:
            self.changes[key] = True
        elif before != copies:
            self.recounted[key] = None
        self.copies[key] = copies

    def _hold(self, key: BlockKey, copies: int) -> None:
        self._have(key, copies)
        if self.confirmed is not None:
            self.confirmed.add(key)
