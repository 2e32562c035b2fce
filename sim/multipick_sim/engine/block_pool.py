"""The blocks of the KV cache: who holds them, which are cached, and which goes next (vLLM `v1/core/block_pool.py`)."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

from multipick_sim.engine.values import Cleared, Event, Removed, Stored


class BlockPool:
    """Blocks 1 … num_gpu_blocks - 1; block 0 is vLLM's null block and is never handed out.

    Invariants, which `check` asserts:
    - a block is in the free queue exactly when its ref count is 0; it may be cached all the same;
    - `_first` holds, for each cached hash, the copy that was inserted first, and `_copies` the others, oldest first;
    - a block with a hash is one of that hash's copies.
    """

    def __init__(self, num_gpu_blocks: int) -> None:
        self.usable = num_gpu_blocks - 1
        self.frees = 0  # how often blocks came back: while it stands still, there are no more free blocks than before
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_gpu_blocks))  # next to go first
        self._refs = [0] * num_gpu_blocks
        self._hashes: list[int | None] = [None] * num_gpu_blocks
        self._first: dict[int, int] = {}
        self._copies: dict[int, list[int]] = {}
        self._events: list[Event] = []

    @property
    def free(self) -> int:
        """Blocks that no request holds, cached or not."""
        return len(self._free)

    def cached(self) -> dict[int, int]:
        """The true cache: copies by hash."""
        return {hash_: 1 + len(self._copies.get(hash_, ())) for hash_ in self._first}

    def has(self, hash_: int) -> bool:
        """Whether a lookup would hit this hash."""
        return hash_ in self._first

    def lookup(self, hashes: Sequence[int], limit: int) -> list[int]:
        """The blocks of the longest cached prefix of `hashes`, at most `limit`."""
        blocks: list[int] = []
        get = self._first.get
        for hash_ in islice(hashes, limit):
            block = get(hash_)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def unheld(self, blocks: Iterable[int]) -> int:
        """How many of these blocks are in the free queue: taking them uses up free blocks."""
        refs = self._refs
        return sum(1 for block in blocks if not refs[block])

    def touch(self, blocks: Iterable[int]) -> None:
        """Hold blocks that a lookup gave."""
        refs, free = self._refs, self._free
        for block in blocks:
            if not refs[block]:
                del free[block]
            refs[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Hold `count` blocks from the head of the free queue; cached ones are evicted.

        There must be as many: the caller has looked at `free`.
        """
        popitem, refs, hashes, copies = self._free.popitem, self._refs, self._hashes, self._copies
        blocks: list[int] = []
        evicted: list[int] = []
        for _ in range(count):
            block, _ = popitem(last=False)
            refs[block] = 1
            hash_ = hashes[block]
            if hash_ is not None:
                hashes[block] = None
                evicted.append(hash_)
                if hash_ in copies:
                    self._forget_copy(block, hash_)
                else:
                    del self._first[hash_]
            blocks.append(block)
        if evicted:
            self._events.append(Removed(evicted))
        return blocks

    def cache(
        self, request_id: str, first: int, blocks: Sequence[int], hashes: Sequence[int], parent: int | None
    ) -> None:
        """Make full blocks findable. A hash that is cached already gets one more copy."""
        by_hash, block_hashes = self._first, self._hashes
        for block, hash_ in zip(blocks, hashes, strict=True):
            block_hashes[block] = hash_
            if by_hash.setdefault(hash_, block) != block:
                self._copies.setdefault(hash_, []).append(block)
        self.report(request_id, first, hashes, parent)

    def report(self, request_id: str, first: int, hashes: Sequence[int], parent: int | None) -> None:
        """Tell of stored blocks without storing any."""
        self._events.append(Stored(request_id, first, hashes, parent))

    def release(self, blocks: Sequence[int]) -> None:
        """A request gives its blocks back, deepest first.

        Blocks without a hash go to the front of the free queue, cached ones to its end, so that the least recently
        used go first and a prefix outlives what was built on it (vLLM 0.24 and later).
        """
        refs, hashes, free = self._refs, self._hashes, self._free
        unhashed: list[int] = []
        for block in reversed(blocks):
            refs[block] -= 1
            if not refs[block]:
                free[block] = None
                if hashes[block] is None:
                    unhashed.append(block)
        for block in reversed(unhashed):
            free.move_to_end(block, last=False)
        self.frees += 1

    def reset(self) -> bool:
        """Drop the cache; only where no request holds a block, else False and nothing changes."""
        if len(self._free) != self.usable:
            return False
        self._first.clear()
        self._copies.clear()
        self._hashes = [None] * len(self._hashes)
        self._events.append(Cleared())
        return True

    def take_events(self) -> Sequence[Event]:
        """What happened since the last call, in order."""
        if not self._events:
            return ()
        events, self._events = self._events, []
        return events

    def check(self) -> None:
        """Assert the invariants; for tests."""
        assert set(self._free) == {block for block in range(1, self.usable + 1) if not self._refs[block]}
        copies = {hash_: [first, *self._copies.get(hash_, ())] for hash_, first in self._first.items()}
        assert self._copies.keys() <= self._first.keys()
        assert all(self._copies.values())
        held = {(block, hash_) for block, hash_ in enumerate(self._hashes) if hash_ is not None}
        assert held == {(block, hash_) for hash_, blocks in copies.items() for block in blocks}

    def _forget_copy(self, block: int, hash_: int) -> None:
        others = self._copies[hash_]
        if self._first[hash_] == block:
            self._first[hash_] = others.pop(0)
        else:
            others.remove(block)
        if not others:
            del self._copies[hash_]
