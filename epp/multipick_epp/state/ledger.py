"""Reservations and what they add up to: the rules of charging, which the Redis scripts follow, too."""

import itertools
from collections.abc import Callable, Sequence, Set
from operator import add
from typing import NamedTuple

from multipick_epp.state.load_table import LoadTable, columns_of
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt, LoadColumns, Reserved
from multipick_epp.types import NO_LOAD, Endpoint, Load, ReservationId


class Charge(NamedTuple):
    """What one reservation adds to an endpoint: one request, and these tokens."""

    endpoint: Endpoint
    queued_tokens: int
    context_tokens: int = 0  # 0: not accounted for

    @property
    def load(self) -> Load:
        """The same as a load: not prefilled, as far as that is accounted for, while it has tokens queued."""
        _, queued, context = self
        return Load(queued, 1, context, 1 if context and queued else 0)

    @property
    def end(self) -> Load:
        """What its release changes."""
        _, queued, context = self
        return Load(-queued, -1, -context, -1 if context and queued else 0)


def cheapest(candidates: Candidates, loads: Sequence[Load], context: Context | None = None) -> int:
    """The candidate with the smallest score, the first of equals; see `State.reserve` for the formulae.

    Raises ValueError where there are no candidates.
    """
    if not candidates.endpoints:
        raise ValueError("no candidates")
    none = itertools.repeat(0)
    queued, in_flight = candidates.unexplained_queued or none, candidates.unexplained_in_flight or none
    rows = zip(loads, candidates.new_tokens, queued, in_flight, strict=False)
    if context is None or context.marginal is None:
        scores: Sequence[float] = [
            (load.queued_tokens + elsewhere + new) * (load.in_flight + others + 1)
            for load, new, elsewhere, others in rows
        ]
    else:
        length, (price, least_traffic) = context.prompt_tokens, context.marginal
        scores = [
            (load.queued_tokens + elsewhere + new * price)
            * (load.context_tokens + (load.in_flight + 2 * others + 1) * length + least_traffic)
            for load, new, elsewhere, others in rows
        ]
    return scores.index(min(scores))


def with_equal_prompt(candidates: Candidates, equal_prompt: EqualPrompt, holders: Set[Endpoint]) -> Candidates:
    """The candidates as they are now that some, the `holders`, hold the prompt."""
    if not holders:
        return candidates
    again = equal_prompt.new_tokens
    pairs = zip(candidates.endpoints, candidates.new_tokens, strict=True)
    return candidates._replace(new_tokens=[min(new, again) if each in holders else new for each, new in pairs])


