"""Engines are asked once, beside the requests, until they answer; what is found comes and goes with its cause."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web
from multipick_epp.checks import checker as checker_module
from multipick_epp.checks.checker import Checker, ExpectedEngine
from multipick_epp.checks.mismatch import Kind
from multipick_epp.engines import EngineClient
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.pods.endpoints import PodEndpoint, Ranks
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.tokens import Verdict
from multipick_epp.types import Endpoint, Mode

ALIKE, OTHER, UNKNOWN = Verdict(True, ""), Verdict(False, "a chat differs"), Verdict(None, "engine is slow")


@dataclass
class Engine:
    """Answers `/v1/models`, and is compared."""

    model: str | None = "m"  # None: refuses to say
    verdict: Verdict = ALIKE
    hold: asyncio.Event | None = None  # answers once this is set
    endpoint: Endpoint = field(init=False)
    asked: int = 0
    compared: list[str] = field(default_factory=list)  # the models it was compared by

    async def models(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.hold:
            await self.hold.wait()
        if self.model is None:
            return web.Response(status=401)
        return web.json_response({"data": [{"id": self.model, "owned_by": "vllm"}]})


@dataclass
class Checked:
    """A checker, and what it was told and tells."""

    registry: Registry
    client: EngineClient
    engines: Sequence[Engine]
    looks: int = 0
    verdicts: Mapping[Endpoint, Verdict] = field(default_factory=dict)
    feeds: Sequence[FeedStats] = ()

    def __post_init__(self) -> None:
        self.checker = Checker(
            self.registry, self.client, ExpectedEngine(["m"], 16), self.look, lambda _: False, self.compare, self.learn
        )

    def look(self) -> Sequence[FeedStats]:
        self.looks += 1
        return self.feeds

    async def compare(self, endpoint: Endpoint, model: str) -> Verdict:
        [engine] = [engine for engine in self.engines if engine.endpoint == endpoint]
        engine.compared.append(model)
        return engine.verdict

    def learn(self, verdicts: Mapping[Endpoint, Verdict]) -> None:
        self.verdicts = verdicts

    @property
    def learnt(self) -> tuple[int, Sequence[Endpoint]]:
        """How many engines agree, and which don't."""
        alike = sum(verdict.alike is True for verdict in self.verdicts.values())
        return alike, [endpoint for endpoint, verdict in self.verdicts.items() if verdict.alike is False]

    def kinds(self) -> list[Kind]:
        return [one.kind for one in self.checker.mismatches]

    async def looked(self, count: int) -> None:
        """So many looks went by."""
        end = self.looks + count
        await eventually(lambda: self.looks >= end)


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


Start = Callable[..., Awaitable[Checked]]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """A running checker over these engines, all of which are ready."""
    monkeypatch.setattr(checker_module, "LOOK_S", 0.002)
    monkeypatch.setattr(checker_module, "EVENTS_S", 0.02)
    monkeypatch.setattr(checker_module, "_PAUSE_S", (0.002, 0.005))
    monkeypatch.setattr(checker_module, "ASK_S", 60.0)  # whatever else this machine does
    runners: list[web.AppRunner] = []
    tasks: list[asyncio.Task[None]] = []
    client = EngineClient()
    await client.start()

    async def begin(*engines: Engine) -> Checked:
        registry = Registry()
        for engine in engines:
            app = web.Application()
            app.router.add_get("/v1/models", engine.models)
            runners.append(web.AppRunner(app, handler_cancellation=True))
            await runners[-1].setup()
            await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
            engine.endpoint = Endpoint(f"127.0.0.1:{runners[-1].addresses[0][1]}")
        registry.set([PodEndpoint(engine.endpoint) for engine in engines])
        for engine in engines:
            registry.mark(engine.endpoint, True)
        checked = Checked(registry, client, engines)
        tasks.append(asyncio.create_task(checked.checker.run()))
        return checked

    yield begin
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    for runner in runners:
        await runner.cleanup()
    await client.close()


async def test_an_engine_that_matches_is_asked_once_and_nothing_is_said(start: Start) -> None:
    engine = Engine()
    checked = await start(engine)
    await eventually(lambda: checked.checker.checked == 1)
    await checked.looked(20)
    assert checked.kinds() == []
    assert (engine.asked, engine.compared) == (1, ["m"])
    assert checked.learnt == (1, [])


async def test_an_engine_of_another_model_is_compared_by_its_own_name(start: Start) -> None:
    engine = Engine(model="other", verdict=OTHER)
    checked = await start(engine)
    await eventually(lambda: checked.kinds() == [Kind.MODEL, Kind.TOKENIZER])
    assert set(engine.compared) == {"other"}
    assert checked.learnt == (0, [engine.endpoint])


async def test_an_engine_that_does_not_answer_is_asked_again_and_others_are_not_held_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker_module, "ASK_S", 0.3)
    deaf, well = Engine(hold=asyncio.Event()), Engine()
    checked = await start(deaf, well)
    await eventually(lambda: checked.checker.checked == 1)
    await eventually(lambda: deaf.asked >= 2)  # given up after ASK_S, and tried again
    assert checked.kinds() == []
    assert deaf.hold is not None
    deaf.hold.set()
    await eventually(lambda: checked.checker.checked == 2)


async def test_what_an_engine_refuses_to_say_is_not_held_against_it(start: Start) -> None:
    engine = Engine(model=None, verdict=UNKNOWN)
    checked = await start(engine)
    await eventually(lambda: engine.asked >= 3)
    assert checked.kinds() == []
    assert checked.checker.checked == 0
    assert checked.learnt == (0, [])


