"""Sleeps that end together: what wakes up alone finds none of its code in the nearest caches, and takes two to three
times as long (bench/README.md).
"""

import asyncio
import itertools
from heapq import heappop, heappush


class Together:
    """Of one event loop. Invariant: a timer is set for the first of `_sleepers`, or earlier, where there are any."""

    def __init__(self, at_once: int, early_s: float) -> None:
        """So many end together, each so much before its time at most: those that come again do so together."""
        self._at_once = at_once
        self._early_s = early_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []  # a heap, by when they are due
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # the timer's time, where there is one; uvloop's handles don't always know it

    async def sleep(self, seconds: float) -> None:
        """For so long, or less."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        woken: asyncio.Future[None] = loop.create_future()
        heappush(self._sleepers, (until, next(self._numbers), woken))
        self._set_timer(loop)
        await woken

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        due = self._sleepers[0][0]
        if self._timer is None or due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = loop.call_at(due, self._wake, loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        until, left = loop.time() + self._early_s, self._at_once
        while self._sleepers and left and self._sleepers[0][0] <= until:
            _, _, woken = heappop(self._sleepers)
            if not woken.done():  # cancelled
                woken.set_result(None)
                left -= 1
        if self._sleepers:
            self._set_timer(loop)
