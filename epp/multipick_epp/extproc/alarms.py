"""Alarms that all wait equally long, of which nearly all are called off: one timer of the loop for them all.

To set a timer of the loop and take it back costs a hundredth of a request.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

log = logging.getLogger(__name__)

_SOON_S = 0.001
"""Timers of the loop are as exact as this, and may be early."""
_STOOD_STILL_S = 0.1
"""Later than this rings no timer of a process that runs. One that was stopped looks at its timers first, then at
what was to be done by then: that gets as long."""


class Alarms:
    """Of one event loop. Whoever was set first is the first to ring, so the timer is that one's, or earlier."""

    __slots__ = ("_after_s", "_armed", "_due", "_rings_at", "_spared")

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._armed = False
        self._rings_at = 0.0  # the timer, as it was set
        self._spared = False  # it rang late, and was set once more
        self._due: dict[Callable[[], None], float] = {}  # the oldest first

    def set(self, ring: Callable[[], None]) -> None:
        """Call it once, `after_s` from now."""
        self._due[ring] = monotonic() + self._after_s
        if not self._armed:
            self._arm(self._after_s)

    def off(self, ring: Callable[[], None]) -> None:
        """Don't."""
        self._due.pop(ring, None)

    def _arm(self, seconds: float) -> None:
        self._armed = True
        seconds = max(seconds, _SOON_S)
        self._rings_at = monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        now = monotonic()
        self._spared = now - self._rings_at > _STOOD_STILL_S and not self._spared
        if self._spared:
            self._arm(_STOOD_STILL_S)
            return
        while self._due:
            ring, due = next(iter(self._due.items()))
            if due > now:
                self._arm(due - now)
                return
            del self._due[ring]
            try:
                ring()
            except Exception:  # it must not keep the others from ringing
                log.exception("what was to be done at an alarm failed")
        self._armed = False
