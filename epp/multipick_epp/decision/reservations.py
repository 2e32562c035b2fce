"""The reservations that were given out and not released: what their requests tell of them, until they end."""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from multipick_epp.decision.eligible import Eligible
from multipick_epp.decision.explained import Decision
from multipick_epp.decision.own_traffic import OwnTraffic
from multipick_epp.decision.predictions import Predicted, compare
from multipick_epp.decision.prefills import Prefills, Residency
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.decision.undirected import least_hit
from multipick_epp.extproc.pick import Ended
from multipick_epp.extproc.usage import Usage
from multipick_epp.pods.failures import Asked, Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.policy.snapshot import new_tokens
from multipick_epp.state.protocol import State
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import Endpoint, ReservationId, address_of, rank_of

ESTIMATE_EVERY_S = 0.25

Hits = Callable[[Known | Blind], Mapping[Endpoint, int]]
"""Tokens that each endpoint holds of a prompt."""


class Live(msgspec.Struct):
    """A request in flight."""

    endpoint: Endpoint
    prompt: Known | Blind | None  # None: its prefill is over
    path: str
    asked: Asked
    rank: int | None  # that a header tells the engine to use, behind whichever port serves it
    decision: Decision
    predicted: Predicted | None = None  # to be held against what its engine tells
    answered: bool = False


class Reservations:
    """Of one picker. Invariant: `_live` holds exactly those that were given out and not released."""

    def __init__(
        self,
        state: State,
        registry: Registry,
        failures: Failures,
        metrics: Metrics,
        eligible: Eligible,
        hits: Hits,
        unseen_s: float,
        traffic: OwnTraffic | None,
    ) -> None:
        """`unseen_s`: how long a request that goes on unseen stays charged. `traffic` is told of each request, where
        own traffic is captured.
        """
        self._state = state
        self._registry = registry
        self._failures = failures
        self._metrics = metrics
        self._eligible = eligible
        self._hits = hits
        self._unseen_s = unseen_s
        self._traffic = traffic
        self._prefills = Prefills(state, registry, self._prefilled)
        self._live: dict[ReservationId, Live] = {}

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._live)

    def residency(self, endpoint: Endpoint) -> Residency:
        """What is known of the endpoint's cache at this moment."""
        return self._prefills.residency(endpoint)

    def give_out(
        self, reservation: ReservationId, live: Live, hit_tokens: int, queued: int, residency: Residency | None
    ) -> None:
        """It is charged to its endpoint, which has `queued` tokens to prefill with it; see `Prefills.watch`."""
        self._live[reservation] = live
        if live.prompt is not None:
            self._prefills.watch(reservation, live.endpoint, live.prompt, hit_tokens, queued, residency)

    def served(self, reservation: ReservationId, address: Endpoint) -> None:
        """The gateway went elsewhere: the charge follows the request, and is what that endpoint has to prefill."""
        live = self._live.get(reservation)
        if live is None or address_of(live.endpoint) == address:
            return
        ranks = self._registry.endpoints_at(address)
        endpoint = next((each for each in ranks if rank_of(each) == live.rank), None)
        sure = endpoint is not None and (live.rank is None or self._eligible.obeys(address))
        if endpoint is None:
            if not ranks:
                return  # not of the pool: believed by nobody
            endpoint = min(ranks, key=lambda rank: self._state.load(rank).in_flight)
        self._failures.passed_over(live.endpoint)
        self._prefills.withdraw(reservation, live.endpoint)
        self._state.move(reservation, endpoint)
        live.endpoint, live.predicted = endpoint, None
        if live.prompt is not None:
            hit_tokens = least_hit(self._hits(live.prompt), (endpoint,) if sure else ranks)
            self._state.recharge(reservation, new_tokens(live.prompt.prompt_tokens, hit_tokens))
            queued = self._state.load(endpoint).queued_tokens
            residency = self._prefills.residency(endpoint) if sure else None
            self._prefills.watch(reservation, endpoint, live.prompt, hit_tokens, queued, residency)

    def answered(self, reservation: ReservationId, status: int) -> None:
        """The response began."""
        if live := self._live.get(reservation):
            live.answered = True
            self._failures.answered(live.endpoint, status, live.asked, live.path)

    def first_byte(self, reservation: ReservationId) -> None:
        """Prefill is over."""
        if live := self._live.get(reservation):
            live.prompt = None
            live.decision.first_byte()
            self._prefills.first_byte(reservation)
            self._prefilled(reservation)

    def counted(self, reservation: ReservationId, usage: Usage) -> None:
        """The engine told how many tokens the request has."""
        if self._traffic is not None and usage.output is not None:
            self._traffic.counted(reservation, usage.output)
        live = self._live.get(reservation)
        if live and live.predicted and (compared := compare(live.predicted, usage)):
            outcome, off_tokens = compared
            self._metrics.predictions_compared.labels(outcome).inc()
            self._metrics.predictions_off_tokens.labels(outcome).inc(off_tokens)

    def release(self, reservation: ReservationId, ended: Ended) -> None:
        """The request ended, or went out of sight."""
        if ended is Ended.UNSEEN:
            asyncio.get_running_loop().call_later(self._unseen_s, self._end, reservation, ended)
        else:
            self._end(reservation, ended)

    def _end(self, reservation: ReservationId, ended: Ended) -> None:
        live = self._live.pop(reservation, None)
        if live is None:
            return
        live.decision.end(ended)
        if self._traffic is not None:
            self._traffic.over(reservation, live.endpoint, ended)
        if not live.answered:
            self._failures.undecided(live.endpoint)
        self._prefills.ended(reservation, live.endpoint, ended)
        self._state.release(reservation)

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint is gone."""
        self._prefills.drop(endpoint)

    def close(self) -> None:
        """Release what is left."""
        for reservation in list(self._live):
            self.release(reservation, Ended.CLOSED)

    async def estimate_for_ever(self) -> None:
        """Let prompts on endpoints without events advance by estimate (the last rung of `progress`)."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(ESTIMATE_EVERY_S)
            now = time.monotonic()
            self._failures.tick()
            self._prefills.estimate(now - before)
            before = now

    def _prefilled(self, reservation: ReservationId) -> None:
        if self._traffic is not None:
            self._traffic.prefilled(reservation)
