"""What is charged within one turn of the loop goes to the store as one call of `lua/turn.lua`, in order.

One at a time, the calls themselves would cost the store and us a third as much again as what is done in them. What
is no reserve, which nobody waits for, waits up to `LATER_S` for one to go with, or `ALONE_S` where nobody hears it.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast

from multipick_epp.state.ledger import Charge
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt, Reserved
from multipick_epp.state.redis.connection import LATER_S, Argument, Connection
from multipick_epp.state.redis.keys import HINT_ENTRIES
from multipick_epp.state.redis.scripts import Script
from multipick_epp.types import BlockKey, Endpoint, ReservationId

STEPS_A_CALL: Final = 64
"""At most: the store does nothing else meanwhile, for about a millisecond."""
ALONE_S: Final = 0.025
"""While no other replica has a lease: as old as other replicas' charges may be for one that has company."""
_NO_EQUAL_PROMPT: Final = ("", 0)

Outcome = tuple[int, int, int]
"""The winner's place, its new tokens, and its load before the charge as the store writes it: see `lua/common.lua`."""


class Reserve(NamedTuple):
    """A reserve that waits for its outcome."""

    reservation: ReservationId
    candidates: Candidates
    context: Context | None
    reserved: asyncio.Future[Reserved]

    def charged(self, outcome: Outcome) -> Charge:
        """What it has charged in the store."""
        winner, new_tokens, _ = outcome
        return Charge(self.candidates.endpoints[winner], new_tokens, self.context.prompt_tokens if self.context else 0)


class Turns:
    """The steps on one connection. Invariant: `_steps` are still to be sent, `_reserves` wait for those among them that
    are reserves, in order; a flush is under way if there are any: at the end of this turn (`_soon`), or at `_due`.
    """

    def __init__(
        self,
        connection: Connection,
        script: Script,
        keys: tuple[Argument, ...],
        taken: Callable[[Reserve, Outcome], Reserved],
        given_up: Callable[[Charge], None],
    ) -> None:
        """`keys` as the script wants them. `taken` makes of an outcome what its reserve gets, `given_up` is told what
        one has charged that nobody waits for: both in the order of the store's replies, when these come.
        """
        self._connection = connection
        self._call = script.command(keys)
        self.taken = taken
        self.given_up = given_up
        self._loop = asyncio.get_running_loop()
        self.company = asyncio.Event()
        """Set while there may be other replicas. Cleared by who knows that there are none."""
        self.company.set()
        self._steps: list[tuple[Argument, ...]] = []
        self._changes: dict[str, int] = {}  # the places of those behind the last reserve: of a field there is one
        self._reserves: list[Reserve] = []
        self._soon = False
        self._due = 0.0
        self._timed = False  # a timer will look whether anything is due

    def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None,
        context: Context | None = None,
    ) -> asyncio.Future[Reserved]:
        """Charge the cheapest candidate; the future raises `LostError`."""
        step = reserve_step(candidates, equal_prompt, context)
        reserved: asyncio.Future[Reserved] = self._loop.create_future()
        self._reserves.append(Reserve(reservation, candidates, context, reserved))
        self._changes.clear()
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self.flush)
        self._add(step)
        return reserved

    def change(self, field: str, figure: int) -> None:
        """Change what this replica charges by so much; see `figures.fields_of`."""
        place = self._changes.get(field)
        if place is not None:
            _, _, before = self._steps[place]
            self._steps[place] = ("change", field, cast("int", before) + figure)
            return
        if not self._steps:
            self._let_wait()
        self._changes[field] = len(self._steps)
        self._add(("change", field, figure))

    def hint(self, *fields: Argument) -> None:
        """Tell every replica: kinds and records in turn."""
        if not self._steps:
            self._let_wait()
        self._add(("hint", HINT_ENTRIES, len(fields), *fields))

    def withdraw(self, prompt: BlockKey, endpoint: Endpoint) -> None:
        """An equal prompt that went to this endpoint won't be computed there."""
        if not self._steps:
            self._let_wait()
        self._add(("withdraw", prompt, endpoint))

    def flush(self) -> None:
        """Send the steps now, not at the end of the turn."""
        self._soon = False
        if self._steps:
            steps, reserves = self._steps, self._reserves
            self._steps, self._reserves = [], []
            self._changes.clear()
            arguments = [argument for step in steps for argument in step]
            self._connection.ask(_Reply(self, reserves), *self._call, *arguments)
            self._connection.flush()

    def _let_wait(self) -> None:
        """What comes now, the first of the steps, may wait for a reserve. One timer serves all that come and leave."""
        self._due = self._loop.time() + (LATER_S if self.company.is_set() else ALONE_S)
        if not self._timed:
            self._timed = True
            self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timed = False
        if self._steps and self._loop.time() < self._due:  # others than those that the timer was set for
            self._timed = True
            self._loop.call_at(self._due, self._look)
        else:
            self.flush()

    def _add(self, step: tuple[Argument, ...]) -> None:
        self._steps.append(step)
        if len(self._steps) == STEPS_A_CALL:
            self.flush()


def reserve_step(
    candidates: Candidates, equal_prompt: EqualPrompt | None, context: Context | None = None
) -> tuple[Argument, ...]:
    """The arguments of a reserve, as the script wants them."""
    endpoints, new_tokens, queued, in_flight = candidates
    prompt, again = equal_prompt or _NO_EQUAL_PROMPT
    count = len(endpoints)
    figures = struct.pack(f"<{count + 1}d", *new_tokens, again)
    explained = struct.pack(f"<{2 * count}d", *queued, *in_flight) if queued else b""
    return "reserve", figures, "\0".join(endpoints) + "\0", prompt, explained, _packed(context) if context else b""


def _packed(context: Context) -> bytes:
    price, least_traffic = context.marginal or (0, 0.0)
    return struct.pack("<3d", context.prompt_tokens, price, least_traffic)


class _Reply:
    """Waits for the reply of a call, and gives each reserve its part of it."""

    def __init__(self, turns: Turns, reserves: Sequence[Reserve]) -> None:
        self._turns = turns
        self._reserves = reserves

    def done(self) -> bool:
        return False

    def set_result(self, figures: Sequence[int]) -> None:
        turns = self._turns
        triples = zip(*[iter(figures)] * 3, strict=True)
        for reserve, triple in zip(self._reserves, triples, strict=True):
            if set(map(type, triple)) != {int} or not 0 <= triple[0] < len(reserve.candidates.endpoints):
                raise ValueError("no outcome of a reserve")
            if reserve.reserved.done():
                turns.given_up(reserve.charged(triple))
            else:
                reserve.reserved.set_result(turns.taken(reserve, triple))

    def set_exception(self, error: BaseException) -> None:
        for reserve in self._reserves:
            if not reserve.reserved.done():
                reserve.reserved.set_exception(error)
                reserve.reserved.exception()  # whoever waited may have been cancelled in this turn: no fault to log
