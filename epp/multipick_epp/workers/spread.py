"""Which worker gets a connection, and when one has too many.

A gateway opens few connections and keeps them: Envoy one a worker thread, over which all its requests go. So they are
dealt out, not left to chance: by the kernel's choice among several listeners all may end at one. And since they stay,
what has become uneven (a worker that was started again has none) is put right: a peer is asked to come again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

UNEVEN_S: Final = 3.0
"""So long the workers' connections have to differ before one is moved, and between two moves."""
_UNEVEN: Final = 2  # connections with requests that the most loaded has beyond the least loaded


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker has of the picker's connections."""

    worker: int
    busy: int  # that requests come on, or may: new ones too
    connections: int
    turn: int  # when it was given one last

    @property
    def order(self) -> tuple[int, int, int]:
        """The smallest is given the next one."""
        return self.busy, self.connections, self.turn


def by_turn(shares: Sequence[Share]) -> list[int]:
    """The workers, who is to get the next connection first."""
    return [share.worker for share in sorted(shares, key=lambda share: share.order)]


class Balance:
    """Sees to it that connections with requests stay spread."""

    def __init__(self) -> None:
        self._since: float | None = None  # they have been uneven

    def overloaded(self, shares: Sequence[Share], now: float) -> int | None:
        """The worker that is to let one go, if any."""
        if len(shares) < 2:
            self._since = None
            return None
        most, least = max(shares, key=lambda each: each.busy), min(shares, key=lambda each: each.busy)
        if most.busy - least.busy < _UNEVEN:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < UNEVEN_S:
            return None
        self._since = now
        return most.worker
