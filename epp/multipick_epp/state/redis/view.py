"""This process's view of the loads of all replicas: as last read from the store, and what we did since."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from multipick_epp.state.ledger import Ledger
from multipick_epp.state.redis.figures import change_of, fields_of
from multipick_epp.types import Endpoint, Load

_NOTHING: Final[Mapping[str, int]] = {}


class View(Ledger):
    """A ledger whose loads have the charges of the other replicas in them, too.

    The answer to a question tells how things were when the question came. So what the store is told after a question
    is noted (`told`), and done again to the answer. What the store itself did and told us before it answered, the
    answer knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told_since: list[tuple[Endpoint, Load]] | None = None  # None while no question is open

    def asked(self) -> None:
        """The store is asked for the loads; it has been sent all that we did so far."""
        self._told_since = []

    def told(self, endpoint: Endpoint, change: Load) -> None:
        """We changed a load by so much, and tell the store."""
        if self._told_since is not None:
            self._told_since.append((endpoint, change))

    def read(self, loads: Mapping[Endpoint, Load], missing: Mapping[str, int] = _NOTHING) -> None:
        """The answer to the last question; by `missing` of our charges it was wrong, and is put right."""
        self._begin_with(loads)
        for field, number in missing.items():
            self._add(*change_of(field, number))
        for endpoint, change in self._told_since or ():
            self._add(endpoint, change)
        self._told_since = None

    def missing(self, recorded: Mapping[str, int]) -> Mapping[str, int]:
        """By how much each of these fields, which the store has of our charges, was wrong at the last question."""
        ours = Counter[str]()
        for charge in self.charges.values():
            for field, number in fields_of(charge.endpoint, charge.load):
                ours[field] += number
        for endpoint, change in self._told_since or ():
            for field, number in fields_of(endpoint, change):
                ours[field] -= number
        ours.subtract(recorded)
        return {field: number for field, number in ours.items() if number}

    def forget_others(self) -> None:
        """Leave our own charges alone."""
        self._begin_with({})
        for charge in self.charges.values():
            self._add(charge.endpoint, charge.load)

    def _begin_with(self, loads: Mapping[Endpoint, Load]) -> None:
        self.loads = dict(loads)
        self._table.fill(self.loads)
