"""One engine in real time: steps when the clock says so, events and tokens at the end of each.

Rules: at most one step is under way, and its results go out when the clock has reached its end; everything that changes
the engine first catches up with the clock. So a process that was held up does late what it should have done, in the
order and at the engine times at which a punctual one would have, and never falls behind for good.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from multipick_sim.engine.engine import Engine
from multipick_sim.engine.values import Step
from multipick_sim.pod.clock import Clock
from multipick_sim.pod.flow import Flow
from multipick_sim.pod.kv_events import Content, bodies
from multipick_sim.pod.metrics import RankMetrics
from multipick_sim.pod.publisher import Publisher
from multipick_sim.pod.settings import EventFormat


@dataclass(frozen=True, slots=True)
class _UnderWay:
    step: Step
    events: list[Any]  # encoded when the step began: an aborted request's content is gone at its end


class Rank:
    """One data-parallel rank.

    Invariants: `_flows` has each request that was submitted and has not ended; `_started` those of them that have got
    a token, which are the only ones that a step can give another.
    """

    def __init__(
        self,
        number: int,
        engine: Engine,
        clock: Clock,
        metrics: RankMetrics,
        publisher: Publisher | None,
        format_: EventFormat,
    ) -> None:
        self.number = number
        self.engine = engine
        self.metrics = metrics
        self.publisher = publisher
        self.sleep_level: int | None = None  # None: awake
        self._clock = clock
        self._format = format_
        self._flows: dict[str, Flow] = {}
        self._started: dict[str, Flow] = {}
        self._under_way: _UnderWay | None = None
        self._work = asyncio.Event()
        self._idle: list[asyncio.Future[None]] = []

    @property
    def flows(self) -> Collection[Flow]:
        """Requests that have not ended."""
        return self._flows.values()

    def submit(self, make: Callable[[float], Flow]) -> Flow:
        """Queue what `make` builds for its time of arrival. Raises ValueError for a request that can't be served."""
        now = self.catch_up()
        flow = make(now)
        self.engine.submit(flow.request, now)
        self._flows[flow.request.request_id] = flow
        self._work.set()
        return flow

    def leave(self, flow: Flow) -> None:
        """The client has its answer or is gone: an unfinished request is aborted."""
        self.catch_up()
        if self._flows.pop(flow.request.request_id, None) is not None:
            self._started.pop(flow.request.request_id, None)
            self.engine.abort(flow.request.request_id)
        self._notify_idle()

    def abort_all(self) -> None:
        """End all requests with reason "abort"."""
        self.catch_up()
        for flow in list(self._flows.values()):
            self.engine.abort(flow.request.request_id)
            flow.finish("abort")
        self._flows.clear()
        self._started.clear()
        self._notify_idle()

    def pause(self) -> None:
        """Begin no more steps."""
        self.catch_up()
        self.engine.pause()

    def resume(self) -> None:
        """Begin steps again."""
        self.engine.resume(self.catch_up())
        self._work.set()

    def reset_prefix_cache(self, preempt_running: bool) -> bool:
        """See `Engine.reset_prefix_cache`."""
        self.catch_up()
        return self.engine.reset_prefix_cache(preempt_running)

    async def wait_idle(self) -> None:
        """Return when no request is left."""
        if self._flows:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle

    async def run(self) -> None:
        """Do steps until cancelled."""
        while True:
            now = self.catch_up()
            if self._under_way is None:
                self._work.clear()
                await self._work.wait()
            else:
                await asyncio.sleep(self._clock.wall_s(max(0.0, self._under_way.step.end_s - now)))

    def catch_up(self) -> float:
        """Do what the clock says should have been done by now; its time."""
        now = self._clock.now()
        while True:
            if self._under_way is not None:
                if self._under_way.step.end_s > now:
                    return now
                self._deliver(self._under_way)
                self._under_way = None
            if not self.engine.busy or self.engine.now > now:
                return now
            step = self.engine.step()
            self._under_way = _UnderWay(step, self._bodies(step) if self.publisher is not None else [])

    def _bodies(self, step: Step) -> list[Any]:
        return bodies(step.events, self._content, self.engine.limits.block_size, self._format)

    def _content(self, name: str) -> Content:
        return self._flows[name].content

    def _deliver(self, done: _UnderWay) -> None:
        """The step has ended: its events and tokens go out."""
        step, flows = done.step, self._flows
        if done.events and self.publisher is not None:
            self.publisher.publish(done.events)
        admitted = []
        for admission in step.admitted:
            if flow := flows.get(admission.request_id):
                flow.admitted_s, flow.hit_tokens = step.start_s, admission.hit_tokens
                admitted.append(flow)
        first = [flow for name in step.first_tokens if (flow := flows.get(name))]
        for flow in first:
            flow.first_token_s = step.end_s
            self._started[flow.request.request_id] = flow
        self.metrics.step_done(step, first, admitted)
        # The engine is exactly at the end of this step: the next one is begun after its results are out.
        for name, flow in self._started.items():
            tokens = self.engine.generated(name)
            flow.receive(flow.request.output_tokens if tokens is None else tokens)
        for name in step.finished:
            if flow := flows.pop(name, None):
                del self._started[name]
                flow.finished_s = step.end_s
                reason = "stop" if flow.ends else "length"
                flow.finish(reason)
                self.metrics.request_done(flow, reason)
        if step.finished:
            self._notify_idle()

    def _notify_idle(self) -> None:
        if not self._flows:
            for idle in self._idle:
                if not idle.done():
                    idle.set_result(None)
            self._idle.clear()
