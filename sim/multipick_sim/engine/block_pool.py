"""The blocks of the KV cache: who holds them, which are cached, and which goes next (vLLM `v1/core/block_pool.py`)."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

from multipick_sim.engine.values import Cleared, Event, Removed, Stored


class BlockPool:
    """Blocks 1 … num_gpu_blocks - 1; block 0 is vLLM's null block and is never handed out.

    Free blocks are handed out in this order: first the blank ones (without a hash), of which the last to come back goes
    first, then the idle ones (cached, and held by nobody), of which the first to come back does.

    Invariants, which `check` asserts:
    - a block is blank, idle or held; `_further` counts the holders beyond the first of those that have several;
    - `_first` holds, for each cached hash, the copy that was inserted first, and `_copies` the others, oldest first;
    - a block with a hash is one of that hash's copies.
    """

    def __init__(self, num_gpu_blocks: int) -> None:
        self.usable = num_gpu_blocks - 1
        self.frees = 0  # how often blocks came back: while it stands still, there are no more free blocks than before
        self._blank = list(range(self.usable, 0, -1))  # the next to go last
        self._idle: OrderedDict[int, None] = OrderedDict()  # the next to go first
        self._further: dict[int, int] = {}
        self._hashes: list[int | None] = [None] * num_gpu_blocks
        self._first: dict[int, int] = {}
        self._copies: dict[int, list[int]] = {}
        self._events: list[Event] = []

    @property
    def free(self) -> int:
        """Blocks that no request holds, cached or not."""
        return len(self._blank) + len(self._idle)

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
        """How many of these blocks, which a lookup gave, nobody holds: taking them uses up free blocks."""
        return sum(map(self._idle.__contains__, blocks))

    def touch(self, blocks: Iterable[int]) -> None:
        """Hold blocks that a lookup gave."""
        idle, further = self._idle, self._further
        for block in blocks:
            if block in idle:
                del idle[block]
            else:
                further[block] = further.get(block, 0) + 1

    def allocate(self, count: int) -> list[int]:
        """Hold the next `count` free blocks; cached ones are evicted.

        There must be as many: the caller has looked at `free`.
        """
        blank = self._blank
        kept = max(0, len(blank) - count)
        blocks = blank[kept:]
        blocks.reverse()
        del blank[kept:]
        if len(blocks) < count:
            blocks += self._evict(count - len(blocks))
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

        Those without a hash, which are its last and no other request's, are the next to be handed out; cached ones wait
        behind all others, so that the least recently used go first and a prefix outlives what was built on it (vLLM
        0.24 and later).
        """
        hashes, idle, further = self._hashes, self._idle, self._further
        cached = len(blocks)
        while cached and hashes[blocks[cached - 1]] is None:
            cached -= 1
        self._blank += blocks[cached:]
        for block in reversed(blocks[:cached]):
            if block in further:
                self._leave_to_others(block)
            else:
                idle[block] = None
        self.frees += 1

    def reset(self) -> bool:
        """Drop the cache; only where no request holds a block, else False and nothing changes."""
        if self.free != self.usable:
            return False
        self._blank = [*reversed(self._idle), *self._blank]
        self._idle.clear()
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
        apart = [*self._blank, *self._idle, *self._further]
        assert len(apart) == len(set(apart))
        assert all(self._hashes[block] is None for block in self._blank)
        assert all(self._hashes[block] is not None for block in (*self._idle, *self._further))
        assert all(self._further.values())
        copies = {hash_: [first, *self._copies.get(hash_, ())] for hash_, first in self._first.items()}
        assert self._copies.keys() <= self._first.keys()
        assert all(self._copies.values())
        held = {(block, hash_) for block, hash_ in enumerate(self._hashes) if hash_ is not None}
        assert held == {(block, hash_) for hash_, blocks in copies.items() for block in blocks}

    def _evict(self, count: int) -> list[int]:
        idle, hashes, first, copies = self._idle, self._hashes, self._first, self._copies
        blocks = list(islice(idle, count))
        assert len(blocks) == count, "there were not as many"
        evicted: list[int] = []
        for block in blocks:
            del idle[block]
            hash_ = hashes[block]
            assert hash_ is not None, "idle blocks are cached"
            hashes[block] = None
            evicted.append(hash_)
            if hash_ in copies:
                self._forget_copy(block, hash_)
            else:
                del first[hash_]
        self._events.append(Removed(evicted))
        return blocks

    def _forget_copy(self, block: int, hash_: int) -> None:
        others = self._copies[hash_]
        if self._first[hash_] == block:
            self._first[hash_] = others.pop(0)
        else:
            others.remove(block)
        if not others:
            del self._copies[hash_]

    def _leave_to_others(self, block: int) -> None:
        self._further[block] -= 1
        if not self._further[block]:
            del self._further[block]
