import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import Blind, Known, PromptReader
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.extproc.pick import Ended, NoPick, Pick, PickRequest
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.policy.registry import BUILT_IN, policy
from multipick_epp.requests.stored import Stored
from multipick_epp.state.cache import Cache
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Candidates, Context, Delta, EqualPrompt, Reserved
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReplicaId, ReservationId

A, B, C = (Endpoint(f"10.0.0.{i}:8000") for i in (1, 2, 3))
ROOT = root_key(b"", "m")
REQUEST = PickRequest("POST", "/v1/completions", {}, b"{}", 2)


class Reader(PromptReader):
    """Gives the prompt that the test set, or does what it says instead."""

    def __init__(self, prompt: Known | Blind) -> None:
        self.prompt = prompt
        self.hang = asyncio.Event()
        self.fail: Exception | None = None

    async def read(self, request: PickRequest) -> Known | Blind:
        if self.fail:
            raise self.fail
        if self.prompt.prompt_tokens == 0:
            await self.hang.wait()
        return self.prompt


def keys(tokens: int) -> list[BlockKey]:
    return block_keys(ROOT, range(tokens), 16)


def known(tokens: int, reads_cache: bool = True) -> Known:
    return Known([Chains(tokens, {16: keys(tokens)})], reads_cache)


class Bench:
    """A picker over MemoryState with three ready endpoints."""

    def __init__(
        self,
        prompt: Known | Blind,
        policy_name: str = "lmetric",
        destinations: int = 1,
        state: MemoryState | None = None,
        shadow: tuple[str, ...] = (),
        unseen_s: float = 1.0,
    ) -> None:
        self.state = state or MemoryState()
        self.registry = Registry()
        self.registry.set([PodEndpoint(A), PodEndpoint(B), PodEndpoint(C)])
        for endpoint in (A, B, C):
            self.registry.mark(endpoint, True)
        self.metrics = Metrics()
        self.reader = Reader(prompt)
        settings = DecisionOptions(
            policy_name,
            policy(policy_name),
            0.05,
            destinations,
            True,
            ["m"],
            shadow={name: policy(name) for name in shadow},
            unseen_s=unseen_s,
        )
        self.doubted: list[Endpoint] = []
        failures = Failures(self.registry, self.state, self.doubted.append, lambda: 0.0)
        self.picker = PoolPicker(
            settings, ReplicaId("me"), self.state, self.registry, failures, self.reader, self.metrics, Random(3)
        )

    async def store(self, endpoint: Endpoint, tokens: int, last: int = 0) -> None:
        cache = Cache(endpoint, 16)
        tenure = await self.state.take_over(endpoint)
        assert tenure is not None
        await self.state.set_mode(endpoint, tenure.epoch, Mode.EXACT)
        await self.state.apply([Delta(cache, tenure.epoch, 0, last, stored=keys(tokens))])

    async def pick(self, subset: tuple[str, ...] | None = None) -> Pick:
        outcome = await self.picker.pick(PickRequest("POST", "/v1/completions", {}, b"{}", 2, subset))
        assert isinstance(outcome, Pick)
        return outcome

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0)


async def test_the_endpoint_that_holds_the_prompt_wins_and_is_charged_what_is_new() -> None:
    bench = Bench(known(1000))
    await bench.store(B, 800)
    pick = await bench.pick()
    assert pick.endpoints == (B,)
    assert bench.state.load(B) == Load(200, 1)
    assert pick.response_headers["x-multipick-hit-tokens"] == "800"
    assert pick.response_headers["x-multipick-mode"] == "exact"


async def test_a_busy_holder_loses_to_an_idle_stranger() -> None:
    bench = Bench(known(1000))
    await bench.store(B, 800)
    for number in range(6):  # (200 + 6 * 1) * 7 > 1000
        await bench.state.reserve(ReservationId(f"x{number}"), Candidates([B], [1]))
    assert (await bench.pick()).endpoints != (B,)


async def test_release_takes_the_whole_charge_back_once() -> None:
    bench = Bench(known(1000))
    pick = await bench.pick()
    assert pick.reservation is not None
    endpoint = pick.endpoints[0]
    bench.picker.release(pick.reservation, Ended.WHOLE)
    bench.picker.release(pick.reservation, Ended.WHOLE)
    bench.picker.close()
    assert bench.state.load(endpoint) == Load(0, 0)
    assert bench.picker.in_flight == 0


