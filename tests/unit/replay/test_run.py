from collections import Counter
from statistics import fmean

import pytest
from multipick_epp.policy.hotspot import GUARDED
from multipick_epp.policy.registry import policy
from multipick_sim.replay.capacity import full_load
from multipick_sim.replay.keys import key_maker
from multipick_sim.replay.outcome import BINS, CURVE_POINTS, Arm, outcome
from multipick_sim.replay.run import Replay, Run
from multipick_sim.replay.setup import Setup
from multipick_sim.workloads.generators import GENERATORS, generator
from multipick_sim.workloads.workload import Item, Workload

SMALL = Setup(pods=4, preset="a10-qwen2.5-7b")


def times(run: Run) -> list[tuple[float, float, int, int]]:
    return [(flight.first_s, flight.end_s, flight.row, flight.cached_tokens) for flight in run.flights]


def replay(workload: Workload, name: str = "lmetric", setup: Setup = SMALL, load: float = 1.0, seed: int = 0) -> Run:
    return Replay(workload, policy(name), setup, load, seed).run()


def ttft(run: Run) -> float:
    return fmean(flight.first_s - flight.at_s for flight in run.flights)


@pytest.mark.parametrize("name", ["lmetric", "random", "power-of-two"])
def test_the_same_seed_gives_the_same_numbers(name: str) -> None:
    workload = GENERATORS["chat"](200, 0)
    assert times(replay(workload, name)) == times(replay(workload, name))


def test_another_seed_breaks_ties_otherwise() -> None:
    workload = GENERATORS["chat"](200, 0)
    assert times(replay(workload, "random")) != times(replay(workload, "random", seed=1))


def test_every_request_gets_its_tokens_in_order() -> None:
    run = replay(GENERATORS["mixed"](300, 0).fitting(SMALL.max_tokens))
    assert all(flight.at_s < flight.first_s <= flight.end_s for flight in run.flights)
    assert all(0 <= flight.cached_tokens < flight.item.prompt_tokens for flight in run.flights)


def test_round_robin_gives_every_pod_as_many() -> None:
    run = replay(GENERATORS["api"](100, 0), "round-robin")
    assert set(Counter(flight.row for flight in run.flights).values()) == {25}


def test_a_load_of_two_makes_requests_come_twice_as_fast() -> None:
    workload = GENERATORS["api"](50, 0)
    assert [flight.at_s for flight in replay(workload, load=2.0).flights] == [item.at_s / 2 for item in workload.items]


def test_with_exact_knowledge_hits_are_foreseen_exactly() -> None:
    run = replay(GENERATORS["chat"](300, 0), load=0.2)  # a queue so long that what was there is gone is another matter
    assert all(flight.predicted_tokens == flight.cached_tokens for flight in run.flights)
    assert sum(flight.cached_tokens for flight in run.flights) > 0


def test_an_answer_is_hit_by_the_next_turn() -> None:
    first = Item(0.0, 64, 65, tuple(range(9)), 129)
    second = Item(60.0, 140, 10, tuple(range(9)), 140, 0)
    run = replay(Workload("w", 16, [first, second]))
    # 128 tokens of prompt and answer have KV; 8 blocks of them are full.
    assert run.flights[1].cached_tokens == 128


def test_in_a_closed_loop_no_turn_comes_before_the_one_before_it_has_ended() -> None:
    workload = GENERATORS["agent"](150, 0).fitting(SMALL.max_tokens)
    setup = Setup(pods=2, preset="a10-qwen2.5-7b", closed_loop=True)
    run = replay(workload, setup=setup, load=20.0)
    ends = {flight.item: flight.end_s for flight in run.flights}
    followers = [flight for flight in run.flights if flight.item.after >= 0]
    assert len(run.flights) == 150
    for flight in followers:
        end_s = ends[workload.items[flight.item.after]]
        assert flight.at_s == max(flight.item.at_s / 20.0, end_s)
    assert sum(flight.at_s > flight.item.at_s / 20.0 for flight in followers) > 50


def test_a_closed_loop_of_single_turns_is_an_open_one() -> None:
    workload = GENERATORS["api"](150, 0)
    closed = Setup(pods=4, preset="a10-qwen2.5-7b", closed_loop=True)
    assert times(replay(workload, setup=closed)) == times(replay(workload))


def test_reservations_are_worth_more_than_late_loads() -> None:
    """A burst of equal requests herds to one pod where nobody sees what was sent a moment ago."""
    burst = Workload(
        "burst", 16, [Item(0.001 * n, 4000, 20, tuple(range(1000 * n, 1000 * n + 250)), 4000) for n in range(32)]
    )
    late = Setup(pods=4, preset="a10-qwen2.5-7b", loads_late_s=1.0)
    own = Setup(pods=4, preset="a10-qwen2.5-7b", pickers=8, own_view=True)
    exact = ttft(replay(burst))
    assert max(Counter(flight.row for flight in replay(burst).flights).values()) == 8
    assert ttft(replay(burst, setup=late)) > exact
    assert ttft(replay(burst, setup=own)) > exact


def test_pickers_that_share_their_state_are_as_one() -> None:
    workload = GENERATORS["chat"](200, 0)
    shared = Setup(pods=4, preset="a10-qwen2.5-7b", pickers=4)
    assert times(replay(workload, setup=shared)) == times(replay(workload))


def test_late_events_cost_hits_that_were_not_expected() -> None:
    workload = GENERATORS["chat"](300, 0)
    late = Setup(pods=4, preset="a10-qwen2.5-7b", hits_late_s=2.0)
    wrong = [f for f in replay(workload, setup=late).flights if f.predicted_tokens != f.cached_tokens]
    assert wrong