async def test_an_engine_that_was_started_again_is_asked_again_and_a_cure_is_seen(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", checker_module.__name__)
    engine = Engine(verdict=OTHER)
    checked = await start(engine)
    await eventually(lambda: checked.kinds() == [Kind.TOKENIZER])
    await checked.looked(10)
    checked.registry.mark(engine.endpoint, False)
    await eventually(lambda: checked.kinds() == [])  # of an engine that serves nobody nothing is said
    assert checked.learnt == (0, [engine.endpoint]), "what is known holds until another engine answers"
    engine.verdict = ALIKE
    checked.registry.mark(engine.endpoint, True)
    await eventually(lambda: checked.learnt == (1, []))
    await eventually(lambda: checked.kinds() == [])
    told = [record.message for record in caplog.records]
    assert told.count("engine mismatch") <= 2, "once an incarnation, whatever the number of looks"
    assert told[-1] == "engine mismatch is over"


async def test_an_engine_that_differs_is_asked_again_for_the_difference_may_pass(start: Start) -> None:
    engine = Engine(verdict=OTHER)
    checked = await start(engine)
    await eventually(lambda: checked.kinds() == [Kind.TOKENIZER] and checked.checker.checked == 1)
    engine.verdict = ALIKE
    await eventually(lambda: checked.learnt == (1, []))
    asked = engine.asked
    await checked.looked(20)
    assert engine.asked == asked


async def test_an_engine_that_differs_and_falls_silent_still_differs(start: Start) -> None:
    engine = Engine(verdict=OTHER)
    checked = await start(engine)
    await eventually(lambda: checked.checker.checked == 1)
    engine.verdict = UNKNOWN
    asked = engine.asked
    await eventually(lambda: engine.asked >= asked + 3)
    assert checked.learnt == (0, [engine.endpoint])
    assert checked.kinds() == [Kind.TOKENIZER]


async def test_a_container_that_was_started_again_is_another_engine(start: Start) -> None:
    engine = Engine()
    checked = await start(engine)
    await eventually(lambda: checked.checker.checked == 1)
    checked.registry.set([PodEndpoint(engine.endpoint, started_ms=1)])
    await eventually(lambda: engine.asked == 2)


async def test_an_endpoint_that_left_is_forgotten(start: Start) -> None:
    one, other = Engine(verdict=OTHER), Engine()
    checked = await start(one, other)
    await eventually(lambda: checked.learnt == (1, [one.endpoint]))
    checked.registry.set([PodEndpoint(other.endpoint)])
    await eventually(lambda: checked.learnt == (1, []))
    assert checked.kinds() == []


async def test_a_block_size_is_taken_from_the_engines_metrics(start: Start) -> None:
    engine = Engine()
    checked = await start(engine)
    checked.registry.scraped(engine.endpoint, Gauges(block_size=32), Unexplained())
    await eventually(lambda: checked.kinds() == [Kind.BLOCK_SIZE])
    checked.registry.scraped(engine.endpoint, Gauges(block_size=16), Unexplained())
    await eventually(lambda: checked.kinds() == [])


async def test_silence_is_told_when_it_lasts(start: Start) -> None:
    engine = Engine()
    checked = await start(engine)
    silent = FeedStats(
        engine.endpoint, None, connected=True, blocks=0, waiting_blocks=0, unplaced_blocks=0, operations=0, batches=0,
        gaps=0, restarts=0, undecodable=0, uploads=0, lag_s=0.0, why="",
    )  # fmt: skip
    checked.feeds = [silent]
    await checked.looked(20)
    assert checked.kinds() == []
    checked.registry.picked(engine.endpoint, 500, 0)
    await eventually(lambda: checked.kinds() == [Kind.EVENTS])
    checked.registry.mark(engine.endpoint, False)
    checked.registry.mark(engine.endpoint, True)
    await eventually(lambda: checked.kinds() == [])
    await checked.looked(20)
    assert checked.kinds() == [], "what an earlier engine was sent is nothing that this one has to tell of"
    checked.registry.picked(engine.endpoint, 500, 0)
    await eventually(lambda: checked.kinds() == [Kind.EVENTS])
    checked.feeds = []
    await eventually(lambda: checked.kinds() == [])


async def test_an_engine_is_asked_once_for_all_its_ranks_and_each_is_counted_and_listened_to(start: Start) -> None:
    engine = Engine()
    checked = await start(engine)
    await eventually(lambda: checked.checker.checked == 1)
    checked.registry.expand(engine.endpoint, Ranks((0, 1), "it is old"))
    first, second = checked.registry.endpoints_at(engine.endpoint)
    heard = FeedStats(
        first, Mode.EXACT, connected=True, blocks=1, waiting_blocks=0, unplaced_blocks=0, operations=1, batches=1,
        gaps=0, restarts=0, undecodable=0, uploads=0, lag_s=0.0, why="",
    )  # fmt: skip
    checked.feeds = [heard, replace(heard, endpoint=second, batches=0)]
    checked.registry.picked(first, 1000, 0)
    checked.registry.picked(second, 1000, 0)
    await eventually(lambda: len(checked.checker.mismatches) == 2)
    assert [(one.kind, one.endpoint) for one in checked.checker.mismatches] == [
        (Kind.RANKS, engine.endpoint),
        (Kind.EVENTS, second),
    ]
    assert (engine.asked, engine.compared, checked.checker.checked) == (1, ["m"], 2)
    assert checked.learnt == (1, [])
    checked.registry.expand(engine.endpoint, Ranks((0,)))
    await eventually(lambda: checked.checker.mismatches == [] and checked.checker.checked == 1)
