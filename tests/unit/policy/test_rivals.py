"""Each rule against hand-made snapshots, whose scores are worked out beside them."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from multipick_epp.policy import ablations, baselines, rivals
from multipick_epp.policy.dualmap import dualmap
from multipick_epp.policy.marginal import marginal
from multipick_epp.policy.snapshot import Prefixes, Rank, Snapshot
from multipick_epp.types import Endpoint


def view(hits: list[int], queued: list[int], in_flight: list[int], length: int = 1000, **columns: Any) -> Snapshot:
    endpoints = [Endpoint(f"10.0.0.{i}:8000") for i in range(len(hits))]
    return replace(Snapshot(length, endpoints, hits, queued, in_flight), **columns)


def rows(rank: Rank, snapshot: Snapshot, seed: int = 0) -> list[int]:
    return list(rank(snapshot, Random(seed)).rows)


def scores(rank: Rank, snapshot: Snapshot) -> list[float]:
    return list(rank(snapshot, Random(0)).scores)


def test_random_takes_every_endpoint_as_often() -> None:
    rng = Random(3)
    first = Counter(baselines.random_order(view([0] * 4, [0] * 4, [9, 0, 0, 0]), rng).rows[0] for _ in range(4000))
    assert max(first.values()) < 1.2 * min(first.values())


def test_least_request_counts_requests_alone() -> None:
    assert rows(baselines.least_request, view([900, 0, 0], [0, 9000, 0], [3, 1, 2])) == [1, 2, 0]


def test_power_of_two_takes_the_less_loaded_of_two_drawn_at_random() -> None:
    rng = Random(5)
    loaded = view([0] * 4, [0] * 4, [0, 1, 2, 3])
    first = Counter(baselines.power_of_two(loaded, rng).rows[0] for _ in range(6000))
    # Of 6 pairs, 3 hold row 0, 2 more row 1, 1 more row 2; row 3 never wins.
    assert first[3] == 0
    assert 0.45 < first[0] / 6000 < 0.55
    assert 0.13 < first[2] / 6000 < 0.2
    assert rows(baselines.power_of_two, view([0], [0], [5])) == [0]


def test_vllm_v1_scans_equals_from_a_start_that_moves_on() -> None:
    idle: dict[str, Any] = {"waiting": [0.0] * 3, "running": [1.0] * 3}
    assert [rows(baselines.vllm_v1, view([0] * 3, [0] * 3, [0] * 3, turn=turn, **idle))[0] for turn in range(4)] == [
        0,
        1,
        2,
        0,
    ]


def test_vllm_v1_counts_a_pick_for_every_client() -> None:
    gauges: dict[str, Any] = {"waiting": [0.0, 0.0], "running": [0.0, 9.0], "picked": [1, 0]}
    assert rows(baselines.vllm_v1, view([0, 0], [0, 0], [0, 0], pickers=2, **gauges))[0] == 0  # 8 against 9
    assert rows(baselines.vllm_v1, view([0, 0], [0, 0], [0, 0], pickers=3, **gauges))[0] == 1  # 12 against 9


def test_vllm_032_adds_for_a_full_cache_only_where_requests_wait() -> None:
    gauges: dict[str, Any] = {"waiting": [2.0, 0.0], "running": [3.0, 5.0], "kv_usage": [0.9, 0.9]}
    # max(1, 2 + 3) + 6 * 2 * 0.4, max(7, 5) + 0
    assert scores(baselines.vllm_032, view([0, 0], [0, 0], [1, 7], **gauges)) == pytest.approx([9.8, 7])
    # Two clients: what each has in flight stands for half.
    assert scores(baselines.vllm_032, view([0, 0], [0, 0], [1, 7], pickers=2, **gauges)) == pytest.approx([9.8, 14])


def test_linear_adds_the_missing_share_and_the_share_of_the_largest_batch() -> None:
    snapshot = view([1000, 500, 0], [0, 0, 0], [4, 2, 1])
    # misses 1/1000 (the last token), 0.5, 1; loads 1, 0.5, 0.25
    assert scores(rivals.Linear(0.5), snapshot) == pytest.approx([0.5005, 0.5, 0.625])
    assert scores(rivals.Linear(0.25), snapshot) == pytest.approx([0.75025, 0.5, 0.4375])


def test_dynamo_adds_prefill_and_held_tokens() -> None:
    loads: dict[str, Any] = {"prefill_tokens": [0, 800], "kv_tokens": [3000, 100]}
    # (0 + 1000 - 600) + 3000 + 1000, (800 + 1000 - 0) + 100 + 1000
    assert scores(rivals.dynamo, view([600, 0], [9, 9], [3, 1], **loads)) == [4400, 2900]
    # Not known: the queue, and requests as long as this one.
    assert scores(rivals.dynamo, view([600, 0], [0, 800], [3, 1])) == [4400, 3800]


def test_aibrix_takes_the_best_match_that_is_not_overloaded() -> None:
    # mean 3, standard deviation sqrt(28 / 3) = 3.06: a load of 7 is too much, of 5 is not.
    assert rows(rivals.aibrix, view([900, 500, 0, 0], [0] * 4, [7, 5, 0, 0]))[0] == 1
    assert rows(rivals.aibrix, view([900, 500, 0, 0], [0] * 4, [5, 5, 1, 1]))[0] == 0
    assert rows(rivals.aibrix, view([0, 0, 0], [0] * 3, [2, 1, 3])) == [1, 0, 2]


def test_aibrix_looks_only_at_the_least_loaded_once_loads_are_far_apart() -> None:
    assert rows(rivals.aibrix, view([900, 100, 0], [0] * 3, [1, 0, 9]))[0] == 1
    assert rows(rivals.aibrix, view([900, 100, 0], [0] * 3, [1, 0, 8]))[0] == 0


def test_smg_follows_the_longest_match_above_30_percent() -> None:
    assert rows(rivals.smg, view([310, 0], [0, 0], [9, 0]))[0] == 0
    assert rows(rivals.smg, view([300, 0], [0, 0], [9, 0]))[0] == 1


def test_smg_goes_by_load_once_loads_are_far_apart() -> None:
    assert rows(rivals.smg, view([900, 0], [0, 0], [65, 0]))[0] == 1
    assert rows(rivals.smg, view([900, 0], [0, 0], [64, 0]))[0] == 0
    assert rows(rivals.smg, view([900, 0], [0, 0], [300, 200]))[0] == 0  # 100 apart, but not one and a half times


def test_llm_d_stays_with_those_that_hold_four_fifths() -> None:
    busy: dict[str, Any] = {"uncached_tokens": [5000, 4000, 0]}
    assert rows(rivals.llm_d, view([800, 800, 799], [0] * 3, [0] * 3, **busy)) == [1, 0, 2]
    assert rows(rivals.llm_d, view([700, 700, 0], [0] * 3, [0] * 3, **busy)) == [2, 1, 0]


def test_llm_d_leaves_when_waiting_there_costs_18_seconds_more() -> None:
    limit = 18 * 15_928
    assert rows(rivals.llm_d, view([900, 0], [0, 0], [0, 0], uncached_tokens=[limit, 0]))[0] == 0
    assert rows(rivals.llm_d, view([900, 0], [0, 0], [0, 0], uncached_tokens=[limit + 1, 0]))[0] == 1


def test_preble_exploits_where_more_is_cached_than_new() -> None:
    # 0.12 ms a token of the last minutes, 6.75 s a request in flight
    assert rows(rivals.preble, view([501, 501, 0], [0] * 3, [1, 2, 0], recent_tokens=[0, 0, 0]))[:2] == [0, 1]
    assert rows(rivals.preble, view([500, 500, 0], [0] * 3, [1, 2, 0], recent_tokens=[0, 0, 0])) == [2, 0, 1]


def test_preble_weighs_recent_prefill_against_decodes() -> None:
    # 6.75 s are 56,030 tokens
    assert rows(rivals.preble, view([0, 0], [0, 0], [1, 0], recent_tokens=[0, 56_000]))[0] == 1
    assert rows(rivals.preble, view([0, 0], [0, 0], [1, 0], recent_tokens=[0, 56_100]))[0] == 0


def _prefixed(shares: list[float], hits: list[int], pending: list[int]) -> Snapshot:
    depths = range(len(shares))
    counts = [round(100 * share) for share in shares]
    prefixes = Prefixes([64 << depth for depth in depths], [1000 + depth for depth in depths], counts, 100)
    return view(hits, [0] * len(hits), [0] * len(hits), prefixes=prefixes, prefill_tokens=pending)


def test_dualmap_keeps_to_two_endpoints_of_a_prefix() -> None:
    cold = [_prefixed([0.01], [0] * 8, [seed == row for row in range(8)]) for seed in range(8)]
    winners = {rows(dualmap, snapshot)[0] for snapshot in cold}
    assert len(winners) <= 2
    idle = _prefixed([0.01], [0] * 8, [0] * 8)
    assert len({rows(dualmap, replace(idle, prefixes=Prefixes([64], [key], [1], 100)))[0] for key in range(200)}) == 8


def test_dualmap_takes_the_warmer_of_the_two_within_its_budget() -> None:
    first, second = rows(dualmap, _prefixed([0.01], [0] * 8, [0] * 8))[:2]
    warm = [700 if row == second else 0 for row in range(8)]
    assert rows(dualmap, _prefixed([0.01], warm, [0] * 8))[0] == second
    busy = [65_536 - 300 if row == second else 0 for row in range(8)]
    assert rows(dualmap, _prefixed([0.01], warm, busy))[0] == second
    busy[second] += 1
    assert rows(dualmap, _prefixed([0.01], warm, busy))[0] == first


def test_dualmap_takes_a_longer_prefix_while_one_is_popular() -> None:
    popular = _prefixed([0.5, 0.3, 0.25], [0] * 8, [0] * 8)
    assert (
        rows(dualmap, popular)[:2] == rows(dualmap, replace(popular, prefixes=Prefixes([256], [1002], [20], 100)))[:2]
    )


def test_dualmap_without_a_prefix_goes_by_load() -> None:
    assert rows(dualmap, view([0] * 3, [5, 1, 3], [0] * 3)) == [1, 2, 0]


def test_ablations_leave_out_what_their_names_say() -> None:
    snapshot = view([0, 500], [100, 900], [4, 1], context_tokens=[2000, 7000])
    assert scores(ablations.p_token, snapshot) == [1100, 1400]
    assert scores(ablations.lmetric_no_queue, snapshot) == [5000, 1000]
    assert scores(ablations.hit_ratio_batch, snapshot) == [5, 1]
    assert scores(ablations.p_token_total_tokens, snapshot) == [1100 * 3000, 1400 * 8000]


def test_seconds_stand_for_tokens_where_pods_are_not_equal() -> None:
    snapshot = view([0, 500, 0], [100, 900, 0], [4, 1, 0], prefill_rates=[100.0, 50.0, 0.0])
    assert scores(ablations.lmetric_seconds, snapshot) == pytest.approx([11 * 5, 28 * 2, 1000 / 75])
    assert scores(ablations.lmetric_seconds, replace(snapshot, prefill_rates=())) == [5500, 2800, 1000]


def test_marginal_multiplies_the_prefill_and_the_decode_traffic_that_a_request_adds() -> None:
    snapshot = view([0, 500], [100, 900], [4, 1], context_tokens=[2000, 7000])
    # M = 2000 + 5 * 1000, 7000 + 2 * 1000, of which the first is the least; nobody is known to wait
    assert scores(marginal, snapshot) == [1100 * 14_000, 1400 * 16_000]
    # Two requests wait for their first token wherever it goes: new tokens count three times.
    assert scores(marginal, replace(snapshot, prefilling=[2, 3])) == [3100 * 14_000, 2400 * 16_000]
    assert scores(marginal, replace(snapshot, prefilling=[0, 3])) == [1100 * 14_000, 1400 * 16_000]
