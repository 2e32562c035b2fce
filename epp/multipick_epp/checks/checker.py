"""Asks each engine, once an incarnation, what it serves and how it tokenises, and watches what shows by itself.

Every second one look over the registry: who is new is asked in the background, and who did not answer, or differs,
again after a pause that grows; then the rules are applied to all that is known. What changed is logged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from multipick_epp.checks import mismatch
from multipick_epp.checks.drift import Counted, Drift, Window
from multipick_epp.checks.mismatch import Kind, Mismatch
from multipick_epp.engines import EngineClient, Unanswered
from multipick_epp.engines.models import ServedModels
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.pods.endpoints import EndpointState
from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.background import Background
from multipick_epp.tokens import Verdict
from multipick_epp.types import Endpoint

log = logging.getLogger(__name__)

LOOK_S = 1.0
ASK_S = 10.0  # for all that one engine is asked
AT_ONCE = 8  # engines that are asked
EVENTS_S = 10.0  # for a publisher to be found, and for a prompt's blocks to be told of
_PAUSE_S = (1.0, 300.0)  # first and longest pause before an engine that did not answer is asked again

Compare = Callable[[Endpoint, str], Awaitable[Verdict]]
Learn = Callable[[Mapping[Endpoint, Verdict]], None]


@dataclass(frozen=True, slots=True)
class ExpectedEngine:
    """What the pool's engines should be."""

    models: Sequence[str] = ()
    block_size: int | None = None  # tokens


@dataclass(slots=True)
class _Engine:
    """What one engine answered; of another incarnation until the one at hand has answered."""

    incarnation: int = -1
    served: ServedModels | None = None
    tokens: Verdict | None = None
    asking: bool = False
    answered: bool = False  # everything
    again_s: float = 0.0  # loop time at which it is asked; `inf` once it has answered, and makes the ids made here
    pause_s: float = 0.0
    drift: Drift = field(default_factory=Drift)


