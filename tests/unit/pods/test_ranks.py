"""Each data-parallel rank behind a port is an endpoint, once its engine has told how many there are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from multipick_epp.engines import EngineClient
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.pods import ranks as ranks_module
from multipick_epp.pods.endpoints import Engine, PodEndpoint, Ranks, endpoints_of
from multipick_epp.pods.failures import Asked, Failures
from multipick_epp.pods.monitor import Monitor
from multipick_epp.pods.ranks import RANKS_AT_MOST, RankWatch
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.state.memory import MemoryState
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint, Load, Mode, address_of, host_of, rank_at, rank_of

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
A0, A1 = rank_at(A, 0), rank_at(A, 1)
TWO = Ranks((0, 1))


@pytest.mark.parametrize("address", [A, Endpoint("[fd00::1]:8000"), Endpoint("pod-1.svc:80")])
def test_an_endpoint_of_a_rank_is_dialled_at_its_address(address: Endpoint) -> None:
    assert (address_of(address), rank_of(address)) == (address, None)
    assert (address_of(rank_at(address, 3)), rank_of(rank_at(address, 3))) == (address, 3)
    assert host_of(rank_at(address, 3)) == host_of(address) == address.rpartition(":")[0]


# --- endpoints of an engine


def of(pod: PodEndpoint, *numbers: int) -> Sequence[PodEndpoint]:
    return endpoints_of(Engine(pod, Ranks(numbers)))


def test_a_port_with_one_rank_is_the_endpoint_itself() -> None:
    assert of(PodEndpoint(A)) == of(PodEndpoint(A), 0) == [PodEndpoint(A)]


def test_ranks_of_a_second_pod_are_counted_from_0_by_its_own_server() -> None:
    found = of(PodEndpoint(A), *range(8, 16))
    assert [each.endpoint for each in found] == [rank_at(A, rank) for rank in range(8)]
    assert [each.rank for each in found] == [*range(8, 16)]


@pytest.mark.parametrize(("of_the_port", "told", "rank"), [(0, 0, 0), (1, 1, 1), (1, 9, 9), (1, 0, 1), (0, 9, 9)])
def test_with_a_port_a_rank_the_number_over_all_pods_counts(of_the_port: int, told: int, rank: int) -> None:
    """`ports[r]` is rank r of the pod; engines that are no group all call themselves 0."""
    assert [each.rank for each in of(PodEndpoint(A, rank=of_the_port), told)] == [rank]


def test_a_stated_publisher_is_the_first_ranks() -> None:
    pod = PodEndpoint(A, "tcp://10.0.0.1:65534", "tcp://10.0.0.1:7000", started_ms=5)
    first, second, third = of(pod, 4, 5, 6)
    assert (first.events, first.replay) == ("tcp://10.0.0.1:65534", "tcp://10.0.0.1:7000")
    assert (second.events, second.replay) == ("tcp://10.0.0.1:65535", "tcp://10.0.0.1:7001")
    assert (third.events, third.replay, third.started_ms) == (None, "tcp://10.0.0.1:7002", 5)


# --- the registry


@pytest.fixture
def registry() -> Registry:
    registry = Registry(asks_ranks=True)
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    registry.mark(A, True)
    registry.mark(B, True)
    registry.expand(B, Ranks())
    return registry


def test_an_engine_is_not_ready_before_it_has_told_its_ranks(registry: Registry) -> None:
    assert registry.ready().endpoints == [B]
    assert registry.untold() == [A]
    registry.expand(A, TWO)
    assert sorted(registry.ready().endpoints) == [A0, A1, B]
    assert registry.untold() == []


def test_listeners_hear_of_ranks_as_of_other_endpoints(registry: Registry) -> None:
    gone, heard = list[Endpoint](), list[list[Endpoint]]()
    registry.on_gone(gone.append)
    registry.on_change(lambda pods: heard.append([pod.endpoint for pod in pods]))
    registry.expand(A, TWO)
    registry.expand(A, TWO)
    assert (gone, heard) == ([A], [[A0, A1, B]])
    registry.set([PodEndpoint(B)])
    assert gone == [A, A0, A1]
    registry.expand(A, TWO)  # a stranger by now
    assert heard == [[A0, A1, B], [B]]


def test_an_engine_that_starts_anew_keeps_its_ranks_and_is_asked_again(registry: Registry) -> None:
    registry.expand(A, TWO)
    registry.set([PodEndpoint(A, started_ms=7), PodEndpoint(B)])
    assert {*registry.all()} == {A0, A1, B}
    assert registry.ready().endpoints == [B]
    registry.expand(A, TWO)
    assert {*registry.ready().endpoints} == {A0, A1, B}
    state = registry.state(A1)
    assert state is not None
    assert (state.pod.started_ms, state.incarnation) == (7, 2)


def test_what_holds_for_a_port_holds_for_its_ranks(registry: Registry) -> None:
    registry.expand(A, TWO)
    registry.serves(A, ServedModels(["m"], adapters=frozenset({"lora"})))
    assert {*registry.ready(model="lora").endpoints} == {A0, A1}
    assert {*registry.ready(["10.0.0.1:8000"]).endpoints} == {A0, A1}
    assert {*registry.ready(["10.0.0.1"]).endpoints} == {A0, A1}
    assert registry.ready(["10.0.0.1:8000"]).ports == {A: [0, 1]}
    registry.leave_out({A})
    assert registry.ready().endpoints == [B]
    registry.leave_out(())
    registry.mark(A, False)
    assert registry.ready().endpoints == [B]


def test_ranks_begin_with_the_figures_that_were_seen_of_them(registry: Registry) -> None:
    page = Gauges(running=5, ranks={8: Gauges(running=1), 9: Gauges(running=4, block_size=16)})
    registry.scraped(A, page, Unexplained())
    registry.expand(A, Ranks((8, 9)))
    columns = registry.ready()
    assert [columns.running[columns.endpoints.index(rank)] for rank in (A0, A1)] == [1, 4]


def test_a_doubt_keeps_an_endpoint_from_being_exact_and_nothing_else(registry: Registry) -> None:
    registry.expand(A, Ranks(doubt="why"))
    assert registry.mode(A, Mode.EXACT) is Mode.APPROX
    assert registry.mode(A, Mode.BLIND) is Mode.BLIND
    assert registry.mode(B, Mode.EXACT) is Mode.EXACT
    registry.expand(A, Ranks())
    assert registry.mode(A, Mode.EXACT) is Mode.EXACT


def test_the_ranks_of_a_port_fail_together(registry: Registry) -> None:
    registry.expand(A, TWO)
    state = MemoryState()
    failures = Failures(registry, state, lambda _: None, lambda: 0.0)
    failures.answered(B, 200, Asked.OWN_MODEL, "/v1/completions")
    for rank in (A0, A1, A0):
        failures.answered(rank, 500, Asked.OWN_MODEL, "/v1/completions")
    assert failures.left_out == {A: 1}
    assert registry.ready().endpoints == [B]
    registry.expand(A, Ranks((0, 1, 2)))
    assert failures.left_out == {A: 1}, "other ranks, the same server"
    registry.set([PodEndpoint(B)])
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    assert failures.left_out == {}


# --- engines are asked


@dataclass
class Server:
    """An engine's HTTP side; what it answers may change."""

    sources: Any = None  # None: 404, a number: that status
    page: str | None = ""  # None: 404
    version: str | None = None
    address: Endpoint = field(init=False)
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/kv_event_sources":
            if self.sources is None or isinstance(self.sources, int):
                return web.Response(status=self.sources or 404)
            return web.json_response(self.sources)
        if request.path == "/metrics" and self.page is not None:
            return web.Response(text=self.page)
        if request.path == "/version" and self.version is not None:
            return web.json_response({"version": self.version})
        return web.Response(status=404)


