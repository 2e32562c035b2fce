"""Compares the mirror with the store's sets, one endpoint after the other, and loads again what differs.

The log alone keeps a mirror true, as long as all of it is read and played. Here nobody asks what may have gone wrong.
"""

import logging
from collections import Counter
from collections.abc import Callable, Set
from typing import Final, NamedTuple

from multipick_epp.state.cache import Cache
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Argument, Connection
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.scripts import load
from multipick_epp.state.redis.sets import Sets
from multipick_epp.state.stats import StateStats
from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

AGAIN_S: Final = 60.0
"""An endpoint is loaded again at most so often: what we can't read, or have no room for, differs for ever."""


class Counted(NamedTuple):
    """How many blocks the store has of an endpoint, as of an entry of the log."""

    endpoint: Endpoint
    at: bytes
    blocks: Counter[Cache]  # of caches that have any


class Comparison:
    """The mirror may be compared with what was counted when it is at that very entry of the log."""

    def __init__(self, keys: Keys, index: LocalIndex, stats: StateStats, clock: Callable[[], float]) -> None:
        self.script = load("count", reads=True)
        self._keys = keys
        self._index = index
        self._stats = stats
        self._clock = clock
        self._counted: Counted | None = None
        self._differs: Endpoint | None = None
        self._rests_until: dict[Endpoint, float] = {}
        self._last = Endpoint("")

    async def go_on(self, connection: Connection, sets: Sets, endpoints: Set[Endpoint]) -> None:
        """Load what differed, and count the next of these endpoints. Raises `LostError`."""
        if (endpoint := self._differs) is not None:
            self._differs = None
            self._rests_until[endpoint] = self._clock() + AGAIN_S
            if await sets.load(endpoint, if_whole=True):
                self._stats.repairs += 1
                log.warning("the index was not what the store has: loaded again", extra={"endpoint": endpoint})
        now = self._clock()
        self._rests_until = {each: until for each, until in self._rests_until.items() if until > now}
        waiting = endpoints - self._rests_until.keys()
        self._counted = None
        if waiting:
            self._last = min((each for each in waiting if each > self._last), default=min(waiting))
            self._counted = await self._count(connection, sets, self._last)

    def reached(self, position: bytes) -> None:
        """The mirror is as the log was at this entry."""
        counted = self._counted
        if counted is not None and counted.at == position:
            self._counted = None
            if counted.blocks != self._index.blocks_by_cache(counted.endpoint):
                self._differs = counted.endpoint

    async def _count(self, connection: Connection, sets: Sets, endpoint: Endpoint) -> Counted | None:
        """None where nothing can be said: the owner will see to it."""
        names = [(cache, name) for cache, names in (await sets.caches(endpoint)).items() for name in names]
        if not names:
            return None
        keys: tuple[Argument, ...] = (self._keys.log, *(self._keys.blocks(name) for _, name in names))
        at, *members = replies.at_least(await connection.read(*self.script.command(keys)), len(keys))
        blocks = Counter[Cache]()
        for (cache, _), count in zip(names, members, strict=False):
            if replies.number(count) < 1:  # a set that is whole has its empty member at least
                return None
            blocks[cache] += count - 1
        return Counted(endpoint, replies.identity(at), +blocks)