async def test_a_request_that_goes_on_unseen_stays_charged_until_its_engine_can_tell_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    bench = Bench(known(1000), unseen_s=5.0)
    for each in (A, B, C):
        bench.registry.scraped(each, Gauges(block_size=16), Unexplained())
    pick = await bench.pick()
    endpoint = pick.endpoints[0]
    bench.picker.release(id_of(pick), Ended.UNSEEN)
    assert bench.state.load(endpoint) == Load(1000, 1)
    now += 4.9
    await asyncio.sleep(0)
    assert bench.picker.in_flight == 1
    now += 0.2
    await bench.until(lambda: not bench.picker.in_flight)
    assert bench.state.load(endpoint) == Load(0, 0)
    assert endpoint in bench.state.hits(known(1000).chains[0])  # it was sent on, so it was computed


async def test_stored_blocks_shrink_the_queue_and_the_first_byte_empties_it() -> None:
    bench = Bench(known(1000))
    for each in (A, B, C):
        bench.registry.scraped(each, Gauges(block_size=16), Unexplained())
    pick = await bench.pick()
    endpoint = pick.endpoints[0]
    await bench.state.take_over(endpoint)
    await bench.state.apply([Delta(Cache(endpoint, 16), 1, 0, 0, stored=keys(512))])
    await bench.until(lambda: bench.state.load(endpoint).queued_tokens == 1000 - 512)
    assert pick.reservation is not None
    bench.picker.first_byte(pick.reservation)
    await bench.until(lambda: bench.state.load(endpoint) == Load(0, 1))


async def test_a_routed_prompt_counts_as_resident_before_any_event() -> None:
    bench = Bench(known(1000))
    bench.registry.scraped(A, Gauges(block_size=16), Unexplained())
    bench.registry.scraped(B, Gauges(block_size=16), Unexplained())
    bench.registry.scraped(C, Gauges(block_size=16), Unexplained())
    first = await bench.pick()
    bench.picker.close()  # the reservation is gone, the expectation stays
    second = await bench.pick()
    assert second.endpoints == first.endpoints
    assert second.response_headers["x-multipick-hit-tokens"] == "992"
    assert second.response_headers["x-multipick-mode"] == "approx"  # our own routing history, no events


async def test_a_request_that_another_endpoint_served_is_charged_there() -> None:
    bench = Bench(known(1000))
    pick = await bench.pick()
    other = next(e for e in (A, B, C) if e != pick.endpoints[0])
    assert pick.reservation is not None
    bench.picker.served(pick.reservation, other)
    await bench.until(lambda: bench.state.load(other).in_flight == 1)
    assert bench.state.load(pick.endpoints[0]).in_flight == 0
    bench.picker.served(pick.reservation, Endpoint("8.8.8.8:80"))  # not of the pool: believed by nobody
    bench.picker.release(pick.reservation, Ended.WHOLE)
    await bench.until(lambda: bench.state.load(other).in_flight == 0)


def gauged(prompt: Known | Blind) -> Bench:
    """All endpoints have blocks of 16 tokens; none sends events yet."""
    bench = Bench(prompt)
    for endpoint in (A, B, C):
        bench.registry.scraped(endpoint, Gauges(block_size=16), Unexplained())
    return bench


def id_of(pick: Pick) -> ReservationId:
    assert pick.reservation is not None
    return pick.reservation


async def test_what_another_endpoint_serves_is_charged_and_watched_as_what_is_new_there() -> None:
    bench = gauged(known(1000))
    await bench.store(B, 160)
    await bench.store(C, 800)
    pick = await bench.pick()
    assert pick.endpoints == (C,)
    bench.picker.served(id_of(pick), B)
    assert (bench.state.load(B), bench.state.load(C)) == (Load(840, 1), Load())
    await bench.store(B, 512, last=1)
    assert bench.state.load(B) == Load(488, 1)
    bench.picker.first_byte(id_of(pick))
    assert bench.state.load(B) == Load(0, 1)
    bench.picker.release(id_of(pick), Ended.WHOLE)
    assert bench.state.load(B) == Load()


