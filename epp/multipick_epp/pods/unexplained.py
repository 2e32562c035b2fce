"""Load on an engine that no reservation explains: requests that bypass the pickers, or that a gateway sent itself.

The engine's gauges and our counters are read at slightly different times, and gauges move once an engine step, so a
difference at one scrape means little. What two scrapes in a row both show is taken as real.
"""

from dataclasses import dataclass

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.types import Load


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Requests and prompt tokens to add to an endpoint's reserved load, and the surplus that the last scrape showed."""

    in_flight: int = 0
    queued_tokens: int = 0
    surplus: int = 0


def unexplained(
    before: Unexplained, gauges: Gauges, load: Load, tokens_a_request: float, most: int | None = None
) -> Unexplained:
    """What `gauges` show beyond `load`, `most` requests at most, as far as the scrape before agrees.

    Of the unexplained requests those that wait have their prompt still queued; its size is unknown, so the pool's mean
    of new tokens a request stands in.
    """
    surplus = round(gauges.waiting + gauges.running) - load.in_flight
    surplus = max(0, surplus if most is None else min(surplus, most))
    confirmed = min(surplus, before.surplus)
    waiting = min(confirmed, round(gauges.waiting))
    return Unexplained(confirmed, round(waiting * tokens_a_request), surplus)