def test_gauges_are_as_old_as_their_last_look() -> None:
    workload = GENERATORS["api"](200, 0)
    rarely = Setup(pods=4, preset="a10-qwen2.5-7b", gauges_every_s=1000.0)
    # Never looked at after the start, so only its own picks count: each pod in turn.
    assert set(Counter(f.row for f in replay(workload, "vllm-v1", rarely).flights).values()) == {50}
    assert set(Counter(f.row for f in replay(workload, "vllm-v1").flights).values()) != {50}


@pytest.mark.parametrize(("trace", "engine"), [(16, 16), (512, 16), (16, 64)])
def test_equal_prefixes_have_equal_keys_at_any_block_size(trace: int, engine: int) -> None:
    keys = key_maker(trace, engine)
    prompt = 2 * max(trace, engine) + engine // 2
    blocks = -(-prompt // trace)
    one = keys(range(blocks), prompt, prompt + engine)
    other = keys([*range(blocks - 1), 999], prompt, prompt + engine)
    assert len(one) == (prompt + engine - 1) // engine
    shared = (blocks - 1) * trace // engine
    assert one[:shared] == other[:shared]
    assert not set(one[shared:]) & set(other[shared:])


def test_block_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 48"):
        key_maker(512, 48)


def test_full_load_is_what_round_robin_gets_through() -> None:
    workload = GENERATORS["api"](200, 0)
    at_once = Workload("flood", 16, [item._replace(at_s=0.0) for item in workload.items])
    flood = replay(at_once, "round-robin")
    makespan = max(flight.end_s for flight in flood.flights)
    assert full_load(workload, SMALL) == pytest.approx(workload.span_s / makespan)


def test_an_outcome_adds_up() -> None:
    run = replay(GENERATORS["chat"](200, 0))
    found = outcome(Arm("lmetric", 1.0, 0), run, 4)
    assert found.requests == sum(found.pod_requests) == 200
    prefilled = sum(flight.item.prompt_tokens - flight.cached_tokens for flight in run.flights)
    assert sum(found.pod_tokens) == prefilled
    assert found.ttft_s.mean == pytest.approx(ttft(run))
    assert len(found.ttft_curve) == CURVE_POINTS
    assert list(found.ttft_curve) == sorted(found.ttft_curve)
    # Little's law: requests that wait, over time, are the time that requests wait.
    assert fmean(found.waiting) * found.duration_s == pytest.approx(sum(f.first_s - f.at_s for f in run.flights))
    assert len(found.imbalance_over_time) == BINS


def test_the_guard_mends_what_a_hot_prefix_does_to_multiplication() -> None:
    make = generator("hot-prefix:16384:0.5:800")
    assert make is not None
    workload = make(1500, 0)
    off, on = (replay(workload, setup=Setup(guard=guard)) for guard in (False, True))
    before, after = (outcome(Arm("lmetric", 1.0, 0), run, 16) for run in (off, on))
    assert before.hot == 0
    assert after.avoided > 0
    assert after.e2e_s.mean < 0.85 * before.e2e_s.mean
    assert max(after.pod_requests) < max(before.pod_requests)


@pytest.mark.parametrize("name", ["chat", "api"])
def test_the_guard_is_silent_where_prefixes_are_cached_as_they_are_popular(name: str) -> None:
    assert replay(GENERATORS[name](600, 0), setup=Setup(pods=8)).avoided == 0


@pytest.mark.parametrize("name", sorted(GUARDED))
def test_every_rule_that_multiplies_is_guarded(name: str) -> None:
    make = generator("hot-prefix:16384:0.6:800")
    assert make is not None
    assert replay(make(400, 0), name, Setup(pods=8)).hot > 0


def test_other_projects_rules_have_no_guard() -> None:
    make = generator("hot-prefix:16384:0.6:800")
    assert make is not None
    run = replay(make(400, 0), "lmetric-no-queue", Setup(pods=8))
    assert (run.hot, run.avoided) == (0, 0)


def test_pods_of_two_kinds_are_told_apart_by_what_they_prefill() -> None:
    mixed = Setup(pods=4, preset="h100-llama-3.1-8b,a10-qwen2.5-7b")
    assert [engine.limits.num_gpu_blocks for engine in mixed.engines()][:2] == [27_813, 4747]
    workload = GENERATORS["api"](300, 0)
    by_name = {name: replay(workload, name, mixed) for name in ("round-robin", "lmetric", "lmetric-seconds")}
    fast = {name: sum(flight.row % 2 == 0 for flight in run.flights) for name, run in by_name.items()}
    assert fast["round-robin"] == 150
    assert fast["lmetric"] > 200
    assert ttft(by_name["lmetric-seconds"]) < ttft(by_name["round-robin"])


@pytest.mark.parametrize("setup", [SMALL, Setup(pods=4, preset="a10-qwen2.5-7b", hits_late_s=0.3, loads_late_s=0.5)])
def test_when_all_is_done_nothing_is_left_on_any_endpoint(setup: Setup) -> None:
    workload = GENERATORS["mixed"](200, 0).fitting(setup.max_tokens)
    run = Replay(workload, policy("lmetric"), setup, 1.0, 0)
    run.run()
    run._fleet.tell(float("inf"))
    [view] = run._views
    view.at(float("inf"))
    for column in (view.queued, view.in_flight, view.context, view.kv, view.uncached, view.prefill, view.prefilling):
        assert column == [0] * 4
    assert not any(view.pending)
