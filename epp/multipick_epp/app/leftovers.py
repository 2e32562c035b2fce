"""Endpoints that the shared state knows and the pool no longer has: pods that were deleted while no picker ran.

Whoever sees a pod go drops it. Of one that nobody saw go, only a comparison tells.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

LOOK_S = 10.0
LOOKS = 3
"""What so many looks in a row find in the state alone is dropped: pickers learn of a new pod within less."""


class Leftovers:
    """Compares again and again."""

    def __init__(
        self,
        known: Callable[[], Collection[Endpoint]],
        pool: Callable[[], Collection[Endpoint] | None],
        drop: Callable[[Endpoint], Awaitable[None]],
    ) -> None:
        """`known` to the state; `pool`: those that there are, None while that is not known for sure."""
        self._known = known
        self._pool = pool
        self._drop = drop
        self._looks: dict[Endpoint, int] = {}

    async def follow(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Compare once."""
        pool = self._pool()
        if pool is None:
            self._looks.clear()
            return
        strangers = set(self._known()).difference(pool)
        self._looks = {endpoint: self._looks.get(endpoint, 0) + 1 for endpoint in strangers}
        for endpoint, looks in list(self._looks.items()):
            if looks >= LOOKS:
                del self._looks[endpoint]
                log.info("endpoint forgotten: the pool has none such", extra={"endpoint": endpoint})
                await self._drop(endpoint)