async def test_what_another_endpoint_serves_is_expected_there_and_not_where_it_was_picked() -> None:
    bench = gauged(known(1000))
    pick = await bench.pick()
    other = next(endpoint for endpoint in (A, B, C) if endpoint != pick.endpoints[0])
    bench.picker.served(id_of(pick), other)
    chains = known(1000).chains[0]
    assert bench.state.hits(chains) == {other: 992}


async def test_what_moves_after_its_first_byte_has_nothing_to_prefill() -> None:
    bench = gauged(known(1000))
    pick = await bench.pick()
    other = next(endpoint for endpoint in (A, B, C) if endpoint != pick.endpoints[0])
    bench.picker.first_byte(id_of(pick))
    bench.picker.served(id_of(pick), other)
    assert bench.state.load(other) == Load(0, 1)


async def test_a_prompt_that_was_not_read_moves_with_its_whole_charge_and_ends_with_the_first_byte() -> None:
    bench = gauged(Blind(700, "no tokenizer"))
    pick = await bench.pick()
    other = next(endpoint for endpoint in (A, B, C) if endpoint != pick.endpoints[0])
    bench.picker.served(id_of(pick), other)
    assert bench.state.load(other) == Load(700, 1)
    bench.picker.first_byte(id_of(pick))
    assert bench.state.load(other) == Load(0, 1)


@pytest.mark.parametrize("ended", [Ended.ABORTED, Ended.FAILED])
async def test_the_next_of_equal_prompts_pays_when_the_first_is_aborted(ended: Ended) -> None:
    bench = gauged(known(4096))
    first, second = await bench.pick(("10.0.0.1:8000",)), await bench.pick(("10.0.0.1:8000",))
    assert bench.state.load(A) == Load(4096 + 1, 2)
    bench.picker.release(id_of(first), ended)
    assert bench.state.load(A) == Load(4096, 1)
    third = await bench.pick(("10.0.0.1:8000",))
    assert third.response_headers["x-multipick-hit-tokens"] == "4080", "the second will bring it"
    bench.picker.release(id_of(second), ended)
    bench.picker.release(id_of(third), ended)
    assert bench.state.load(A) == Load()
    assert bench.state.hits(known(4096).chains[0]) == {}


async def test_a_request_that_failed_computed_nothing_even_if_it_answered() -> None:
    bench = gauged(known(4096))
    first, second = await bench.pick(("10.0.0.1:8000",)), await bench.pick(("10.0.0.1:8000",))
    bench.picker.first_byte(id_of(first))  # of a 500
    bench.picker.release(id_of(first), Ended.FAILED)
    assert bench.state.load(A) == Load(4096, 1)
    bench.picker.release(id_of(second), Ended.FAILED)
    assert bench.state.hits(known(4096).chains[0]) == {}


@pytest.mark.parametrize(
    ("ended", "events", "expected"),
    [
        (Ended.WHOLE, True, True),
        (Ended.WHOLE, False, True),
        (Ended.CLOSED, True, False),  # events would have told of it
        (Ended.CLOSED, False, True),  # our own history is all that is known there
        (Ended.ABORTED, True, False),
        (Ended.ABORTED, False, False),
        (Ended.FAILED, True, False),
        (Ended.FAILED, False, False),
    ],
)
async def test_what_a_request_leaves_expected_depends_on_how_it_ended(
    ended: Ended, events: bool, expected: bool
) -> None:
    bench = gauged(known(4096))
    if events:
        await bench.store(A, 0)
    pick = await bench.pick(("10.0.0.1:8000",))
    bench.picker.release(id_of(pick), ended)
    assert (A in bench.state.hits(known(4096).chains[0])) is expected


async def test_what_events_told_of_stays_whatever_became_of_the_request() -> None:
    bench = gauged(known(4096))
    await bench.store(A, 0)
    pick = await bench.pick(("10.0.0.1:8000",))
    await bench.store(A, 2048, last=1)
    bench.picker.release(id_of(pick), Ended.FAILED)
    assert bench.state.hits(known(4096).chains[0])[A] == 2048


async def test_no_ready_endpoint_is_a_503_with_retry_after() -> None:
    bench = Bench(known(10))
    for endpoint in (A, B, C):
        bench.registry.mark(endpoint, False)
    refused = await bench.picker.pick(REQUEST)
    assert isinstance(refused, NoPick)
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert json.loads(refused.body)["error"]["message"]


