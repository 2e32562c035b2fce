"""This process's view of the loads of all replicas: as last read from the store, and what we did since."""

from collections import Counter
from collections.abc import Mapping

from multipick_epp.state.ledger import Ledger
from multipick_epp.state.redis.figures import figure, figure_of
from multipick_epp.types import Endpoint, Load


class View(Ledger):
    """A ledger whose loads have the charges of the other replicas in them, too.

    The answer to a question tells how things were when the question came. So what the store is told after a question
    is noted (`told`), and done again to the answer. What the store itself did and told us before it answered, the
    answer knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told_since: list[tuple[Endpoint, int, int]] | None = None  # None while no question is open

    def asked(self) -> None:
        """The store is asked for the loads; it has been sent all that we did so far."""
        self._told_since = []

    def told(self, endpoint: Endpoint, queued_tokens: int, in_flight: int) -> None:
        """We changed a load by so much, and tell the store."""
        if self._told_since is not None:
            self._told_since.append((endpoint, queued_tokens, in_flight))

    def read(self, loads: Mapping[Endpoint, Load]) -> None:
        """The answer to the last question."""
        self.loads = dict(loads)
        for change in self._told_since or ():
            self._add(*change)
        self._told_since = None

    def missing(self, recorded: Mapping[Endpoint, int]) -> Mapping[Endpoint, int]:
        """By how much each of these figures, which the store has of our charges, was wrong at the last question."""
        ours = Counter[Endpoint]()
        for charge in self.charges.values():
            ours[charge.endpoint] += figure_of(charge)
        for endpoint, queued_tokens, in_flight in self._told_since or ():
            ours[endpoint] -= figure(queued_tokens, in_flight)
        ours.subtract(recorded)
        return {endpoint: change for endpoint, change in ours.items() if change}

    def forget_others(self) -> None:
        """Leave our own charges alone."""
        self.loads = {}
        for charge in self.charges.values():
            self._add(charge.endpoint, charge.queued_tokens, 1)
