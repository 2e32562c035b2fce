"""Copies of blocks whose key isn't known yet, by the engine's hash: their name may come with a later event."""

from collections.abc import Iterator
from itertools import islice

MAX_UNNAMED = 65536


class UnnamedBlocks:
    """Invariant: `_copies` counts at least 1 for every block, or 0 where lost events leave it in doubt."""

    def __init__(self) -> None:
        self._copies: dict[int, int] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._copies)

    def __iter__(self) -> Iterator[int]:
        return iter(self._copies)

    def add(self, block_hash: int) -> None:
        """A copy came. Where there are more than MAX_UNNAMED, the oldest quarter is forgotten."""
        copies = self._copies
        copies[block_hash] = copies.get(block_hash, 0) + 1
        if len(copies) > MAX_UNNAMED:
            for oldest in list(islice(copies, MAX_UNNAMED // 4)):
                del copies[oldest]

    def remove(self, block_hash: int) -> bool:
        """A copy went. False for one that isn't here for sure."""
        copies = self._copies.pop(block_hash, 0)
        if copies > 1:
            self._copies[block_hash] = copies - 1
        return copies > 0

    def take(self, block_hash: int) -> int | None:
        """The block has a name now: its copies, 0 where they are in doubt; None for one that isn't here."""
        return self._copies.pop(block_hash, None)

    def doubt(self) -> None:
        """Events were lost."""
        self._copies = dict.fromkeys(self._copies, 0)

    def settle(self) -> None:
        """The cache has turned over since: what is still in doubt is gone."""
        self._copies = {block_hash: copies for block_hash, copies in self._copies.items() if copies}

    def clear(self) -> None:
        """Everything is gone."""
        self._copies.clear()
