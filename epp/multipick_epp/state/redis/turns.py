"""What is charged within one turn of the loop goes to the store as one call of `lua/turn.lua`, in order.

One at a time, the calls themselves would cost the store and us a third as much again as what is done in them.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

from multipick_epp.state.ledger import Charge
from multipick_epp.state.protocol import Candidate, EqualPrompt
from multipick_epp.state.redis.connection import Argument, Connection
from multipick_epp.state.redis.scripts import Script
from multipick_epp.types import ReservationId

STEPS_A_CALL: Final = 64
"""At most: the store does nothing else meanwhile, for about a millisecond."""
_NO_EQUAL_PROMPT: Final = ("", 0)

Outcome = tuple[int, int, int]
"""The winner's place, its new tokens, and its load before the charge as the store writes it: see `lua/common.lua`."""


class Turns:
    """The steps on one connection. Invariant: `_steps` are still to be sent, `_reserves` wait for those among them that
    are reserves, in order; a flush is under way if there are any.
    """

    def __init__(self, connection: Connection, script: Script, keys: tuple[Argument, ...]) -> None:
        """`keys` as the script wants them."""
        self._connection = connection
        self._script = script
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._steps: list[tuple[Argument, ...]] = []
        self._reserves: list[asyncio.Future[Outcome]] = []

    def reserve(
        self, reservation: ReservationId, candidates: Sequence[Candidate], equal_prompt: EqualPrompt | None
    ) -> asyncio.Future[Outcome]:
        """Charge the cheapest candidate; the future raises `LostError`."""
        step = reserve_step(reservation, candidates, equal_prompt)
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._reserves.append(outcome)
        self._add(*step)
        return outcome

    def charge(self, reservation: ReservationId, charge: Charge) -> None:
        """Make the reservation's charge this one."""
        self._add("charge", reservation, charge.endpoint, charge.queued_tokens)

    def release(self, reservation: ReservationId | bytes) -> None:
        """Take the reservation's charge back, if there is one."""
        self._add("release", reservation)

    def flush(self) -> None:
        """Send the steps now, not at the end of the turn."""
        if self._steps:
            steps, reserves = self._steps, self._reserves
            self._steps, self._reserves = [], []
            arguments = [argument for step in steps for argument in step]
            self._connection.ask(_Reserves(reserves), *self._script.command(self._keys, *arguments))
            self._connection.flush()

    def _add(self, *step: Argument) -> None:
        if not self._steps:
            self._loop.call_soon(self.flush)
        self._steps.append(step)
        if len(self._steps) == STEPS_A_CALL:
            self.flush()


def reserve_step(
    reservation: ReservationId, candidates: Sequence[Candidate], equal_prompt: EqualPrompt | None
) -> tuple[Argument, ...]:
    """The arguments of a reserve, as the script wants them."""
    endpoints, new_tokens, queued, in_flight = zip(*candidates, strict=True)
    prompt, again = equal_prompt or _NO_EQUAL_PROMPT
    count = len(endpoints)
    figures = struct.pack(f"<{count + 1}d", *new_tokens, again)
    unexplained = any(queued) or any(in_flight)
    explained = struct.pack(f"<{2 * count}d", *queued, *in_flight) if unexplained else b""
    return "reserve", reservation, figures, "\0".join(endpoints) + "\0", prompt, explained


class _Reserves:
    """Waits for the reply of a call, and gives each reserve its part of it."""

    def __init__(self, outcomes: Sequence[asyncio.Future[Outcome]]) -> None:
        self._outcomes = outcomes

    def done(self) -> bool:
        return False

    def set_result(self, figures: Sequence[int]) -> None:
        triples = zip(*[iter(figures)] * 3, strict=True)
        for outcome, triple in zip(self._outcomes, triples, strict=True):
            if not outcome.done():
                outcome.set_result(triple)

    def set_exception(self, error: BaseException) -> None:
        for outcome in self._outcomes:
            if not outcome.done():
                outcome.set_exception(error)
