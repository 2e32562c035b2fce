"""How popular each prefix of a prompt is among the last requests: for the hotspot guard, and for DualMap's keys."""

from collections import deque
from collections.abc import Sequence

from multipick_epp.policy.snapshot import Prefixes

WINDOW = 1000
"""Requests that a share is counted over."""
DEPTHS = tuple(1 << power for power in range(11))
"""Blocks of the prefixes that are counted: 1, 2, 4 … 1,024, and the whole prompt. Two prompts that part between two
depths differ from there on, so a prefix is found that is at least half as long as the one they share."""


class Popularity:
    """Counts the prefixes of the last `WINDOW` prompts; memory for `WINDOW * (len(DEPTHS) + 1)` keys at most.

    Invariant: `_counts` counts the keys in `_window`, and has no others.
    """

    def __init__(self) -> None:
        self._window: deque[Sequence[int]] = deque()
        self._counts: dict[int, int] = {}

    def count(self, keys: Sequence[int], block_size: int) -> Prefixes:
        """Count one prompt by the keys of its full blocks; its prefixes, counted with this prompt."""
        counts = self._counts
        length = len(keys)
        depths = (*DEPTHS[: (length - 1).bit_length()], length) if length else ()
        counted = [keys[depth - 1] for depth in depths]
        self._window.append(counted)
        for key in counted:
            counts[key] = counts.get(key, 0) + 1
        if len(self._window) > WINDOW:
            for key in self._window.popleft():
                count = counts[key] - 1
                if count:
                    counts[key] = count
                else:
                    del counts[key]
        tokens = [depth * block_size for depth in depths]
        return Prefixes(tokens, counted, [counts[key] for key in counted], len(self._window))

    def __len__(self) -> int:
        """Requests that the shares are of."""
        return len(self._window)

    def holds(self, key: int) -> bool:
        """Whether any of the last requests had this prefix."""
        return key in self._counts
