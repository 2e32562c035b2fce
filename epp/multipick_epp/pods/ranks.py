"""How many data-parallel ranks are behind each port: each engine is asked, once an incarnation.

vLLM serves several engines behind one port (`--data-parallel-size`), each with a cache of its own, and chooses among
them by load unless the header `x-data-parallel-rank` names one. `/kv_event_sources` (0.31) names the ranks; before, or
where events are off, the labels of its metrics do. Until it is known, nothing that is decided of the engine is exact.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.engines.bounds import EVENT_SOURCES_S, METRICS_S, VERSION_S
from multipick_epp.engines.event_sources import EventSource
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.pods.each import EachEngine
from multipick_epp.pods.endpoints import Ranks
from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint

RANKS_AT_MOST = 64
"""Behind one port: each has a subscription of its own."""
HEEDS_RANKS = 0, 12
"""The first release of vLLM that serves a request by the rank that a header names."""
_AGAIN_S = (0.5, 10.0)  # first and longest pause before an engine that did not answer is asked again
_ALL_ASKED_S = EVENT_SOURCES_S + METRICS_S + VERSION_S
_STARTS = frozenset({500, 502, 503, 504})
"""Statuses of an engine that starts or ends; any other but 200 means that it doesn't know the question."""
_UNKNOWN = "its engine has not said how many data-parallel ranks it has"
_CHOOSES = "its engine chooses among {} data-parallel ranks, and can't be told which"
_TOO_MANY = "its engine has {} data-parallel ranks, of which {} at most can be followed"


class RankWatch:
    """Keeps the registry's word of what ranks each engine has true."""

    def __init__(
        self, registry: Registry, engines: EngineClient, supervisor: Supervisor, metrics_path: str = "/metrics"
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._metrics_path = metrics_path
        self._anew: dict[Endpoint, asyncio.Event] = {}
        self._told = asyncio.Event()  # set with each answer
        self._each = EachEngine(registry, supervisor, "rank watch", self._watch)

    def start(self) -> None:
        """For the registry's engines, and those that come later."""
        self._registry.on_anew(self._begins_anew)
        self._each.start()

    async def close(self) -> None:
        """End it."""
        await self._each.close()

    async def asked(self) -> None:
        """Return when each engine that is up was asked; after some seconds in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ALL_ASKED_S):
                while self._registry.untold():
                    self._told.clear()
                    await self._told.wait()

    async def _watch(self, address: Endpoint) -> None:
        anew = self._anew[address] = asyncio.Event()
        first_s, longest_s = _AGAIN_S
        pause_s = first_s
        try:
            while engine := self._registry.engine(address):
                anew.clear()
                incarnation = engine.incarnation
                ranks = await self._ask(address)
                if engine.incarnation != incarnation:
                    continue
                self._registry.expand(address, ranks or replace(engine.ranks, doubt=_UNKNOWN))
                self._told.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if ranks else pause_s):
                        await anew.wait()
                pause_s = first_s if ranks or anew.is_set() else min(2 * pause_s, longest_s)
        finally:
            if self._anew.get(address) is anew:
                del self._anew[address]

    async def _ask(self, address: Endpoint) -> Ranks | None:
        """None: it may know better later."""
        sources = await self._engines.event_sources(address)
        if not isinstance(sources, Unanswered) and sources:
            return by_sources(sources)
        if isinstance(sources, Unanswered) and not _is_final(sources):
            return None
        page = await self._engines.metrics(address, self._metrics_path)
        if isinstance(page, Unanswered):
            return None
        if len(page.ranks) < 2 or not isinstance(sources, Unanswered):
            return by_labels(page, heeds=True)
        version = await self._engines.version(address)
        if isinstance(version, Unanswered):
            return by_labels(page, heeds=False) if _is_final(version) else None
        return by_labels(page, heeds=version >= HEEDS_RANKS)

    def _begins_anew(self, address: Endpoint) -> None:
        if anew := self._anew.get(address):
            anew.set()


def by_sources(sources: Mapping[int, EventSource]) -> Ranks:
    """The ranks of an engine that names their publishers: it is new enough to be told which rank to use."""
    return _bounded(Ranks(tuple(sorted(sources))))


def by_labels(page: Gauges, *, heeds: bool) -> Ranks:
    """The ranks of an engine whose metrics tell them apart."""
    ranks = _bounded(Ranks(tuple(sorted(page.ranks))))
    if heeds or len(ranks.numbers) < 2:
        return ranks
    return replace(ranks, doubt=_CHOOSES.format(len(ranks.numbers)))


def _bounded(ranks: Ranks) -> Ranks:
    count = len(ranks.numbers)
    return ranks if count <= RANKS_AT_MOST else Ranks(doubt=_TOO_MANY.format(count, RANKS_AT_MOST))


def _is_final(answer: Unanswered) -> bool:
    """It answered, and will answer no better."""
    return answer.why is Why.UNREADABLE or (answer.why is Why.REFUSED and answer.status not in _STARTS)
