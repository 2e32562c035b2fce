"""What an endpoint caches as its events tell, and how deep it holds a prompt: the index, for a pool of plain caches.

The picker's own index (`multipick_epp.state`) has one mirror of 60-bit keys for all endpoints, made for many endpoints
and for lookups in microseconds; a run of a trace makes twenty million changes and is faster with a set an endpoint. A
test holds both to the same hits.
"""

from collections.abc import Sequence

from multipick_sim.engine.values import Cleared, Event, Removed, Stored


class Residency:
    """Blocks of one endpoint.

    Invariants: `_held` are the blocks with one copy at least, `_extra` counts the copies beyond the first. Engines free
    a chain's tail before its head, so whoever holds a block holds all before it; hence the bisection in `depth`.
    """

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._extra: dict[int, int] = {}

    def apply(self, events: Sequence[Event]) -> None:
        """What one step of the engine told, in order."""
        for event in events:
            match event:
                case Stored(hashes=hashes):
                    for again in self._held.intersection(hashes):
                        self._extra[again] = self._extra.get(again, 0) + 1
                    self._held.update(hashes)
                case Removed(hashes=hashes):
                    self._remove(hashes)
                case Cleared():
                    self._held.clear()
                    self._extra.clear()

    def depth(self, keys: Sequence[int], limit: int) -> int:
        """How many of the first `limit` keys are held, from the first on."""
        held = self._held
        if not limit or keys[0] not in held:
            return 0
        if keys[limit - 1] in held:
            return limit
        low, high = 1, limit  # invariant: the first `low` are held, block `high` is not
        while high - low > 1:
            middle = (low + high) // 2
            if keys[middle - 1] in held:
                low = middle
            else:
                high = middle
        return low

    def _remove(self, hashes: Sequence[int]) -> None:
        extra = self._extra
        if not extra or extra.keys().isdisjoint(hashes):
            self._held.difference_update(hashes)
            return
        for each in hashes:
            copies = extra.get(each, 0)
            if not copies:
                self._held.discard(each)
            elif copies == 1:
                del extra[each]
            else:
                extra[each] = copies - 1
