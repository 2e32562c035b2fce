"""What may be written to an endpoint's slots, by epoch and sequence: the rules that the Redis scripts follow, too.

- Only `begin` and `replace` make an epoch known. A delta of an older epoch is stale; of one that isn't known it is a
  gap, and nothing is written.
- A delta is a duplicate if the slot has seen all its batches. A delta with `last` = `first` - 1 is a part of a larger
  one: it is written, and advances nothing, so that a writer that dies between two parts leaves no hole.
- Batches are missing if a delta starts after the batch that follows the last one that any slot of the endpoint saw.
"""

from dataclasses import dataclass, field

from multipick_epp.state.protocol import Applied, Slot
from multipick_epp.state.slots import SLOTS_AT_MOST


@dataclass(slots=True)
class Fence:
    """One endpoint's epoch and sequences. `base` is the sequence of a slot that isn't in `slots`."""

    epoch: int
    last: int = -1
    base: int = -1
    slots: dict[Slot, int] = field(default_factory=dict)

    def delta(self, slot: Slot, epoch: int, first: int, last: int) -> Applied:
        """May this delta be written? If so it counts as written."""
        if epoch != self.epoch:
            return Applied.STALE if epoch < self.epoch else Applied.GAP
        seen = self.slots.get(slot, self.base)
        if first <= seen and last <= seen:
            return Applied.DUPLICATE
        if slot not in self.slots and len(self.slots) >= SLOTS_AT_MOST:
            return Applied.REFUSED
        gap = first > self.last + 1
        self.slots[slot] = max(seen, last)
        self.last = max(self.last, last)
        return Applied.GAP if gap else Applied.NEW

    def clear(self, epoch: int, seq: int, medium: str | None) -> tuple[Applied, list[Slot]]:
        """The caches were emptied in batch `seq`: what to answer, and the slots to empty."""
        if epoch != self.epoch:
            return (Applied.STALE if epoch < self.epoch else Applied.GAP), []
        emptied = [slot for slot, seen in self.slots.items() if medium in (None, slot.medium) and seen < seq]
        if not emptied and seq <= self.last:
            return Applied.DUPLICATE, []
        gap = seq > self.last + 1
        for slot in emptied:
            self.slots[slot] = seq - 1  # what the same batch stored afterwards is still to come
        self.last = max(self.last, seq)
        return (Applied.GAP if gap else Applied.NEW), emptied
