from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.policy.baselines import round_robin, vllm_v1
from multipick_epp.policy.candidates import candidates_of
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.registry import BUILT_IN, names, policy
from multipick_epp.policy.snapshot import RANKED, Snapshot
from multipick_epp.types import Endpoint


def snapshot(
    hits: list[int], queued: list[int], in_flight: list[int], length: int = 1000, turn: int = 0, **gauges: list[float]
) -> Snapshot:
    endpoints = [Endpoint(f"10.0.0.{i}:8000") for i in range(len(hits))]
    return Snapshot(length, endpoints, hits, queued, in_flight, turn=turn, **gauges)  # type: ignore[arg-type]


def test_lmetric_multiplies_new_tokens_with_the_batch() -> None:
    # 1000*1 = 1000, 200*4 = 800, (600+100)*1 = 700
    ranking = lmetric(snapshot([0, 800, 900], [0, 0, 600], [0, 3, 0]), Random(1))
    assert list(ranking.rows) == [2, 1, 0]
    assert list(ranking.scores) == [1000, 800, 700]


def test_lmetric_never_scores_a_full_hit_zero_so_that_load_still_counts() -> None:
    ranking = lmetric(snapshot([1000, 1000], [0, 0], [5, 2]), Random(1))
    assert list(ranking.rows) == [1, 0]
    assert list(ranking.scores) == [6, 3]


def test_queued_tokens_of_others_count_like_ones_own() -> None:
    ranking = lmetric(snapshot([500, 0], [800, 0], [0, 0]), Random(1))
    assert ranking.rows[0] == 1


def test_exact_ties_are_broken_evenly() -> None:
    rng = Random(7)
    first = Counter(lmetric(snapshot([0] * 4, [0] * 4, [0] * 4), rng).rows[0] for _ in range(4000))
    assert set(first) == {0, 1, 2, 3}
    assert max(first.values()) < 1.2 * min(first.values())


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 9999), st.integers(0, 99)), min_size=1), st.integers())
def test_every_policy_ranks_each_row_once_and_the_best_in_order(rows: list[tuple[int, int, int]], seed: int) -> None:
    hits, queued, in_flight = (list(column) for column in zip(*rows, strict=True))
    for rank in BUILT_IN.values():
        view = snapshot(hits, queued, in_flight, length=1000, turn=seed & 0xFFFF)
        ranking = rank(view, Random(seed))
        assert len(ranking.rows) == len(set(ranking.rows)) >= min(RANKED, len(rows))
        if ranking.scores:
            ranked = [ranking.scores[row] for row in ranking.rows]
            assert ranked == sorted(ranking.scores)[: len(ranked)]


def test_ties_at_the_end_of_a_large_pools_ranking_are_broken_evenly() -> None:
    rng = Random(7)
    view = snapshot([0] * 64, [0] * 8 + [5] * 56, [0] * 64)
    ranked = Counter(row for _ in range(2000) for row in lmetric(view, rng).rows)
    assert [ranked[row] for row in range(8)] == [2000] * 8
    others = [ranked[row] for row in range(8, 64)]
    assert sum(others) == 2000 * (RANKED - 8)
    assert max(others) < 1.5 * min(others)


def test_round_robin_takes_each_endpoint_in_turn() -> None:
    picks = [round_robin(snapshot([0] * 3, [0] * 3, [0] * 3, turn=turn), Random(0)).rows[0] for turn in range(6)]
    assert picks == [0, 1, 2, 0, 1, 2]


def test_vllm_v1_weighs_a_waiting_request_four_times_a_running_one() -> None:
    view = snapshot([0, 0], [0, 0], [0, 0], waiting=[1, 0], running=[0, 3])
    assert vllm_v1(view, Random(0)).rows[0] == 1
    view = snapshot([0, 0], [0, 0], [0, 0], waiting=[1, 0], running=[0, 5])
    assert vllm_v1(view, Random(0)).rows[0] == 0


def test_vllm_v1_counts_its_own_picks_until_the_next_gauges() -> None:
    view = snapshot([0, 0], [0, 0], [0, 0], waiting=[0, 0], running=[0, 3], picked=[1, 0])
    assert vllm_v1(view, Random(0)).rows[0] == 1


def test_vllm_v1_without_gauges_uses_requests_in_flight() -> None:
    assert vllm_v1(snapshot([0, 0], [0, 0], [4, 2]), Random(0)).rows[0] == 1


def test_a_small_pool_is_reserved_among_whole() -> None:
    view = snapshot([0] * 16, [0] * 16, list(range(16)))
    assert sorted(candidates_of(lmetric, lmetric(view, Random(0)))) == list(range(16))


def test_of_a_large_pool_the_best_are_reserved_among() -> None:
    view = snapshot([0] * 64, [100 * (63 - row) for row in range(64)], [0] * 64)
    assert candidates_of(lmetric, lmetric(view, Random(0))) == list(range(63, 63 - RANKED, -1))


def test_other_policies_reserve_their_own_choice() -> None:
    view = snapshot([0] * 3, [0] * 3, [0] * 3, turn=1)
    assert candidates_of(round_robin, round_robin(view, Random(0))) == [1]


def test_policies_are_found_by_name_and_an_unknown_name_lists_them() -> None:
    assert policy("lmetric") is lmetric
    with pytest.raises(ValueError, match=r"lmetric, .*round-robin, .*vllm-v1, linear:NUMBER"):
        policy("best")
    assert set(BUILT_IN) <= set(names())


def test_a_parameter_follows_the_name_after_a_colon() -> None:
    view = snapshot([1000, 0], [0, 0], [4, 0])
    assert policy("linear:1")(view, Random(0)).rows[0] == 0
    assert policy("linear:0")(view, Random(0)).rows[0] == 1
    for wrong in ("linear:2", "linear:nan", "linear:", "lmetric:1"):
        with pytest.raises(ValueError, match=r"linear|float|lmetric"):
            policy(wrong)
