"""What may be written to an endpoint's caches, by epoch and sequence: the rules that the Redis scripts follow, too.

- An epoch is one owner's tenure: only `take_over` begins one, under another number than any before. What is written
  under another epoch than the fence's is stale. Where there is no fence it is a gap, and nothing is written.
- A delta is a duplicate if the cache has seen all its batches. A delta with `last` = `first` - 1 is a part of a larger
  one: it is written, and advances nothing, so that a writer that dies between two parts leaves no hole.
- Batches are missing if a delta starts after the batch that follows the last one that any cache of the endpoint saw.
"""

from dataclasses import dataclass, field

from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.protocol import Applied


@dataclass(slots=True)
class Fence:
    """One endpoint's epoch and sequences. `base` is the sequence of a cache that isn't in `caches`."""

    epoch: int
    last: int = -1
    base: int = -1
    caches: dict[Cache, int] = field(default_factory=dict)

    def delta(self, cache: Cache, epoch: int, first: int, last: int) -> Applied:
        """May this delta be written? If so it counts as written."""
        if epoch != self.epoch:
            return Applied.STALE
        seen = self.caches.get(cache, self.base)
        if first <= seen and last <= seen:
            return Applied.DUPLICATE
        if cache not in self.caches and len(self.caches) >= CACHES_AT_MOST:
            return Applied.REFUSED
        gap = first > self.last + 1
        self.caches[cache] = max(seen, last)
        self.last = max(self.last, last)
        return Applied.GAP if gap else Applied.NEW

    def clear(self, epoch: int, seq: int, medium: str | None) -> tuple[Applied, list[Cache]]:
        """The caches were emptied in batch `seq`: what to answer, and the caches to empty."""
        if epoch != self.epoch:
            return Applied.STALE, []
        emptied = [cache for cache, seen in self.caches.items() if medium in (None, cache.medium) and seen < seq]
        if not emptied and seq <= self.last:
            return Applied.DUPLICATE, []
        gap = seq > self.last + 1
        for cache in emptied:
            self.caches[cache] = seq - 1  # what the same batch stored afterwards is still to come
        self.last = max(self.last, seq)
        return (Applied.GAP if gap else Applied.NEW), emptied
