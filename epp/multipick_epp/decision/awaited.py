"""Which prompts wait for which blocks of one endpoint."""

from collections.abc import Collection, Iterable, Mapping

from multipick_epp.types import BlockKey, ReservationId


class Awaited:
    """Nearly every block is waited for by one prompt alone: hundreds of those come and go in one step.

    Invariant: a block is in `_alone` where one prompt waits for it, in `_shared` where several do, else in neither.
    """

    __slots__ = ("_alone", "_shared")

    def __init__(self) -> None:
        self._alone: dict[BlockKey, ReservationId] = {}
        self._shared: dict[BlockKey, set[ReservationId]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._alone or self._shared)

    def of(self, key: BlockKey) -> Collection[ReservationId]:
        """Who waits for the block."""
        alone = self._alone.get(key)
        return self._shared.get(key, ()) if alone is None else (alone,)

    def leading(self, keys: Iterable[BlockKey]) -> int:
        """How many of the first of `keys` somebody waits for."""
        count = 0
        for key in keys:
            if key not in self._alone and key not in self._shared:
                break
            count += 1
        return count

    def add(self, reservation: ReservationId, keys: Mapping[BlockKey, object]) -> None:
        """It waits for these, too, and for none of them yet."""
        alone, shared = self._alone, self._shared
        if alone.keys().isdisjoint(keys) and shared.keys().isdisjoint(keys):
            alone.update(dict.fromkeys(keys, reservation))
            return
        for key in keys:
            if key in shared:
                shared[key].add(reservation)
            elif key in alone:
                shared[key] = {alone.pop(key), reservation}
            else:
                alone[key] = reservation

    def remove(self, reservation: ReservationId, keys: Iterable[BlockKey]) -> None:
        """It waits for these no more, and waited for each."""
        alone, shared = self._alone, self._shared
        for key in keys:
            if key in alone:
                del alone[key]
                continue
            others = shared[key]
            others.remove(reservation)
            if len(others) == 1:
                alone[key] = others.pop()
                del shared[key]
