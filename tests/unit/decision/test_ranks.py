"""A rank behind a port is picked like any endpoint where the engine can be told; else its port is, as one candidate."""

from random import Random

import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import Known, PromptReader
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.extproc.pick import Ended, Pick, PickRequest
from multipick_epp.pods.endpoints import PodEndpoint, Ranks
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.policy.registry import policy
from multipick_epp.state.cache import Cache
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Candidates, Delta
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReplicaId, ReservationId, rank_at

A, B, C = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2, 3))
A0, A1, B0, B1 = rank_at(A, 0), rank_at(A, 1), rank_at(B, 0), rank_at(B, 1)
HEADER = "x-data-parallel-rank"
COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"


def keys(tokens: int) -> list[BlockKey]:
    return block_keys(root_key(b"", "m"), range(tokens), 16)


class Reader(PromptReader):
    """Every request has the same prompt of 1,000 tokens."""

    def __init__(self) -> None:
        pass

    async def read(self, request: PickRequest) -> Known:
        return Known([Chains(1000, {16: keys(1000)})])


class Bench:
    """A picker over two ports with two ranks each, and one with one."""

    def __init__(self, doubt: str = "", destinations: int = 8) -> None:
        self.state = MemoryState()
        self.registry = Registry()
        self.registry.set([PodEndpoint(A), PodEndpoint(B), PodEndpoint(C)])
        self.registry.expand(A, Ranks((8, 9), doubt))
        self.registry.expand(B, Ranks((0, 1), doubt))
        for address in (A, B, C):
            self.registry.mark(address, True)
        for endpoint in self.registry.all():
            self.registry.scraped(endpoint, Gauges(block_size=16), Unexplained())
        settings = DecisionOptions("lmetric", policy("lmetric"), 5.0, destinations, True, ["m"])
        self.failures = Failures(self.registry, self.state, lambda _: None, lambda: 0.0)
        self.picker = PoolPicker(
            settings, ReplicaId("me"), self.state, self.registry, self.failures, Reader(), Metrics(), Random(3)
        )

    async def store(self, endpoint: Endpoint, tokens: int) -> None:
        await self.state.take_over(endpoint)
        await self.state.set_mode(endpoint, 1, Mode.EXACT)
        await self.state.apply([Delta(Cache(endpoint, 16), 1, 0, 0, stored=keys(tokens))])

    async def busy(self, *endpoints: Endpoint) -> None:
        for number, endpoint in enumerate(endpoints):
            for each in range(20):
                await self.state.reserve(ReservationId(f"x{number}-{each}"), Candidates([endpoint], [1000]))

    async def pick(self, path: str = COMPLETIONS) -> Pick:
        outcome = await self.picker.pick(PickRequest("POST", path, {}, b"{}", 2))
        assert isinstance(outcome, Pick)
        return outcome


def id_of(pick: Pick) -> ReservationId:
    assert pick.reservation is not None
    return pick.reservation


HEEDING = ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/inference/v1/generate"]


@pytest.mark.parametrize("path", HEEDING)
async def test_the_engine_is_told_which_of_its_ranks_was_picked(path: str) -> None:
    bench = Bench()
    await bench.store(A1, 800)
    pick = await bench.pick(path)
    assert pick.endpoints[0] == A1
    assert pick.request_headers == {HEADER: "1"}, "by its own count"
    assert (pick.response_headers["x-multipick-mode"], pick.response_headers["x-multipick-hit-tokens"]) == (
        "exact",
        "800",
    )
    assert (bench.state.load(A0), bench.state.load(A1)) == (Load(), Load(200, 1))


async def test_an_endpoint_with_one_rank_is_told_none() -> None:
    bench = Bench()
    await bench.store(C, 800)
    pick = await bench.pick()
    assert (pick.endpoints, pick.request_headers) == ((C,), {}), "nobody else serves a request without a rank alike"


async def test_a_fallback_gets_the_same_header_so_it_is_the_same_rank_there() -> None:
    bench = Bench()
    await bench.store(A1, 800)
    assert (await bench.pick()).endpoints == (A1, B1)


UNHEEDING = ["/v1/responses", "/v1/embeddings", "/v1/realtime", "/v1/messages/count_tokens", "/generate", "/v1/models"]