class Ledger:
    """Invariants: the load of an endpoint is the sum of the charges on it (and, where `loads` was read from a store
    that others charge, too, of theirs, as far as that is known: hence the lower bound of 0). `_table` says the same.
    """

    def __init__(self) -> None:
        self.charges: dict[ReservationId, Charge] = {}
        self.loads: dict[Endpoint, Load] = {}
        self._table = LoadTable((), self.loads)
        self._asked_before: Sequence[Endpoint] = ()

    def load(self, endpoint: Endpoint) -> Load:
        """What the charges on `endpoint` add up to."""
        return self.loads.get(endpoint, NO_LOAD)

    def loads_of(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """The same of many, in their order."""
        return [*map(self.loads.get, endpoints, itertools.repeat(NO_LOAD))]

    def columns(self, endpoints: Sequence[Endpoint]) -> LoadColumns:
        """The same of many. A table is made for those that come again: others are one request's alone."""
        if endpoints is not self._table.endpoints:
            before, self._asked_before = self._asked_before, endpoints
            if endpoints is not before:
                return columns_of(endpoints, self.loads)
            self._table = LoadTable(endpoints, self.loads)
        return self._table.columns()

    def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        loads_of: Callable[[Sequence[Endpoint]], Sequence[Load]],
        context: Context | None = None,
    ) -> Reserved:
        """Charge the cheapest candidate. A known reservation keeps its endpoint, if that is a candidate still.

        Raises ValueError where there are no candidates.
        """
        if stays := self.stays(reservation, candidates):
            return stays
        self.release(reservation)
        loads = loads_of(candidates.endpoints)
        index = cheapest(candidates, loads, context)
        endpoint, new_tokens = candidates.endpoints[index], candidates.new_tokens[index]
        self.charge(reservation, Charge(endpoint, new_tokens, context.prompt_tokens if context else 0))
        return Reserved(index, new_tokens, without_contexts(loads[index]))

    def stays(self, reservation: ReservationId, candidates: Candidates) -> Reserved | None:
        """Where a known reservation is charged, if that is a candidate."""
        known = self.charges.get(reservation)
        if known is None or known.endpoint not in candidates.endpoints:
            return None
        index = candidates.endpoints.index(known.endpoint)
        return Reserved(index, candidates.new_tokens[index], without_contexts(self.load(known.endpoint)))

    def charge(self, reservation: ReservationId, charge: Charge) -> None:
        """Note a charge; it replaces what was noted of the reservation."""
        if reservation in self.charges:
            self.release(reservation)
        self.charges[reservation] = charge
        self._add(charge.endpoint, charge.load)

    def progress(self, reservation: ReservationId, queued_tokens: int) -> Load | None:
        """Lower a reservation's tokens; by what its endpoint's load changes, None where it does not."""
        charge = self.charges.get(reservation)
        if charge is None or queued_tokens >= charge.queued_tokens:
            return None
        return self.recharge(reservation, queued_tokens)

    def recharge(self, reservation: ReservationId, queued_tokens: int) -> Load | None:
        """Lower or raise a reservation's tokens; by what its endpoint's load changes, None where it does not."""
        charge = self.charges.get(reservation)
        after = max(0, queued_tokens)
        if charge is None or charge.queued_tokens == after:
            return None
        endpoint, before, context_tokens = charge
        self.charges[reservation] = Charge(endpoint, after, context_tokens)
        change = Load(after - before, 0, 0, (after > 0) - (before > 0) if context_tokens else 0)
        self._add(endpoint, change)
        return change

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> Charge | None:
        """Charge another endpoint instead; the charge that was, None where there was none or nothing changes."""
        charge = self.charges.get(reservation)
        if charge is None or charge.endpoint == endpoint:
            return None
        self.charge(reservation, charge._replace(endpoint=endpoint))
        return charge

    def release(self, reservation: ReservationId) -> Charge | None:
        """Forget a reservation; the charge that was."""
        charge = self.charges.pop(reservation, None)
        if charge is not None:
            self._add(charge.endpoint, charge.end)
        return charge

    def drop(self, endpoint: Endpoint) -> Load:
        """Forget an endpoint's load and all reservations there; what these had charged."""
        there = [each for each, charge in self.charges.items() if charge.endpoint == endpoint]
        self.loads.pop(endpoint, None)
        self._table.put(endpoint, NO_LOAD)
        return Load(*map(sum, zip(NO_LOAD, *[self.charges.pop(each).load for each in there], strict=True)))

    def _add(self, endpoint: Endpoint, change: Load) -> None:
        load = Load(*map(add, self.loads.get(endpoint, NO_LOAD), change))
        if min(load) < 0:
            load = Load(*[max(0, figure) for figure in load])
        if load == NO_LOAD:
            self.loads.pop(endpoint, None)
        else:
            self.loads[endpoint] = load
        self._table.put(endpoint, load)


def negative(change: Load) -> Load:
    """What takes it back."""
    queued_tokens, in_flight, context_tokens, prefilling = change
    return Load(-queued_tokens, -in_flight, -context_tokens, -prefilling)


def without_contexts(load: Load) -> Load:
    """What `Reserved` tells of it."""
    return Load(load.queued_tokens, load.in_flight)
