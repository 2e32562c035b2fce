"""Reservations and what they add up to: the rules of charging, which the Redis scripts follow, too."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from multipick_epp.state.protocol import Candidate, EqualPrompt, Reserved
from multipick_epp.types import BlockKey, Endpoint, Load, ReservationId

NO_LOAD = Load()


class Charge(NamedTuple):
    """What one reservation adds to an endpoint: one request, and these tokens."""

    endpoint: Endpoint
    queued_tokens: int


def cheapest(candidates: Sequence[Candidate], loads: Sequence[Load]) -> int:
    """The candidate with the smallest (queued + new) x (in flight + 1), the first of equals.

    Raises ValueError where there are no candidates.
    """
    if not candidates:
        raise ValueError("no candidates")
    scores = [
        (load.queued_tokens + each.unexplained_queued + each.new_tokens)
        * (load.in_flight + each.unexplained_in_flight + 1)
        for each, load in zip(candidates, loads, strict=True)
    ]
    return scores.index(min(scores))


def with_equal_prompt(
    candidates: Sequence[Candidate], equal_prompt: EqualPrompt, holds: Callable[[Endpoint, BlockKey], bool]
) -> Sequence[Candidate]:
    """The candidates as they are now that some hold the prompt."""
    return [
        each._replace(new_tokens=equal_prompt.new_tokens)
        if each.new_tokens > equal_prompt.new_tokens and holds(each.endpoint, equal_prompt.key)
        else each
        for each in candidates
    ]


class Ledger:
    """Invariant: the load of an endpoint is the sum of the charges on it (and, where `loads` was read from a store that
    others charge, too, of theirs, as far as that is known: hence the lower bound of 0).
    """

    def __init__(self) -> None:
        self.charges: dict[ReservationId, Charge] = {}
        self.loads: dict[Endpoint, Load] = {}

    def load(self, endpoint: Endpoint) -> Load:
        """What the charges on `endpoint` add up to."""
        return self.loads.get(endpoint, NO_LOAD)

    def reserve(
        self, reservation: ReservationId, candidates: Sequence[Candidate], load: Callable[[Endpoint], Load]
    ) -> Reserved:
        """Charge the cheapest candidate. A known reservation keeps its endpoint, if that is a candidate still.

        Raises ValueError where there are no candidates.
        """
        if stays := self.stays(reservation, candidates):
            return stays
        self.release(reservation)
        loads = [load(each.endpoint) for each in candidates]
        index = cheapest(candidates, loads)
        chosen = candidates[index]
        self.charge(reservation, Charge(chosen.endpoint, chosen.new_tokens))
        return Reserved(index, chosen.new_tokens, loads[index])

    def stays(self, reservation: ReservationId, candidates: Sequence[Candidate]) -> Reserved | None:
        """Where a known reservation is charged, if that is a candidate."""
        known = self.charges.get(reservation)
        if known is None:
            return None
        places = (index for index, each in enumerate(candidates) if each.endpoint == known.endpoint)
        index = next(places, None)
        return None if index is None else Reserved(index, candidates[index].new_tokens, self.load(known.endpoint))

    def charge(self, reservation: ReservationId, charge: Charge) -> None:
        """Note a charge; it replaces what was noted of the reservation."""
        if reservation in self.charges:
            self.release(reservation)
        self.charges[reservation] = charge
        self._add(charge.endpoint, charge.queued_tokens, 1)

    def progress(self, reservation: ReservationId, queued_tokens: int) -> int:
        """Lower a reservation's tokens; the change, which is not above 0."""
        charge = self.charges.get(reservation)
        if charge is None or queued_tokens >= charge.queued_tokens:
            return 0
        return self.recharge(reservation, queued_tokens)

    def recharge(self, reservation: ReservationId, queued_tokens: int) -> int:
        """Lower or raise a reservation's tokens; the change."""
        charge = self.charges.get(reservation)
        if charge is None:
            return 0
        tokens = max(0, queued_tokens)
        change = tokens - charge.queued_tokens
        self.charges[reservation] = Charge(charge.endpoint, tokens)
        self._add(charge.endpoint, change, 0)
        return change

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> Charge | None:
        """Charge another endpoint instead; the charge that was, None where there was none or nothing changes."""
        charge = self.charges.get(reservation)
        if charge is None or charge.endpoint == endpoint:
            return None
        self.charge(reservation, Charge(endpoint, charge.queued_tokens))
        return charge

    def release(self, reservation: ReservationId) -> Charge | None:
        """Forget a reservation; the charge that was."""
        charge = self.charges.pop(reservation, None)
        if charge is not None:
            self._add(charge.endpoint, -charge.queued_tokens, -1)
        return charge

    def drop(self, endpoint: Endpoint) -> Load:
        """Forget an endpoint's load and all reservations there; what these had charged."""
        there = [each for each, charge in self.charges.items() if charge.endpoint == endpoint]
        queued_tokens = sum(self.charges.pop(each).queued_tokens for each in there)
        self.loads.pop(endpoint, None)
        return Load(queued_tokens, len(there))

    def _add(self, endpoint: Endpoint, queued_tokens: int, in_flight: int) -> None:
        queued_before, in_flight_before = self.loads.get(endpoint, NO_LOAD)
        load = Load(max(0, queued_before + queued_tokens), max(0, in_flight_before + in_flight))
        if load == NO_LOAD:
            self.loads.pop(endpoint, None)
        else:
            self.loads[endpoint] = load
