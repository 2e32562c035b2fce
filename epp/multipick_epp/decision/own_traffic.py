"""What of live requests goes to the capture: nothing before the pick, and little on its way."""

import time
from dataclasses import dataclass

from multipick_epp.blocks import Chains
from multipick_epp.capture.answers import StepRates
from multipick_epp.capture.lines import Told
from multipick_epp.capture.writer import Capture, Taken
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.extproc.pick import Ended
from multipick_epp.types import Endpoint, ReservationId, address_of


@dataclass(slots=True)
class _Watched:
    taken: Taken
    since_s: float  # monotonic: its prefill was over, or it was picked
    output_tokens: int | None = None  # as the engine told


class OwnTraffic:
    """Invariant: `_watched` has the reservations that were picked, are to be captured, and are not over."""

    def __init__(self, capture: Capture, rates: StepRates) -> None:
        self._capture = capture
        self._rates = rates
        self._watched: dict[ReservationId, _Watched] = {}

    def picked(self, reservation: ReservationId, prompt: Known | Blind) -> None:
        """A request with a body goes to an endpoint."""
        known = isinstance(prompt, Known) and prompt.reads_cache
        chains = prompt.chains if known and isinstance(prompt, Known) else [Chains(prompt.prompt_tokens)]
        taken = self._capture.take(chains, prompt.turn if isinstance(prompt, Known) else None)
        if taken is not None:
            self._watched[reservation] = _Watched(taken, time.monotonic())

    def prefilled(self, reservation: ReservationId) -> None:
        """Its answer begins."""
        if watched := self._watched.get(reservation):
            watched.since_s = time.monotonic()

    def counted(self, reservation: ReservationId, output_tokens: int) -> None:
        """Its engine told how many tokens the answer has."""
        if watched := self._watched.get(reservation):
            watched.output_tokens = output_tokens

    def over(self, reservation: ReservationId, endpoint: Endpoint, ended: Ended) -> None:
        """It ended. What an endpoint refused or failed was no work for it, and comes again if the client wants it."""
        watched = self._watched.pop(reservation, None)
        if watched is None:
            return
        if ended is Ended.FAILED:
            self._capture.give_up(watched.taken)
        elif watched.output_tokens is not None:
            self._capture.over(watched.taken, watched.output_tokens, Told.USAGE)
        else:
            guess = self._rates.tokens(address_of(endpoint), time.monotonic() - watched.since_s)
            self._capture.over(watched.taken, guess or 0, Told.NOBODY if guess is None else Told.STEPS)
