"""A rank does what a punctual engine would, however late the process is woken."""

from array import array
from typing import Any

import pytest
from multipick_sim.engine.costs import Costs
from multipick_sim.engine.engine import Engine
from multipick_sim.engine.values import Limits, Request
from multipick_sim.pod.clock import Clock
from multipick_sim.pod.flow import Flow
from multipick_sim.pod.kv_events import Content
from multipick_sim.pod.metrics import RankMetrics
from multipick_sim.pod.rank import Rank
from multipick_sim.pod.settings import EventFormat

SECOND_A_STEP = Costs(fixed_s=1.0, weights_s=0.0, token_s=0.0, exchange_s=0.0, pair_s=0.0, context_s=0.0)
LIMITS = Limits(40, 4, max_num_seqs=8, max_num_batched_tokens=16, max_model_len=128)


class HandClock(Clock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        super().__init__(speed=1.0)
        self.time = 0.0

    def now(self) -> float:
        return self.time


class Recorder:
    """In place of a publisher: what went out when."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.batches: list[tuple[float, list[Any]]] = []

    def publish(self, events: list[Any]) -> None:
        self.batches.append((self._clock.time, events))


class Bench:
    """A rank, its clock and what it published."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.sent = Recorder(self.clock)
        metrics = RankMetrics(LIMITS, self.clock)
        engine = Engine(LIMITS, SECOND_A_STEP)
        self.rank = Rank(0, engine, self.clock, metrics, self.sent, EventFormat.MAP)  # type: ignore[arg-type]

    def submit(self, name: str, prompt: int, output: int, at: float) -> Flow:
        self.clock.time = at
        hashes = [hash((name, block)) for block in range((prompt + output) // 4)]
        request = Request(name, prompt, output, hashes)
        answer = list(range(output))
        content = Content(array("I", [7] * (prompt + output)))
        return self.rank.submit(lambda now: Flow(request, content, answer, ends=False, arrived_s=now))

    def wake(self, at: float) -> None:
        """What the rank's task does when it is woken."""
        self.clock.time = at
        self.rank.catch_up()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_tokens_and_events_come_at_the_end_of_their_step(bench: Bench) -> None:
    flow = bench.submit("a", prompt=8, output=3, at=5.0)
    bench.wake(5.0)
    bench.wake(5.9)
    assert (flow.tokens, bench.sent.batches) == (0, [])
    bench.wake(6.0)
    assert flow.tokens == 1
    assert [at for at, _ in bench.sent.batches] == [6.0]
    bench.wake(8.0)
    assert (flow.tokens, flow.finish_reason) == (3, "length")
    assert (flow.admitted_s, flow.first_token_s, flow.finished_s) == (5.0, 6.0, 8.0)


def test_a_late_wake_up_delays_tokens_but_no_step(bench: Bench) -> None:
    flow = bench.submit("a", prompt=8, output=30, at=0.0)
    bench.wake(0.0)
    bench.wake(10.5)
    assert flow.tokens == 10
    bench.wake(11.0)
    assert flow.tokens == 11


def test_a_request_that_comes_while_the_process_is_late_joins_the_step_after_its_arrival(bench: Bench) -> None:
    bench.submit("a", prompt=8, output=30, at=0.0)
    bench.wake(0.0)
    late = bench.submit("b", prompt=4, output=2, at=6.5)
    bench.wake(20.0)
    assert (late.arrived_s, late.admitted_s, late.first_token_s) == (6.5, 7.0, 8.0)


def test_a_request_that_is_aborted_during_its_step_leaves_its_events(bench: Bench) -> None:
    flow = bench.submit("a", prompt=8, output=3, at=0.0)
    bench.wake(0.0)
    bench.clock.time = 0.5
    bench.rank.leave(flow)
    assert bench.rank.engine.running == 0
    bench.wake(1.0)
    ((_, events),) = bench.sent.batches
    assert events[0]["token_ids"] == [7] * 8
    assert flow.tokens == 0


def test_a_pause_begins_no_step_and_ends_the_one_under_way(bench: Bench) -> None:
    flow = bench.submit("a", prompt=8, output=3, at=0.0)
    bench.wake(0.0)
    bench.clock.time = 0.5
    bench.rank.pause()
    bench.wake(30.0)
    assert flow.tokens == 1
    bench.rank.resume()
    bench.wake(31.0)
    assert flow.tokens == 2


async def test_idleness_is_awaited_through_ends_aborts_and_leavers(bench: Bench) -> None:
    await bench.rank.wait_idle()
    bench.submit("a", prompt=8, output=3, at=0.0)
    leaver = bench.submit("b", prompt=8, output=300 // 4, at=0.0)
    bench.wake(10.0)
    bench.rank.leave(leaver)
    await bench.rank.wait_idle()
    stuck = bench.submit("c", prompt=8, output=3, at=20.0)
    bench.rank.abort_all()
    await bench.rank.wait_idle()
    assert stuck.finish_reason == "abort"
    assert (bench.rank.engine.running, bench.rank.engine.waiting, list(bench.rank.flows)) == (0, 0, [])
