"""The hotspot guard at work: it counts the prefixes of live requests, tells of hot ones and keeps requests out of them.

Each picker counts the requests that it sees, a fair sample of all, and the holders that the shared index names: pickers
agree on a class without telling each other.
"""

import logging
from collections.abc import Callable, Sequence
from random import Random
from time import monotonic

import msgspec

from multipick_epp.blocks import Chains
from multipick_epp.policy.hotspot import Hotspot, HotspotGuard, without
from multipick_epp.policy.popularity import Popularity
from multipick_epp.policy.snapshot import NO_PREFIXES, Prefixes, Ranking, Snapshot
from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

SHOWN = 32
"""Hot classes that are told of at a time, the latest; what is done about the others is the same."""
LOG_EVERY_S = 10.0


class HotPrefix(msgspec.Struct, frozen=True):
    """A prefix of which more is asked than its holders' part of the pool."""

    prefix: str  # hexadecimal block key: equal ones are equal prefixes
    tokens: int
    share: float  # of the last requests, 0..1
    endpoints: Sequence[Endpoint]  # that hold it


class Hotspots:
    """Invariant: `_told` has at most `SHOWN` classes."""

    def __init__(self, guards: bool, began: Callable[[], None], kept_out: Callable[[], None]) -> None:
        """`guards`: whether rankings are changed. `began` is told of each class that becomes hot, `kept_out` of each
        request that is kept out of a class's holders.
        """
        self._popularity = Popularity()
        self._guard = HotspotGuard(self._popularity)
        self._guards = guards
        self._began = began
        self._kept_out = kept_out
        self._told: dict[int, HotPrefix] = {}
        self._logged_s = float("-inf")

    @property
    def hot(self) -> Sequence[HotPrefix]:
        """Classes that were hot when they were last asked for."""
        return [told for key, told in self._told.items() if self._guard.is_watched(key)]

    def prefixes(self, chains: Chains) -> Prefixes:
        """Count a request by its prompt; its prefixes."""
        by_size = chains.by_size
        size = min(by_size, default=0)
        return self._popularity.count(by_size[size], size) if size else NO_PREFIXES

    def guarded(self, snapshot: Snapshot, ranking: Ranking, rng: Random) -> tuple[Ranking, Hotspot | None]:
        """The ranking to go by, and the hot class that this request is kept out of, if it is."""
        found = self._guard.watch(snapshot, ranking) if self._guards else None
        if found is None:
            return ranking, None
        if found.began:
            self._tell(snapshot, found)
        if not found.avoid:
            return ranking, None
        others = without(ranking, found, rng)
        if not others.rows:
            return ranking, None
        self._kept_out()
        return others, found

    def _tell(self, snapshot: Snapshot, found: Hotspot) -> None:
        self._began()
        holders = [snapshot.endpoints[row] for row in found.holder_rows]
        told = HotPrefix(f"{found.key:015x}", found.tokens, round(found.share, 4), holders)
        self._told.pop(found.key, None)
        self._told[found.key] = told
        if len(self._told) > SHOWN:
            del self._told[next(iter(self._told))]
        if (now_s := monotonic()) - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            log.warning("a prefix is hot", extra=msgspec.structs.asdict(told))
