"""Optimistic entries: prompts that were routed, before any event says that their blocks were stored."""

from collections.abc import Collection, Iterable, Sequence
from heapq import heappop, heappush

from multipick_epp.state.mirror import Mirror
from multipick_epp.types import BlockKey

EXPECTED_AT_MOST = 500_000
"""Keys, about 100 MB; beyond it the prompts with the nearest deadline are given up."""


class OptimisticEntries:
    """Sets bits in the mirror and takes them back at a deadline, unless the engine confirmed them.

    Invariant: `_pending[bit]` has the keys, with their deadlines, whose bit is set by an expectation alone.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._pending: dict[int, dict[BlockKey, float]] = {}
        self._prompts: list[tuple[float, int, int, Sequence[BlockKey]]] = []  # a heap: deadline, turn, bit, keys
        self._turn = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def of(self, bit: int) -> Collection[BlockKey]:
        """The keys that count as held by this cache although the engine has not told of them."""
        return self._pending.get(bit, {}).keys()

    def add(self, bit: int, keys: Sequence[BlockKey], deadline: float) -> None:
        """Count `keys` as held until `deadline` (seconds of the clock that `expire` is called with)."""
        pending = self._pending.setdefault(bit, {})
        mask = self._mirror.mask
        ours = [key for key in keys if key in pending or not mask(key) & bit]
        self._size -= len(pending)
        for key in ours:
            pending[key] = max(deadline, pending.get(key, deadline))
        self._size += len(pending)
        self._mirror.store(bit, ours)
        self._turn += 1
        heappush(self._prompts, (deadline, self._turn, bit, ours))
        while self._size > EXPECTED_AT_MOST:
            self._give_up(float("inf"))

    def settle(self, bit: int, keys: Iterable[BlockKey]) -> None:
        """The engine told of `keys`: their bits are no longer ours."""
        pending = self._pending.get(bit)
        if not pending:
            return
        for key in keys:
            if pending.pop(key, None) is not None:
                self._size -= 1

    def forget(self, bit: int) -> None:
        """The cache is void, or its bit another's."""
        self._size -= len(self._pending.pop(bit, ()))

    def expire(self, now: float) -> None:
        """Take back what no event has confirmed in time."""
        while self._prompts and self._prompts[0][0] <= now:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        _, _, bit, keys = heappop(self._prompts)
        pending = self._pending.get(bit)
        if pending is None:
            return
        late = [key for key in keys if key in pending and pending[key] <= now]
        for key in late:
            del pending[key]
        self._size -= len(late)
        self._mirror.remove(bit, late)
