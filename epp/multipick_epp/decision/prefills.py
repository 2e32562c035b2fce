"""What becomes of the prompts that were routed: charged and expected where they went, until events or the response tell
that they are prefilled, or the request fails.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from multipick_epp.decision.progress import Progress
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.extproc.pick import Ended
from multipick_epp.pods.registry import Registry
from multipick_epp.state.protocol import State
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId

EXPECTED_AT_LEAST_S: Final = 5.0
EXPECTED_AT_MOST_S: Final = 120.0
HISTORY_S: Final = 600.0


class Residency(msgspec.Struct, frozen=True, gc=False):
    """What is known of an endpoint's cache."""

    block_size: int | None  # tokens; None where nobody has told
    mode: Mode


class Prefills:
    """Of the requests in flight from here. `prefilled` is called with each whose prompt is over by the events."""

    def __init__(self, state: State, registry: Registry, prefilled: Callable[[ReservationId], None]) -> None:
        self._state = state
        self._registry = registry
        self._prefilled = prefilled
        self._progress = Progress(self._progressed, self._taken_over, time.monotonic)
        state.on_stored(self._progress.stored)
        state.on_routed_elsewhere(self._progress.routed_elsewhere)
        state.on_withdrawn_elsewhere(self._progress.abandoned)

    def watch(
        self,
        reservation: ReservationId,
        endpoint: Endpoint,
        prompt: Known | Blind,
        hit_tokens: int,
        queued: int,
        residency: Residency | None,
    ) -> None:
        """The endpoint is charged, and has `queued` tokens to prefill: watch it, and count the prompt as resident until
        events say so. No `residency`: another rank may have it, and nothing is resident, nor awaited, anywhere.
        """
        chains = prompt.chains[0] if type(prompt) is Known and len(prompt.chains) == 1 else None
        if residency is None or residency.block_size is None or chains is None:
            self._progress.watch(reservation, endpoint, prompt.prompt_tokens, 0, (), hit_tokens)
            return
        size = residency.block_size
        keys = chains.by_size.get(size, ())
        self._progress.watch(reservation, endpoint, chains.prompt_tokens, size, keys, hit_tokens)
        if missing := keys[hit_tokens // size :]:
            self._state.expect(endpoint, size, missing, self._expected_s(endpoint, queued, residency.mode), reservation)

    def first_byte(self, reservation: ReservationId) -> None:
        """Prefill is over: the answer begins."""
        self._progress.first_byte(reservation)

    def ended(self, reservation: ReservationId, endpoint: Endpoint, ended: Ended) -> None:
        """The request is over."""
        if self._was_computed(endpoint, ended):
            self._progress.forget(reservation)
        else:
            self.withdraw(reservation, endpoint, failed=ended is Ended.FAILED)

    def withdraw(self, reservation: ReservationId, endpoint: Endpoint, *, failed: bool = False) -> None:
        """The endpoint won't prefill what it has not: nothing of the prompt counts as resident for it, and those who
        relied on its blocks have to bring them. `failed`: it has not, whatever we think we have seen.
        """
        unbrought = self._progress.abandon(reservation)
        if unbrought is not None or failed:
            withdrawn = self._state.withdraw(endpoint, reservation)
            self._progress.abandoned(endpoint, (*(unbrought or ()), *withdrawn))

    def estimate(self, seconds: float) -> None:
        """So much time has passed: prompts on endpoints without events advance by estimate (`progress`' last rung)."""
        self._progress.estimate(seconds, lambda endpoint: self._state.mode(endpoint) is Mode.BLIND)

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint is gone."""
        self._progress.drop(endpoint)

    def residency(self, endpoint: Endpoint) -> Residency:
        """At this moment."""
        size = self._state.block_size(endpoint)
        if not size:
            state = self._registry.state(endpoint)
            size = state.gauges.block_size if state and state.gauges else None
        return Residency(size, self._state.mode(endpoint))

    def _was_computed(self, endpoint: Endpoint, ended: Ended) -> bool:
        """Whether the prompt of a request that ended so was prefilled, although nothing has told of that.

        Many a gateway closes its stream at an answer's end and at an abort alike, and some at the pick. Where events
        come they know better; where none do, most requests come to their end.
        """
        silent = self._state.mode(endpoint) is Mode.BLIND
        return ended in (Ended.WHOLE, Ended.UNSEEN) or (ended is Ended.CLOSED and silent)

    def _progressed(self, reservation: ReservationId, left: int) -> None:
        self._state.progress(reservation, left)
        if left == 0:
            self._prefilled(reservation)

    def _taken_over(
        self, reservation: ReservationId, endpoint: Endpoint, block_size: int, keys: Sequence[BlockKey], left: int
    ) -> None:
        self._state.recharge(reservation, left)
        mode = self._state.mode(endpoint)
        queued = self._state.load(endpoint).queued_tokens
        self._state.expect(endpoint, block_size, keys, self._expected_s(endpoint, queued, mode), reservation)

    def _expected_s(self, endpoint: Endpoint, tokens: int, mode: Mode) -> float:
        """How long a routed prompt counts as resident without an event: until it must have been prefilled, or, where
        no events come, for as long as our own routing history is worth something.
        """
        if mode is Mode.BLIND:
            return HISTORY_S
        seconds = self._progress.prefill_seconds(endpoint, tokens)
        return EXPECTED_AT_MOST_S if seconds is None else min(max(EXPECTED_AT_LEAST_S, 2 * seconds), EXPECTED_AT_MOST_S)
