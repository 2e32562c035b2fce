"""Optimistic entries: prompts that were routed, before any event says that their blocks were stored."""

from collections.abc import Collection, Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from multipick_epp.state.mirror import Mirror
from multipick_epp.types import BlockKey, ReservationId

EXPECTED_AT_MOST = 500_000
"""Keys, about 100 MB; beyond it the prompts with the nearest deadline are given up."""


class _Prompt(NamedTuple):
    bit: int
    keys: Sequence[BlockKey]
    deadline: float
    owner: ReservationId | None


class OptimisticEntries:
    """Sets bits in the mirror and takes them back at a deadline, or when no prompt expects them any more, unless the
    engine confirmed them.

    Invariants: `_pending[bit]` has the keys whose bit is set by an expectation alone, with the numbers of the prompts
    that expect them; these are in `_prompts`. `_owned` has the numbers of an owner's prompts.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._pending: dict[int, dict[BlockKey, tuple[int, ...]]] = {}
        self._prompts: dict[int, _Prompt] = {}
        self._deadlines: list[tuple[float, int]] = []  # a heap; numbers of prompts that were withdrawn may be in it
        self._owned: dict[ReservationId, list[int]] = {}
        self._numbers = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def of(self, bit: int) -> Collection[BlockKey]:
        """The keys that count as held by this cache although the engine has not told of them."""
        return self._pending.get(bit, {}).keys()

    def add(self, bit: int, keys: Sequence[BlockKey], deadline: float, owner: ReservationId | None = None) -> None:
        """Count `keys` as held until `deadline` (seconds of the clock that `expire` is called with), or until `owner`
        withdraws them. A key that several prompts expect counts as long as one of them does.
        """
        self._numbers += 1
        number = self._numbers
        alone = (number,)  # one object for all keys
        pending = self._pending.setdefault(bit, {})
        size = len(pending)
        new = self._mirror.store(bit, keys)
        shared = [key for key in keys if key in pending] if len(new) < len(keys) else ()
        for key in shared:
            pending[key] = (*pending[key], number)
        pending |= dict.fromkeys(new, alone)
        self._size += len(pending) - size
        ours = [key for key in keys if key in pending] if shared else new
        self._prompts[number] = _Prompt(bit, ours, deadline, owner)
        heappush(self._deadlines, (deadline, number))
        if owner is not None:
            self._owned.setdefault(owner, []).append(number)
        while self._size > EXPECTED_AT_MOST:
            self._give_up(heappop(self._deadlines)[1])

    def share(self, bit: int, other: int) -> None:
        """What is expected of `bit` is from now on of `other` as well."""
        pending = self._pending.get(bit, {})
        for number in sorted({number for numbers in pending.values() for number in numbers}):
            if prompt := self._prompts.get(number):  # else it was given up for one of those before
                keys = [key for key in prompt.keys if number in pending.get(key, ())]
                self.add(other, keys, prompt.deadline, prompt.owner)

    def withdraw(self, owner: ReservationId) -> Sequence[BlockKey]:
        """The owner's prompts will not be computed: what none else expects is not held. Returns all that it expected
        and the engine did not confirm.
        """
        withdrawn: dict[BlockKey, None] = {}
        for number in tuple(self._owned.get(owner, ())):
            withdrawn |= dict.fromkeys(self._give_up(number))
        return list(withdrawn)

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

    def expire(self, now: float) -> int:
        """Take back what no event has confirmed in time. Returns how many keys."""
        size = self._size
        while self._deadlines and self._deadlines[0][0] <= now:
            self._give_up(heappop(self._deadlines)[1])
        return size - self._size

    def _give_up(self, number: int) -> Sequence[BlockKey]:
        """The prompt expects nothing any more. Returns what it still expected."""
        prompt = self._prompts.pop(number, None)
        if prompt is None:
            return ()
        bit, keys, _, owner = prompt
        if owner is not None:
            self._owned[owner].remove(number)
            if not self._owned[owner]:
                del self._owned[owner]
        pending = self._pending.get(bit)
        if pending is None:  # forgotten: the bit is perhaps no cache's any more
            return ()
        expected: list[BlockKey] = []
        alone: list[BlockKey] = []
        for key in keys:
            numbers = pending.get(key)
            if numbers is None or number not in numbers:
                continue
            expected.append(key)
            if others := [each for each in numbers if each != number] if len(numbers) > 1 else ():
                pending[key] = tuple(others)
            else:
                del pending[key]
                alone.append(key)
        self._size -= len(alone)
        self._mirror.remove(bit, alone)
        return expected