class Checker:
    """Invariant: `_engines` has exactly the addresses that the registry had at the last look, `_silent_s` those of its
    endpoints from which no events come that should, and the loop time since when.
    """

    def __init__(
        self,
        registry: Registry,
        engines: EngineClient,
        expected: ExpectedEngine,
        feeds: Callable[[], Sequence[FeedStats]],
        known: Callable[[Endpoint], bool],
        compare: Compare | None,
        learn: Learn,
    ) -> None:
        """`known(endpoint)`: events have told of blocks of it. `compare(endpoint, model)`: whether the tokenizer here
        makes the engine's ids; None where there is none here. `learn` is told of each engine what was found.
        """
        self.mismatches: Sequence[Mismatch] = ()
        self._registry = registry
        self._client = engines
        self._expected = expected
        self._feeds = feeds
        self._known = known
        self._compare = compare
        self._learn = learn
        self._engines: dict[Endpoint, _Engine] = {}
        self._silent_s: dict[Endpoint, float] = {}
        self._asking = Background()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def checked(self) -> int:
        """Ready endpoints whose engines have answered everything."""
        answered = [address for address, engine in self._engines.items() if engine.answered]
        endpoints = (endpoint for address in answered for endpoint in self._registry.endpoints_at(address))
        return sum(state.ready for endpoint in endpoints if (state := self._registry.state(endpoint)))

    @property
    def windows(self) -> Mapping[Endpoint, Window]:
        """What each engine hit lately, and what was predicted; of those where enough was sent."""
        return {endpoint: engine.drift.last for endpoint, engine in self._engines.items() if engine.drift.last}

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._look(loop.time())
                await asyncio.sleep(LOOK_S)
        finally:
            await self._asking.cancel()

    def _look(self, now_s: float) -> None:
        feeds = {feed.endpoint: feed for feed in self._feeds()}
        self._engines = {address: self._engines.get(address, _Engine()) for address in self._registry.addresses()}
        found: list[Mismatch] = []
        silent: dict[Endpoint, float] = {}
        for address, engine in self._engines.items():
            endpoints = self._registry.endpoints_at(address)
            states = [state for endpoint in endpoints if (state := self._registry.state(endpoint)) and state.ready]
            if not states:
                continue
            if engine.incarnation != states[0].incarnation:
                engine.incarnation, engine.answered = states[0].incarnation, False
                engine.again_s, engine.pause_s = now_s, 0.0
                engine.drift.forget()
            engine.drift.look(now_s, self._counted(address))
            if now_s >= engine.again_s and not engine.asking:
                engine.asking = True
                self._asking.run(self._ask(address, engine))
            found += self._judge(address, engine, states)
            for state in states:
                words = self._silence(engine, state, feeds.get(state.pod.endpoint))
                if words is not None:
                    since_s = silent[state.pod.endpoint] = self._silent_s.get(state.pod.endpoint, now_s)
                    found += [Mismatch(Kind.EVENTS, state.pod.endpoint, words)] if now_s - since_s >= EVENTS_S else []
        self._silent_s = silent
        self._learn({address: engine.tokens for address, engine in self._engines.items() if engine.tokens})
        _log(self.mismatches, found)
        self.mismatches = found

    async def _ask(self, address: Endpoint, engine: _Engine) -> None:
        incarnation = engine.incarnation
        says: ServedModels | None = None
        tokens: Verdict | None = None
        try:
            async with self._at_once, asyncio.timeout(ASK_S):
                answer = await self._client.models(address)
                says = None if isinstance(answer, Unanswered) else answer
                if self._compare:
                    names = [*(says.names if says else ()), *self._expected.models, ""]
                    tokens = await self._compare(address, names[0])
        except TimeoutError:
            pass
        finally:
            engine.asking = False
            if engine.incarnation == incarnation:  # else it was started again meanwhile: the next look asks that one
                self._answered(engine, says, tokens)

    def _answered(self, engine: _Engine, says: ServedModels | None, tokens: Verdict | None) -> None:
        alike = True if self._compare is None else tokens and tokens.alike
        everything = says is not None and alike is not None
        if everything or not engine.answered:  # an answer stands until there is a better one
            engine.served, engine.tokens = says, tokens
        engine.answered |= everything
        engine.pause_s = min(max(2 * engine.pause_s, _PAUSE_S[0]), _PAUSE_S[1])
        # One that differs is asked again: it may be that midnight lay between two templates with a date.
        engine.again_s = inf if says and alike else asyncio.get_running_loop().time() + engine.pause_s

    def _judge(self, address: Endpoint, engine: _Engine, states: Sequence[EndpointState]) -> list[Mismatch]:
        """What is wrong with the engine as a whole, whatever its ranks."""
        gauges = next((state.gauges for state in states if state.gauges), None)
        words = {
            Kind.MODEL: mismatch.model(self._expected.models, engine.served) if engine.served else None,
            Kind.TOKENIZER: engine.tokens.words if engine.tokens and engine.tokens.alike is False else None,
            Kind.BLOCK_SIZE: mismatch.block_size(self._expected.block_size, gauges.block_size if gauges else None),
            Kind.METRICS: mismatch.metrics(gauges.ignored) if gauges else None,
            Kind.RANKS: states[0].engine.ranks.doubt or None,
            Kind.PREDICTION: engine.drift.words,
        }
        return [Mismatch(kind, address, text) for kind, text in words.items() if text is not None]

    def _counted(self, address: Endpoint) -> Counted | None:
        """What the engine counts, and what was sent there, whichever of its ranks served it."""
        states = [state for each in self._registry.endpoints_at(address) if (state := self._registry.state(each))]
        gauges = next((state.gauges for state in states if state.gauges), None)
        if gauges is None or not gauges.cache_queries:
            return None
        read, hit = sum(state.sent.read_tokens for state in states), sum(state.sent.hit_tokens for state in states)
        return Counted(gauges.cache_queries, gauges.cache_hits, read, hit)

    def _silence(self, engine: _Engine, state: EndpointState, feed: FeedStats | None) -> str | None:
        """Why no events come of one of its ranks, where they should."""
        other = engine.served and mismatch.model(self._expected.models, engine.served)
        longest = 0 if other else state.longest_prompt  # an engine of another model refuses our prompts
        size = state.gauges.block_size if state.gauges else None
        return mismatch.events(feed, self._known(state.pod.endpoint), longest, size)


def _log(before: Sequence[Mismatch], now: Sequence[Mismatch]) -> None:
    was, is_ = {(one.kind, one.endpoint) for one in before}, {(one.kind, one.endpoint) for one in now}
    for one in now:
        if (one.kind, one.endpoint) not in was:
            log.warning("engine mismatch", extra={"kind": one.kind, "endpoint": one.endpoint, "why": one.words})
    for kind, endpoint in sorted(was - is_):
        log.info("engine mismatch is over", extra={"kind": kind, "endpoint": endpoint})
