"""The ready endpoints as columns: what a decision reads of the registry, without a call for each of 256 endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

from multipick_epp.types import Endpoint


@dataclass(frozen=True, slots=True)
class Columns:
    """One row an endpoint. The registry keeps the lists true in place; a decision only reads them."""

    endpoints: Sequence[Endpoint]
    unexplained_queued: list[int]
    unexplained_in_flight: list[int]
    waiting: list[float]
    running: list[float]
    kv_usage: list[float]
    picked: list[int]  # requests that this picker sent there since the last scrape
    unscraped: set[Endpoint]  # those without any gauges yet

    def only(self, rows: Sequence[int]) -> "Columns":
        """A copy of some rows."""
        endpoints = [self.endpoints[row] for row in rows]
        return Columns(
            endpoints,
            [self.unexplained_queued[row] for row in rows],
            [self.unexplained_in_flight[row] for row in rows],
            [self.waiting[row] for row in rows],
            [self.running[row] for row in rows],
            [self.kv_usage[row] for row in rows],
            [self.picked[row] for row in rows],
            self.unscraped.intersection(endpoints),
        )
