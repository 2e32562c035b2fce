"""This process's view of the loads of all replicas: as last read from the store, and what we did since."""

from collections.abc import Mapping, Sequence

from multipick_epp.state.ledger import NO_LOAD
from multipick_epp.types import Endpoint, Load

Change = tuple[int, int, int]  # its number; queued tokens and requests in flight, more or less


class View:
    """A reply of the store tells how things were when it was written: without what we sent after the question.

    Invariant: `_sent` has, oldest first, each endpoint's changes that were sent since the question of the last whole
    reading; the newest of all is number `number`. Note it where a question is sent: the answer wants it as `mark`.
    """

    def __init__(self) -> None:
        self.loads: dict[Endpoint, Load] = {}
        self.number = 0
        self._sent: dict[Endpoint, list[Change]] = {}

    def sends(self, endpoint: Endpoint, queued_tokens: int, in_flight: int) -> None:
        """We change a load, and tell the store of it now, after all questions so far."""
        self.number += 1
        self._sent.setdefault(endpoint, []).append((self.number, queued_tokens, in_flight))
        self.shift(endpoint, queued_tokens, in_flight)

    def shift(self, endpoint: Endpoint, queued_tokens: int, in_flight: int) -> None:
        """A load has changed, in the store, too. The view may lag what is taken from it, hence the lower bound."""
        queued_before, in_flight_before = self.loads.get(endpoint, NO_LOAD)
        self.loads[endpoint] = Load(max(0, queued_before + queued_tokens), max(0, in_flight_before + in_flight))

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint is gone."""
        self.loads.pop(endpoint, None)

    def read(self, mark: int, loads: Mapping[Endpoint, Load]) -> None:
        """The store told of all endpoints; questions that are asked before this one have been answered."""
        self.loads = dict(loads)
        later = {endpoint: [one for one in own if one[0] > mark] for endpoint, own in self._sent.items()}
        self._sent = {endpoint: own for endpoint, own in later.items() if own}
        for endpoint in self._sent:
            self._repeat(endpoint, mark)

    def read_some(self, mark: int, endpoints: Sequence[Endpoint], loads: Sequence[Load]) -> None:
        """The store told of these endpoints."""
        self.loads.update(zip(endpoints, loads, strict=True))
        sent = self._sent
        for endpoint in endpoints:
            if endpoint in sent and sent[endpoint][-1][0] > mark:
                self._repeat(endpoint, mark)

    def _repeat(self, endpoint: Endpoint, mark: int) -> None:
        for number, queued_tokens, in_flight in self._sent[endpoint]:
            if number > mark:
                self.shift(endpoint, queued_tokens, in_flight)
