"""Asks each engine, once an incarnation, what it serves and how it tokenises, and watches what shows by itself.

Every second one look over the registry: who is new is asked in the background, and who did not answer, or differs,
again after a pause that grows; then the rules are applied to all that is known. What changed is logged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from multipick_epp.checks import mismatch
from multipick_epp.checks.mismatch import Kind, Mismatch
from multipick_epp.engines import EngineClient, Unanswered
from multipick_epp.engines.models import ServedModels
from multipick_epp.events.feed import FeedStats
from multipick_epp.pods.registry import EndpointState, Registry
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
    """What one endpoint's engine answered; of another incarnation until the one at hand has answered."""

    incarnation: int = -1
    served: ServedModels | None = None
    tokens: Verdict | None = None
    asking: bool = False
    answered: bool = False  # everything
    again_s: float = 0.0  # loop time at which it is asked; `inf` once it has answered, and makes the ids made here
    pause_s: float = 0.0
    silent_s: float | None = None  # loop time since which no events come that should


class Checker:
    """Invariant: `_engines` has exactly the endpoints that the registry had at the last look."""

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
        self._asking = Background()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def checked(self) -> int:
        """Ready endpoints whose engines have answered everything."""
        return sum(engine.answered and self._ready(endpoint) for endpoint, engine in self._engines.items())

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
        self._engines = {endpoint: self._engines.get(endpoint, _Engine()) for endpoint in self._registry.all()}
        found: list[Mismatch] = []
        for endpoint, engine in self._engines.items():
            state = self._registry.state(endpoint)
            if state is None or not state.ready:
                engine.silent_s = None
                continue
            if engine.incarnation != state.incarnation:
                engine.incarnation, engine.answered = state.incarnation, False
                engine.again_s, engine.pause_s = now_s, 0.0
            if now_s >= engine.again_s and not engine.asking:
                engine.asking = True
                self._asking.run(self._ask(endpoint, engine))
            found += self._judge(endpoint, engine, state, feeds.get(endpoint), now_s)
        self._learn({endpoint: engine.tokens for endpoint, engine in self._engines.items() if engine.tokens})
        _log(self.mismatches, found)
        self.mismatches = found

    async def _ask(self, endpoint: Endpoint, engine: _Engine) -> None:
        incarnation = engine.incarnation
        says: ServedModels | None = None
        tokens: Verdict | None = None
        try:
            async with self._at_once, asyncio.timeout(ASK_S):
                answer = await self._client.models(endpoint)
                says = None if isinstance(answer, Unanswered) else answer
                if self._compare:
                    names = [*(says.names if says else ()), *self._expected.models, ""]
                    tokens = await self._compare(endpoint, names[0])
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

    def _judge(
        self, endpoint: Endpoint, engine: _Engine, state: EndpointState, feed: FeedStats | None, now_s: float
    ) -> list[Mismatch]:
        size = state.gauges.block_size if state.gauges else None
        other = mismatch.model(self._expected.models, engine.served) if engine.served else None
        longest = state.longest_prompt if other is None else 0  # an engine of another model refuses our prompts
        silent = mismatch.events(feed, self._known(endpoint), longest, size)
        if silent is None:
            engine.silent_s = None
        elif engine.silent_s is None:
            engine.silent_s = now_s
        words = {
            Kind.MODEL: other,
            Kind.TOKENIZER: engine.tokens.words if engine.tokens and engine.tokens.alike is False else None,
            Kind.BLOCK_SIZE: mismatch.block_size(self._expected.block_size, size),
            Kind.METRICS: mismatch.metrics(state.gauges.ignored) if state.gauges else None,
            Kind.EVENTS: silent if engine.silent_s is not None and now_s - engine.silent_s >= EVENTS_S else None,
        }
        return [Mismatch(kind, endpoint, text) for kind, text in words.items() if text is not None]

    def _ready(self, endpoint: Endpoint) -> bool:
        state = self._registry.state(endpoint)
        return state is not None and state.ready


def _log(before: Sequence[Mismatch], now: Sequence[Mismatch]) -> None:
    was, is_ = {(one.kind, one.endpoint) for one in before}, {(one.kind, one.endpoint) for one in now}
    for one in now:
        if (one.kind, one.endpoint) not in was:
            log.warning("engine mismatch", extra={"kind": one.kind, "endpoint": one.endpoint, "why": one.words})
    for kind, endpoint in sorted(was - is_):
        log.info("engine mismatch is over", extra={"kind": kind, "endpoint": endpoint})