def sources(*ranks: int) -> dict[str, Any]:
    return {str(rank): {"endpoint": f"tcp://*:{5557 + rank}"} for rank in ranks}


def page(*ranks: int, label: str = "engine", name: str = "vllm:num_requests_running") -> str:
    return "".join(f'{name}{{{label}="{rank}",model_name="m"}} {rank + 1}.0\n' for rank in ranks)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.address = Endpoint(f"127.0.0.1:{runner.addresses[0][1]}")
    yield server
    await runner.cleanup()


@pytest.fixture
async def watched(
    server: Server, engines: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Registry, RankWatch]]:
    monkeypatch.setattr(ranks_module, "_AGAIN_S", (0.005, 0.01))
    registry = Registry(asks_ranks=True)
    registry.set([PodEndpoint(server.address)])
    watch = RankWatch(registry, engines, Supervisor())
    yield registry, watch
    await watch.close()


SGLANG = page(0, 1, label="dp_rank", name="sglang:num_running_reqs")
CHOOSES = "its engine chooses among 2 data-parallel ranks, and can't be told which"
UNKNOWN = "its engine has not said how many data-parallel ranks it has"


@pytest.mark.parametrize(
    ("said", "ranks"),
    [
        (Server(sources(0)), Ranks((0,))),
        (Server(sources(0, 1)), TWO),
        (Server(sources(1, 0), page(0)), TWO),  # who publishes is known by name
        (Server(sources(*range(8, 16))), Ranks(tuple(range(8, 16)))),
        (Server({}, page(0, 1)), TWO),  # events are off: it knows the question, and heeds the header
        (Server({}, ""), Ranks()),
        (Server(None, page(0, 1), "0.12.0"), TWO),
        (Server(None, page(0, 1), "0.30.1rc2.dev3+g1"), TWO),
        (Server(None, page(0, 1), "0.11.2"), Ranks((0, 1), CHOOSES)),
        (Server(None, page(0, 1), "main"), Ranks((0, 1), CHOOSES)),
        (Server(None, page(0, 1), None), Ranks((0, 1), CHOOSES)),
        (Server(None, SGLANG), Ranks((0, 1), CHOOSES)),
        (Server(None, page(0, name="sglang:num_running_reqs", label="tp_rank")), Ranks()),
        (Server(None, page(3)), Ranks((3,))),
        (Server(["none"], page(0, 1), "0.31.0"), TWO),
        (Server(None, None), Ranks(doubt=UNKNOWN)),
        (Server(503, page(0, 1)), Ranks(doubt=UNKNOWN)),
        (Server(500), Ranks(doubt=UNKNOWN)),
        (
            Server(sources(*range(RANKS_AT_MOST + 1))),
            Ranks(doubt=f"its engine has 65 data-parallel ranks, of which {RANKS_AT_MOST} at most can be followed"),
        ),
        (Server(sources(*range(RANKS_AT_MOST))), Ranks(tuple(range(RANKS_AT_MOST)))),
    ],
)
async def test_an_engine_tells_its_ranks(
    server: Server, watched: tuple[Registry, RankWatch], said: Server, ranks: Ranks
) -> None:
    server.sources, server.page, server.version = said.sources, said.page, said.version
    registry, watch = watched
    watch.start()
    registry.mark(server.address, True)
    async with asyncio.timeout(60):
        await watch.asked()
    engine = registry.engine(server.address)
    assert engine is not None
    assert (engine.ranks, engine.obeys) == (ranks, not ranks.doubt)


