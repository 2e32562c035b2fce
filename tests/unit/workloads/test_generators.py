from collections import Counter
from itertools import pairwise
from statistics import fmean

import pytest
from multipick_sim.workloads.generators import GENERATORS, generator
from multipick_sim.workloads.workload import NOBODY, Workload


def reuse(workload: Workload) -> float:
    """Share of the prompt tokens that some earlier prompt or answer has, at best."""
    seen: set[int] = set()
    reused = total = 0
    for item in workload.items:
        full = item.prompt_tokens // workload.block_tokens
        hit = 0
        while hit < full and item.prefixes[hit] in seen:
            hit += 1
        reused += hit * workload.block_tokens
        total += item.prompt_tokens
        seen.update(item.prefixes)
    return reused / total


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_makes_the_same_requests_again_and_another_seed_others(name: str) -> None:
    make = GENERATORS[name]
    assert make(300, 1) == make(300, 1)
    assert make(300, 1) != make(300, 2)


@pytest.mark.parametrize("name", GENERATORS)
def test_requests_come_in_order_as_many_as_asked_for_and_follow_earlier_ones(name: str) -> None:
    workload = GENERATORS[name](500, 3)
    assert len(workload.items) == 500
    assert workload.items[0].at_s == 0
    assert all(before.at_s <= after.at_s for before, after in pairwise(workload.items))
    for number, item in enumerate(workload.items):
        assert item.prompt_tokens > 0 < item.output_tokens
        assert len(item.prefixes) == -(-item.known_tokens // workload.block_tokens)
        if item.after != NOBODY:
            before = workload.items[item.after]
            assert item.after < number
            assert item.prompt_tokens > before.known_tokens
            full = before.known_tokens // workload.block_tokens
            assert list(item.prefixes[:full]) == list(before.prefixes[:full])


def test_agents_reuse_most_of_a_context_that_grows() -> None:
    workload = GENERATORS["agent"](1500, 0)
    assert reuse(workload) > 0.8
    assert fmean(item.prompt_tokens for item in workload.items) > 15_000


def test_api_calls_are_single_turns_over_few_hot_prompts() -> None:
    workload = GENERATORS["api"](1000, 0)
    assert {item.after for item in workload.items} == {NOBODY}
    heads = Counter(item.prefixes[0] for item in workload.items)
    assert len(heads) == 8
    assert heads.most_common(1)[0][1] > 300


def test_chats_have_a_few_turns_and_short_prompts() -> None:
    workload = GENERATORS["chat"](2000, 0)
    assert 1000 < fmean(item.prompt_tokens for item in workload.items) < 6000
    assert any(item.after != NOBODY for item in workload.items)


def test_mixed_traffic_keeps_the_parts_prompts_apart() -> None:
    workload = GENERATORS["mixed"](600, 0)
    parts = [GENERATORS[name](count, 0) for name, count in (("chat", 300), ("api", 180), ("agent", 120))]
    assert len({item.prefixes[0] for item in workload.items}) == sum(
        len({item.prefixes[0] for item in part.items}) for part in parts
    )


def test_a_hot_prefix_begins_after_a_quarter() -> None:
    make = generator("hot-prefix:1024:0.5")
    assert make is not None
    workload = make(1000, 0)
    heads = Counter(item.prefixes[0] for item in workload.items)
    [(hot, count)] = heads.most_common(1)
    assert 320 < count < 430
    assert 0 < sum(item.prefixes[0] == hot for item in workload.items[:250]) < 15


def test_names_and_parameters_are_checked() -> None:
    assert generator("nobody") is None
    for wrong in ("chat:5", "hot-prefix:x", "hot-prefix:1:2:3:4"):
        with pytest.raises(ValueError, match=r"parameters|TOKENS|invalid literal"):
            generator(wrong)
    for wrong in ("hot-prefix:0", "hot-prefix:10:1.5", "hot-prefix:10:nan", "hot-prefix:10:0.5:1"):
        make = generator(wrong)
        assert make is not None
        with pytest.raises(ValueError, match="hot prefix"):
            make(10, 0)
