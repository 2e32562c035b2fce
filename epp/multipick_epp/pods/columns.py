"""The ready endpoints as columns: what a decision reads of the registry, without a call for each of 256 endpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from multipick_epp.types import Endpoint, address_of, rank_of


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
    unscraped: set[Endpoint]  # those without gauges, or with old ones
    ports: Mapping[Endpoint, Sequence[int]] = field(default_factory=dict)  # rows of each port with several ranks

    def still(self) -> "Columns":
        """With gauges and picks as they are now: later scrapes and picks, this very one first, don't change them."""
        waiting, running, kv_usage = map(list.copy, (self.waiting, self.running, self.kv_usage))
        return replace(self, waiting=waiting, running=running, kv_usage=kv_usage, picked=self.picked.copy())

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
            ports_of(endpoints) if self.ports else {},
        )


def ports_of(endpoints: Sequence[Endpoint]) -> Mapping[Endpoint, Sequence[int]]:
    """Where the ranks of each port are among these."""
    ports: dict[Endpoint, list[int]] = {}
    for row, endpoint in enumerate(endpoints):
        if rank_of(endpoint) is not None:
            ports.setdefault(address_of(endpoint), []).append(row)
    return ports
