"""How many tokens an answer probably had, where nobody tells: an engine gives each request that it runs one a step.

How fast it steps is in its own metrics: tokens generated, over the requests that it ran meanwhile. Requests shorter
than the time between two looks are seen by chance, and so as often as is right in the long run.
"""

from dataclasses import dataclass

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.types import Endpoint

MAX_TOKENS = 1 << 18
"""Of an answer; whatever an engine says of itself."""
DECAY = 0.98
"""Of what was seen before, a look: about the last 50 count, half a minute."""
LEAST_REQUEST_SECONDS = 0.2
"""A rate is made of so much at least."""


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
        if before is None or gauges.generated < before.generated:
            return  # who counts from 0 again is another engine
        ran = (before.running + gauges.running) / 2 * (now_s - before.at_s)
        made = gauges.generated - before.generated
        decay = DECAY if ran or made else 1.0  # who does nothing forgets nothing
        seen.tokens = decay * before.tokens + made
        seen.request_seconds = decay * before.request_seconds + ran

    def gone(self, address: Endpoint) -> None:
        """It left the pool."""
        self._seen.pop(address, None)

    def tokens(self, address: Endpoint, seconds: float) -> int | None:
        """What it gives a request in so many seconds, one token at least; where it is new, what the others do.

        None while nothing is known.
        """
        own = self._seen.get(address)
        counted = [own] if own and own.request_seconds >= LEAST_REQUEST_SECONDS else self._seen.values()
        made, ran = sum(each.tokens for each in counted), sum(each.request_seconds for each in counted)
        if not made or ran < LEAST_REQUEST_SECONDS:
            return None
        return min(max(1, round(seconds * made / ran)), MAX_TOKENS)