async def test_only_the_subset_is_picked_from_and_an_empty_one_is_refused() -> None:
    bench = Bench(known(10))
    assert {(await bench.pick(("10.0.0.3:8000",))).endpoints[0] for _ in range(5)} == {C}
    refused = await bench.picker.pick(PickRequest("POST", "/v1/completions", {}, b"{}", 2, ()))
    assert isinstance(refused, NoPick)
    assert refused.reason == "no-endpoint-in-subset"


async def test_a_late_prompt_is_routed_by_load() -> None:
    bench = Bench(Blind(0, "hang"))
    await bench.state.reserve(ReservationId("x"), Candidates([A], [5000]))
    pick = await bench.pick()
    assert pick.endpoints[0] != A
    assert pick.response_headers["x-multipick-mode"] == "blind"
    assert bench.metrics.registry.get_sample_value("multipick_fallbacks_total", {"reason": "deadline"}) == 1


async def test_a_fault_while_reading_costs_the_hit_and_not_the_request() -> None:
    bench = Bench(known(1000))
    bench.reader.fail = ValueError("boom")
    assert (await bench.pick()).response_headers["x-multipick-mode"] == "blind"


async def test_a_prompt_that_must_be_computed_anew_has_no_hit() -> None:
    bench = Bench(known(1000, reads_cache=False))
    await bench.store(B, 800)
    assert (await bench.pick()).response_headers["x-multipick-hit-tokens"] == "0"


async def test_unexplained_load_counts() -> None:
    bench = Bench(Blind(100, "no tokenizer"))
    bench.registry.scraped(A, Gauges(running=9), Unexplained(in_flight=9))
    bench.registry.scraped(B, Gauges(), Unexplained(queued_tokens=5000))
    assert {(await bench.pick()).endpoints[0] for _ in range(3)} == {C}  # 100 * 1, 200 * 2, 300 * 3 < A's 100 * 10


async def test_several_destinations_are_the_next_best_ones() -> None:
    bench = Bench(known(1000), destinations=3)
    await bench.store(B, 800)
    await bench.store(C, 400)
    assert (await bench.pick()).endpoints == (B, C, A)


async def test_several_prompts_in_one_request_are_weighed_together() -> None:
    bench = Bench(Known([Chains(1000, {16: keys(1000)}), Chains(500, {16: keys(500)})]))
    await bench.store(B, 800)
    pick = await bench.pick()
    assert pick.endpoints == (B,)
    assert pick.response_headers["x-multipick-hit-tokens"] == str(800 + 496)


class Slow(MemoryState):
    """Its reserve is carried out, but the answer takes until something has happened."""

    def __init__(self, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._happens = happens

    async def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None = None,
        context: Context | None = None,
    ) -> Reserved:
        reserved = await super().reserve(reservation, candidates, equal_prompt, context)
        await self._happens()
        return reserved


async def test_a_hit_that_was_looked_up_before_all_was_known_is_not_called_exact() -> None:
    async def learn() -> None:
        """B's newest blocks come, and with them its cache is known exactly."""
        await bench.state.apply([Delta(Cache(B, 16), 1, 1, 1, stored=keys(800))])
        if bench.state.mode(B) is not Mode.EXACT:
            await bench.state.set_mode(B, 1, Mode.EXACT)

    bench = Bench(known(1000), state=Slow(learn))
    await bench.state.take_over(B)
    await bench.state.set_mode(B, 1, Mode.APPROX)
    await bench.state.apply([Delta(Cache(B, 16), 1, 0, 0, stored=keys(400))])
    for hit_tokens, mode in (("400", "approx"), ("800", "exact")):
        pick = await bench.pick()
        assert pick.endpoints == (B,)
        assert pick.response_headers["x-multipick-hit-tokens"] == hit_tokens
        assert pick.response_headers["x-multipick-mode"] == mode
        bench.picker.release(id_of(pick), Ended.ABORTED)