@pytest.mark.parametrize("path", UNHEEDING)
async def test_where_no_rank_can_be_told_the_port_is_picked_and_called_approx(path: str) -> None:
    bench = Bench()
    await bench.store(A0, 480)
    await bench.store(A1, 800)
    pick = await bench.pick(path)
    assert pick.endpoints[0] in (A0, A1)
    assert pick.request_headers == {}
    assert pick.response_headers["x-multipick-mode"] == "approx"
    assert pick.response_headers["x-multipick-hit-tokens"] == "480", "whichever rank serves it"
    assert bench.state.load(pick.endpoints[0]) == Load(520, 1)
    assert {endpoint.partition("#")[0] for endpoint in pick.endpoints} == {A, B, C}, "each port once"


async def test_what_one_rank_alone_holds_is_no_hit_of_its_port() -> None:
    bench = Bench()
    await bench.store(A1, 992)
    await bench.store(C, 160)
    assert (await bench.pick(RESPONSES)).endpoints[0] == C


async def test_a_port_costs_what_its_cheapest_rank_costs_and_is_charged_there() -> None:
    bench = Bench()
    await bench.busy(A0, B0, B1, C)
    pick = await bench.pick(RESPONSES)
    assert pick.endpoints[0] == A1
    assert bench.state.load(A1) == Load(1000, 1)
    bench.picker.release(id_of(pick), Ended.WHOLE)
    assert bench.state.load(A1) == Load()


async def test_nothing_is_expected_of_a_rank_that_may_not_have_been_used() -> None:
    bench = Bench()
    await bench.busy(C)
    await bench.pick(RESPONSES)
    assert bench.state.hits(Chains(1000, {16: keys(1000)})) == {}
    await bench.pick(COMPLETIONS)
    assert len(bench.state.hits(Chains(1000, {16: keys(1000)}))) == 1
    longest = [state.longest_prompt for each in bench.registry.all() if (state := bench.registry.state(each))]
    assert sorted(longest) == [0, 0, 0, 0, 1000]


async def test_its_first_byte_ends_what_is_queued() -> None:
    bench = Bench()
    pick = await bench.pick(RESPONSES)
    bench.picker.first_byte(id_of(pick))
    assert bench.state.load(pick.endpoints[0]) == Load(0, 1)


@pytest.mark.parametrize("path", [COMPLETIONS, RESPONSES])
async def test_an_engine_that_can_not_be_told_chooses_on_every_path(path: str) -> None:
    bench = Bench(doubt="an old one")
    await bench.store(A0, 480)
    await bench.store(A1, 800)
    pick = await bench.pick(path)
    assert pick.endpoints[0] in (A0, A1)
    assert pick.request_headers == {}
    assert pick.response_headers["x-multipick-mode"] == "approx"
    assert pick.response_headers["x-multipick-hit-tokens"] == "480"


# --- the gateway tells who served: an address, without a rank


async def test_the_picked_address_is_the_picked_rank() -> None:
    bench = Bench()
    await bench.store(A1, 800)
    pick = await bench.pick()
    bench.picker.served(id_of(pick), A)
    assert (bench.state.load(A0), bench.state.load(A1)) == (Load(), Load(200, 1))


async def test_another_address_serves_by_the_rank_in_the_header() -> None:
    bench = Bench()
    await bench.store(A1, 800)
    await bench.store(B1, 320)
    pick = await bench.pick()
    bench.picker.served(id_of(pick), B)
    assert (bench.state.load(A1), bench.state.load(B0), bench.state.load(B1)) == (Load(), Load(), Load(680, 1))
    bench.picker.served(id_of(pick), Endpoint("8.8.8.8:80"))
    assert bench.state.load(B1) == Load(680, 1)
    bench.picker.release(id_of(pick), Ended.WHOLE)
    assert bench.state.load(B1) == Load()


async def test_another_address_that_chooses_by_itself_is_charged_what_is_certain() -> None:
    bench = Bench()
    await bench.store(C, 800)
    await bench.store(B0, 320)
    await bench.store(B1, 160)
    pick = await bench.pick()
    assert pick.endpoints == (C,)
    bench.picker.served(id_of(pick), B)
    loads = [bench.state.load(B0), bench.state.load(B1)]
    assert sorted(loads) == [Load(), Load(840, 1)]
    bench.picker.release(id_of(pick), Ended.WHOLE)
    assert bench.state.load(B0) == bench.state.load(B1) == Load()
