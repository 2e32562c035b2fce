"""How many tokens an answer probably had, where nobody tells: an engine gives each request that it runs one a step.

How fast it steps is in its own counters: tokens generated, over the requests that it ran meanwhile.
"""

from dataclasses import dataclass

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.types import Endpoint

MAX_TOKENS = 1 << 18
"""Of an answer; whatever an engine says of itself."""
DECAY = 0.8
"""Of what was seen, a look: the last five or so count, some seconds."""


@dataclass(slots=True)
class _Seen:
    at_s: float
    generated: float
    running: float
    tokens: float = 0.0  # sums over looks, decayed
    request_seconds: float = 0.0


class StepRates:
    """Tokens a second that each engine gives a request, by its address."""

    def __init__(self) -> None:
        self._seen: dict[Endpoint, _Seen] = {}

    def looked(self, address: Endpoint, gauges: Gauges, now_s: float) -> None:
        """Its metrics came, at `now_s` (seconds, monotonic)."""
        before = self._seen.get(address)
        seen = self._seen[address] = _Seen(now_s, gauges.generated, gauges.running)
        if before is None:
            return
        seen.tokens, seen.request_seconds = before.tokens, before.request_seconds
        # Who ran nothing at either look says nothing of how fast it steps; who counts from 0 again is another.
        if before.running >= 1 and gauges.running >= 1 and gauges.generated > before.generated:
            ran = (before.running + gauges.running) / 2 * (now_s - before.at_s)
            seen.tokens = DECAY * before.tokens + gauges.generated - before.generated
            seen.request_seconds = DECAY * before.request_seconds + ran

    def gone(self, address: Endpoint) -> None:
        """It left the pool."""
        self._seen.pop(address, None)

    def tokens(self, address: Endpoint, seconds: float) -> int | None:
        """What it gives a request in so many seconds, one token at least; None while nothing is known of it."""
        seen = self._seen.get(address)
        if seen is None or not seen.request_seconds:
            return None
        return min(max(1, round(seconds * seen.tokens / seen.request_seconds)), MAX_TOKENS)