async def test_a_pick_that_is_cancelled_while_reserving_leaves_no_charge() -> None:
    bench = Bench(known(1000), state=Slow(asyncio.Event().wait))
    task = asyncio.create_task(bench.picker.pick(REQUEST))
    await bench.until(lambda: any(bench.state.load(e).in_flight for e in (A, B, C)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.picker.close()
    assert not any(bench.state.load(e).in_flight for e in (A, B, C))


async def test_round_robin_takes_turns_through_the_whole_decision() -> None:
    bench = Bench(known(1000), policy_name="round-robin")
    await bench.store(B, 800)
    picks = [(await bench.pick()).endpoints[0] for _ in range(6)]
    assert picks[:3] == picks[3:]
    assert set(picks) == {A, B, C}


async def test_a_decision_for_an_endpoint_whose_block_size_is_not_hashed_is_blind() -> None:
    bench = Bench(known(160))
    for endpoint in (A, B, C):
        cache = Cache(endpoint, 1)
        await bench.state.take_over(endpoint)
        await bench.state.set_mode(endpoint, 1, Mode.EXACT)
        await bench.state.apply([Delta(cache, 1, 0, 0, stored=block_keys(ROOT, range(160), 1))])
    picked = await bench.pick()
    assert (picked.response_headers["x-multipick-mode"], picked.response_headers["x-multipick-hit-tokens"]) == (
        Mode.BLIND,
        "0",
    )


async def test_a_pod_that_answers_with_errors_draws_a_few_requests_and_then_none() -> None:
    """All of them prefer it: it "holds" the prompt that it was sent before."""
    bench = Bench(Known([Chains(64, {16: keys(64)})]))
    await bench.store(A, 64)
    sick: list[Endpoint] = []
    for _ in range(20):
        pick = await bench.pick()
        assert pick.reservation is not None
        sick += [pick.endpoints[0]] if pick.endpoints[0] == A else []
        status = 500 if pick.endpoints[0] == A else 200
        bench.picker.answered(pick.reservation, status)
        bench.picker.release(pick.reservation, Ended.FAILED if status == 500 else Ended.WHOLE)
    assert len(sick) == 3


async def test_a_request_for_an_adapter_goes_to_a_pod_that_has_it() -> None:
    bench = Bench(Known([Chains(64, {16: keys(64)})], model="tuned"))
    bench.registry.serves(B, ServedModels(["m"], adapters=frozenset({"tuned"})))
    for _ in range(10):
        pick = await bench.pick()
        assert pick.endpoints == (B,)


async def test_a_pod_that_lacks_an_adapter_is_asked_what_it_has_and_is_not_sick_for_it() -> None:
    bench = Bench(Blind(64, "no tokenizer", model="tuned", read=True))
    for _ in range(10):
        pick = await bench.pick()
        assert pick.reservation is not None
        bench.picker.answered(pick.reservation, 404)
        bench.picker.release(pick.reservation, Ended.FAILED)
    assert set(bench.doubted) == {A, B, C}
    assert list(bench.registry.ready().endpoints) == [A, B, C]


async def test_a_new_response_is_named_after_its_pod_and_asked_for_there() -> None:
    bench = Bench(Blind(64, "no tokenizer", read=True, stored=Stored(nameless=True)))
    pick = await bench.pick()
    assert pick.body is not None
    name = json.loads(pick.body)["request_id"]
    bench.reader.prompt = Blind(1, "no body", stored=Stored(name))
    for _ in range(10):
        again = await bench.pick()
        assert again.endpoints == pick.endpoints
        assert again.body is None
    bench.registry.leave_out(pick.endpoints)
    assert (await bench.pick()).endpoints == pick.endpoints  # no other has it
    subset = tuple({A, B, C} - {*pick.endpoints})
    assert (await bench.pick(subset)).endpoints != pick.endpoints
    bench.registry.mark(pick.endpoints[0], False)
    assert (await bench.pick()).endpoints != pick.endpoints  # its engine would not answer; another says 404


@pytest.mark.parametrize(("policy_name", "shadow"), [("marginal", ()), ("lmetric", ("vllm-v1", "marginal"))])
async def test_contexts_are_accounted_for_where_a_policy_reads_them(policy_name: str, shadow: tuple[str, ...]) -> None:
    bench = Bench(known(1000), policy_name, shadow=shadow)
    pick = await bench.pick()
    assert pick.reservation is not None
    endpoint = pick.endpoints[0]
    assert bench.state.load(endpoint) == Load(1000, 1, 1000, 1)
    bench.picker.first_byte(pick.reservation)
    assert bench.state.load(endpoint) == Load(0, 1, 1000, 0)
    bench.picker.release(pick.reservation, Ended.WHOLE)
    assert bench.state.load(endpoint) == Load()
    bench.picker.close()


async def test_contexts_cost_nothing_where_no_policy_reads_them() -> None:
    bench = Bench(known(1000), shadow=("vllm-v1",))
    pick = await bench.pick()
    assert bench.state.load(pick.endpoints[0]) == Load(1000, 1)
    bench.picker.close()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
async def test_every_policy_finds_an_endpoint_for_an_empty_prompt(name: str) -> None:
    bench = Bench(Known([Chains(0, {16: []})]), name)
    bench.reader.hang.set()
    pick = await bench.pick()
    assert pick.endpoints[0] in (A, B, C)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/x/v1/completions"])
async def test_a_client_that_asks_for_what_no_engine_has_leaves_no_endpoint_out(path: str) -> None:
    bench = Bench(known(100))

    async def ask(path: str, endpoint: Endpoint, status: int, method: str = "POST") -> None:
        pick = await bench.picker.pick(PickRequest(method, path, {}, b"{}", 2, (endpoint,)))
        assert isinstance(pick, Pick)
        assert pick.reservation is not None
        bench.picker.answered(pick.reservation, status)
        bench.picker.release(pick.reservation, Ended.WHOLE)

    await ask("/v1/completions?a=b", B, 200)
    await ask(path, B, 200, "OPTIONS")  # as engines answer browsers, whatever the path
    for _ in range(5):
        await ask(path, A, 404)
    assert bench.registry.ready().endpoints == [A, B, C]
    for _ in range(3):
        await ask("/v1/completions", A, 404)  # which another endpoint has
    assert bench.registry.ready().endpoints == [B, C]


@pytest.mark.parametrize("name", ["vllm-v1", "vllm-032"])
async def test_a_shadow_sees_the_gauges_and_picks_of_the_decision_not_later_ones(name: str) -> None:
    bench = Bench(known(100), name, shadow=(name,))
    for endpoint in (A, B, C):
        bench.registry.scraped(endpoint, Gauges(), Unexplained())
    for _ in range(9):
        await bench.pick()
    bench.registry.scraped(A, Gauges(waiting=9), Unexplained())

    def looked_at(choice: str) -> float:
        labels = {"policy": name, "choice": choice}
        return bench.metrics.registry.get_sample_value("multipick_shadow_decisions_total", labels) or 0.0

    await bench.until(lambda: looked_at("same") + looked_at("other") == 9)
    assert looked_at("same") == 9
    bench.picker.close()


@pytest.mark.parametrize(("policy_name", "goes_to_the_holder"), [("lmetric", True), ("marginal", False)])
async def test_marginal_keeps_away_from_long_contexts(policy_name: str, goes_to_the_holder: bool) -> None:
    bench = Bench(known(1000), policy_name)
    await bench.store(A, 512)
    await bench.state.reserve(ReservationId("long"), Candidates([A], [1]), context=Context(1_000_000))
    # (1 + 488) x 2 against 1,000; but 489 x (1,002,000 + least) against 1,000 x (1,000 + least), the least being 1,000
    assert ((await bench.pick()).endpoints == (A,)) is goes_to_the_holder


async def test_for_marginal_load_of_others_is_as_long_as_the_prompt() -> None:
    bench = Bench(known(1000), "marginal")
    bench.registry.scraped(A, Gauges(running=2), Unexplained(in_flight=2))
    pick = await bench.pick()
    assert pick.reservation is not None
    found = bench.picker.decisions.find(pick.reservation)
    assert found is not None
    # M is 2 x 1,000 + 3 x 1,000 on A and 1,000, the least, on the others
    scores = {each.endpoint: each.score for each in found.considered}
    assert scores == {A: 1000 * 6000, B: 1000 * 2000, C: 1000 * 2000}


async def test_the_reserve_itself_goes_by_marginal() -> None:
    """A burst of prompts that all see the same idle pool spreads over it, the long ones apart."""
    bench = Bench(known(4000), "marginal")
    bench.reader.prompt = known(4000, reads_cache=False)
    long = await asyncio.gather(*(bench.pick() for _ in range(3)))
    assert {pick.endpoints for pick in long} == {(A,), (B,), (C,)}
