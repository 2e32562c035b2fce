"""The decision: one request in, one endpoint out.

Each failure has a rung below it: no tokens, or a decision past its deadline, is decided by load; a shared state that is
away is replaced by the local view inside `State`; no endpoint that is ready is a 503 with `Retry-After`.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from multipick_epp.decision.choice import Choice, Chooser
from multipick_epp.decision.eligible import Eligible, rank_told
from multipick_epp.decision.explained import Decisions
from multipick_epp.decision.hotspots import Hotspots
from multipick_epp.decision.own_traffic import OwnTraffic
from multipick_epp.decision.predictions import Sample
from multipick_epp.decision.prefills import Residency
from multipick_epp.decision.prompts import Blind, Known, PromptReader, guess
from multipick_epp.decision.reservations import Live, Reservations
from multipick_epp.decision.shadow import Shadows
from multipick_epp.extproc.pick import Ended, NoPick, Pick, PickRequest
from multipick_epp.extproc.usage import Usage
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.policy.hotspot import GUARDED
from multipick_epp.policy.registry import READ_CONTEXTS
from multipick_epp.policy.snapshot import Rank, Snapshot, new_tokens
from multipick_epp.requests.errors import api_of, error_body, retry_after
from multipick_epp.requests.rank_header import RANK_HEADER
from multipick_epp.requests.stored import ResponseNames
from multipick_epp.state.protocol import Reserved, State
from multipick_epp.tasks.eager import Rest, begun, in_task
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import (
    Endpoint,
    Mode,
    ReplicaId,
    ReservationId,
    address_of,
    rank_of,
)

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """What the configuration says about decisions."""

    policy_name: str
    rank: Rank
    deadline_s: float
    destinations: int = 1
    explain_headers: bool = False
    models: Collection[str] = ()  # names of the pool's base model; any other is an adapter's
    responses: ResponseNames = field(default_factory=lambda: ResponseNames(b"", ""))
    hotspot_guard: bool = True
    shadow: Mapping[str, Rank] = field(default_factory=dict)  # other policies, asked beside
    unseen_s: float = 1.0  # a request that goes on unseen stays charged so long: then its engine's own figures tell it


class PoolPicker:
    """`pick.Picker` over the shared state."""

    def __init__(
        self,
        settings: DecisionOptions,
        replica: ReplicaId,
        state: State,
        registry: Registry,
        failures: Failures,
        reader: PromptReader,
        metrics: Metrics,
        rng: Random,
        traffic: OwnTraffic | None = None,
    ) -> None:
        """`traffic` is told of each request, where own traffic is captured."""
        self._settings = settings
        self._replica = replica
        self._state = state
        self._registry = registry
        self._failures = failures
        self._eligible = Eligible(registry, settings.models, settings.responses)
        self._reader = reader
        self._metrics = metrics
        self._traffic = traffic
        self._sample = Sample()
        self._numbers = itertools.count(1)
        self.hotspots = Hotspots(
            settings.hotspot_guard and settings.policy_name in GUARDED, metrics.hotspots.inc, metrics.kept_out.inc
        )
        self.decisions = Decisions(settings.policy_name)
        self._shadows = Shadows(settings.shadow, rng, metrics)
        reads_contexts = not READ_CONTEXTS.isdisjoint((settings.rank, *settings.shadow.values()))
        stages = metrics.stage_seconds
        self._chooser = Chooser(
            settings.rank,
            state,
            self.hotspots,
            rng,
            stages,
            accounts_contexts=reads_contexts,
            shown_later=bool(settings.shadow),
        )
        self.reservations = Reservations(
            state, registry, failures, metrics, self._eligible, self._chooser.hits, settings.unseen_s, traffic
        )
        self._reserve_seconds = stages.labels("reserve")
        self._decided = {mode: metrics.decisions.labels(settings.policy_name, mode) for mode in Mode}
        self._decision_seconds = metrics.decision_seconds.labels()
        self._prompt_tokens = metrics.prompt_tokens.labels()
        self._hit_tokens = metrics.hit_tokens.labels()
        self._mean_new_tokens = 512.0  # a request's, over the last hundred or so

    # --- the picker that streams call

    async def pick(self, request: PickRequest) -> Pick | NoPick:
        """Choose and reserve; see `pick.Picker`."""
        started = time.perf_counter()
        ready = self._registry.ready(request.subset)
        if not ready.endpoints:
            return self._refuse(request)
        prompt = await self._read(request, started)
        ready = self._eligible.endpoints(request, prompt)
        if not ready.endpoints:  # they left while we read
            return self._refuse(request)
        undirected = self._eligible.undirected(request.path, ready)
        choice = self._chooser.choose(prompt, ready, undirected)
        snapshot = choice.snapshot
        reservation = ReservationId(f"{self._replica}-{next(self._numbers)}")
        mode_changes = self._state.mode_changes
        reserved = await self._reserve(reservation, choice)
        row = choice.rows[reserved.index]
        endpoint, hit_tokens = snapshot.endpoints[row], snapshot.hit_tokens[row]
        if reserved.new_tokens < snapshot.new_tokens(row):  # an equal prompt went there while we decided
            hit_tokens = snapshot.prompt_tokens - reserved.new_tokens
        sure = not undirected or address_of(endpoint) not in undirected
        rank = rank_of(endpoint) if sure else None
        residency = self.reservations.residency(endpoint)
        mode = self._mode(prompt, endpoint, residency, sure)
        if mode is Mode.EXACT and self._state.mode_changes != mode_changes:
            mode = Mode.APPROX  # it may have become exact after we had looked
        unexplained = choice.candidates.unexplained_queued
        queued = reserved.load.queued_tokens + (unexplained[reserved.index] if unexplained else 0)
        new = new_tokens(snapshot.prompt_tokens, hit_tokens)
        fallback = prompt.reason if type(prompt) is Blind else None
        decision = self.decisions.made(request, reservation, choice, reserved, mode, fallback)
        predicted = self._sample.take(prompt, hit_tokens, mode)
        asked = self._eligible.asked(request.method, prompt)
        live = Live(endpoint, prompt, request.path, asked, rank, decision, predicted)
        if self._traffic is not None and request.body_bytes:
            self._traffic.picked(reservation, prompt)
        self.reservations.give_out(reservation, live, hit_tokens, queued + new, residency if sure else None)
        self._failures.picked(endpoint)
        read = type(prompt) is Known and prompt.reads_cache
        self._registry.picked(endpoint, snapshot.prompt_tokens, hit_tokens, sure=sure, read=read)
        self._mean_new_tokens += 0.01 * (new - self._mean_new_tokens)
        self._decided[mode].inc()
        self._prompt_tokens.inc(snapshot.prompt_tokens)
        self._hit_tokens.observe(hit_tokens)
        self._decision_seconds.observe(time.perf_counter() - started)
        self._shadows.look(snapshot, choice.ranking, row)
        return Pick(
            (endpoint, *self._next_best(choice, row, rank, undirected)),
            reservation,
            {} if rank is None else {RANK_HEADER: str(rank)},
            response_headers=self._explain(endpoint, hit_tokens, mode, snapshot),
            body=self._eligible.named(request, prompt, endpoint),
            counts=predicted is not None,
        )

    def served(self, reservation: ReservationId, address: Endpoint) -> None:
        """See `pick.Picker`."""
        self.reservations.served(reservation, address)

    def answered(self, reservation: ReservationId, status: int) -> None:
        """See `pick.Picker`."""
        self.reservations.answered(reservation, status)

    def first_byte(self, reservation: ReservationId) -> None:
        """See `pick.Picker`."""
        self.reservations.first_byte(reservation)

    def counted(self, reservation: ReservationId, usage: Usage) -> None:
        """See `pick.Picker`."""
        self.reservations.counted(reservation, usage)

    def release(self, reservation: ReservationId, ended: Ended) -> None:
        """See `pick.Picker`."""
        self.reservations.release(reservation, ended)

    # --- life of the picker

    @property
    def in_flight(self) -> int:
        """Reservations that this picker holds."""
        return len(self.reservations)

    @property
    def mean_new_tokens(self) -> float:
        """New prompt tokens of a request, averaged over the last hundred or so."""
        return self._mean_new_tokens

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint is gone."""
        self.reservations.drop(endpoint)

    def close(self) -> None:
        """Release what is left."""
        self._shadows.close()
        self.reservations.close()

    # --- steps of a decision

    async def _read(self, request: PickRequest, started: float) -> Known | Blind:
        try:
            prompt = await begun(self._reader.read(request))
            if type(prompt) is Rest:
                await in_task()
                async with asyncio.timeout(started + self._settings.deadline_s - time.perf_counter()):
                    prompt = await prompt
        except TimeoutError:
            prompt = guess(request, "deadline")
        except Exception:
            # The rung below a fault of our own, too: the request must not pay for it.
            log.exception("prompt not read", extra={"path": request.path})
            prompt = guess(request, "internal error")
        if type(prompt) is Blind and request.body_bytes:
            self._metrics.fallbacks.labels(prompt.reason).inc()
        return prompt

    async def _reserve(self, reservation: ReservationId, choice: Choice) -> Reserved:
        started = time.perf_counter()
        try:
            reserved = await self._state.reserve(reservation, choice.candidates, choice.equal_prompt, choice.context)
        except asyncio.CancelledError:
            self._state.release(reservation)  # it may have been charged before we were cancelled
            raise
        self._reserve_seconds.observe(time.perf_counter() - started)
        return reserved

    def _mode(self, prompt: Known | Blind, endpoint: Endpoint, residency: Residency, sure: bool) -> Mode:
        if type(prompt) is Blind:
            return Mode.BLIND
        size = residency.block_size
        if size is not None and all(size not in chains.by_size for chains in prompt.chains):
            return Mode.BLIND  # not hashed for this endpoint: see `sizes`
        if not sure:
            return Mode.APPROX
        mode = self._registry.mode(endpoint, residency.mode)
        return Mode.APPROX if mode is Mode.BLIND else mode  # without events, our own routing history is all we know

    def _next_best(
        self, choice: Choice, chosen: int, rank: int | None, undirected: Collection[Endpoint]
    ) -> Sequence[Endpoint]:
        """Where the request goes if the chosen one fails, best first: all that get the same header."""
        count = self._settings.destinations - 1
        if not count:
            return ()
        others = (choice.snapshot.endpoints[row] for row in choice.ranking.rows if row != chosen)
        return [*itertools.islice((each for each in others if rank_told(each, undirected) == rank), count)]

    def _explain(self, endpoint: Endpoint, hit_tokens: int, mode: Mode, snapshot: Snapshot) -> Mapping[str, str]:
        if not self._settings.explain_headers:
            return {}
        return {
            "x-multipick-endpoint": endpoint,
            "x-multipick-hit-tokens": str(hit_tokens),
            "x-multipick-prompt-tokens": str(snapshot.prompt_tokens),
            "x-multipick-mode": mode,
        }

    def _refuse(self, request: PickRequest) -> NoPick:
        reason = "no-ready-endpoint" if request.subset is None else "no-endpoint-in-subset"
        message = (
            "No endpoint of the pool is ready." if request.subset is None else "No endpoint of the subset is ready."
        )
        return NoPick(503, error_body(api_of(request.path), 503, message), reason, retry_after(RETRY_AFTER_S))