async def test_who_did_not_answer_is_asked_again_and_who_did_is_not(
    server: Server, watched: tuple[Registry, RankWatch]
) -> None:
    registry, watch = watched
    server.sources = 503
    watch.start()
    registry.mark(server.address, True)
    await until(lambda: server.asked.count("/kv_event_sources") >= 3)
    assert registry.ready().endpoints == [server.address]
    assert registry.mode(server.address, Mode.EXACT) is Mode.APPROX
    server.sources = sources(0, 1)
    await until(lambda: len(registry.ready().endpoints) == 2)
    server.asked.clear()
    registry.mark(server.address, False)
    registry.mark(server.address, True)
    await until(lambda: not registry.untold())
    assert server.asked == ["/kv_event_sources"]


async def test_an_engine_that_was_started_again_may_have_other_ranks(
    server: Server, watched: tuple[Registry, RankWatch]
) -> None:
    registry, watch = watched
    server.sources = sources(0, 1)
    watch.start()
    registry.mark(server.address, True)
    await until(lambda: len(registry.ready().endpoints) == 2)
    server.sources = sources(0)
    registry.mark(server.address, False)
    registry.mark(server.address, True)
    await until(lambda: registry.ready().endpoints == [server.address])
    server.sources = 503  # what it had before is the best guess
    registry.expand(server.address, TWO)
    registry.mark(server.address, False)
    registry.mark(server.address, True)
    await until(lambda: len(registry.ready().endpoints) == 2)
    assert registry.mode(rank_at(server.address, 1), Mode.EXACT) is Mode.APPROX


async def test_one_look_gives_each_rank_its_own_figures(server: Server, engines: EngineClient) -> None:
    registry = Registry()
    registry.set([PodEndpoint(server.address)])
    registry.expand(server.address, Ranks((8, 9)))
    server.page = page(8, 9)
    first, second = registry.endpoints_at(server.address)
    loads = {first: Load(0, 9), second: Load(0, 4)}
    monitor = Monitor(registry, Supervisor(), loads.__getitem__, lambda: 100.0, interval_s=0.005)
    monitor.start()
    await until(lambda: registry.ready().running == [9, 10])
    loads[first] = Load(0, 12)  # charged to one, served by the other: nobody's requests are strangers'
    await until(lambda: registry.ready().unexplained_in_flight == [0, 3])
    loads[first], loads[second] = Load(0, 15), Load(0, 4)
    await until(lambda: registry.ready().unexplained_in_flight == [0, 0])
    loads[first] = loads[second] = Load(0, 4)
    await until(lambda: registry.ready().unexplained_in_flight == [5, 6])
    await monitor.close()
    assert set(server.asked) == {"/metrics"}
