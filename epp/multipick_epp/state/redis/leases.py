"""Who is alive, by the renewals that were seen: no clock but the observer's own decides."""

from collections.abc import Mapping
from typing import Final

ALIVE_S: Final = 1.5
"""An owner that was not seen to renew its lease for so long is not there. It renews four times a second, and we look
twice; one that leaves is followed by another within this time.
"""
LOOKED_AWAY_S: Final = 2.5
"""Leases are looked at once a second. Whoever did not look for so long knows nothing of what happened meanwhile."""


class Leases:
    """Watches the stamps that each lease has. What a stamp says does not matter, only that its owner changes it: so a
    store whose clock jumps, or a stamp that somebody wrote by hand, keeps nobody alive and kills nobody.
    """

    def __init__(self) -> None:
        self.renewed: set[bytes] = set()
        """Those whose stamp was seen to change while we looked. The others may be anybody's, or nobody's."""
        self.at_first: frozenset[bytes] = frozenset()
        """Those that were there when we began to look, of which nothing can be known yet."""
        self._since: dict[bytes, tuple[bytes, float]] = {}  # name -> stamp, when it was first seen
        self._looked_s = float("-inf")

    def see(self, stamps: Mapping[bytes, bytes], now: float) -> Mapping[bytes, float]:
        """The leases as they are `now` (seconds, monotonic); how long each has not been renewed while we looked."""
        if now - self._looked_s > LOOKED_AWAY_S:
            self._since.clear()
            self.renewed.clear()
            self.at_first = frozenset(stamps)
        self._looked_s = now
        before = self._since
        self.renewed &= stamps.keys()
        self.renewed |= {name for name, stamp in stamps.items() if name in before and before[name][0] != stamp}
        self._since = {
            name: before[name] if name in before and before[name][0] == stamp else (stamp, now)
            for name, stamp in stamps.items()
        }
        return {name: now - since for name, (_, since) in self._since.items()}

    def alive(self, before: Mapping[bytes, float], now: float) -> dict[bytes, float]:
        """When each was last seen to renew its lease, by `before` and since; nobody for whom that is ALIVE_S ago."""
        renewed = {name: max(self._since[name][1], before.get(name, float("-inf"))) for name in self.renewed}
        return {name: at for name, at in {**before, **renewed}.items() if now - at < ALIVE_S}
