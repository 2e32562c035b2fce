from random import Random

import pytest
from msgspec.structs import replace
from multipick_epp.policy.hotspot import LEAST, Hotspot, HotspotGuard, is_hot, without
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.popularity import DEPTHS, WINDOW, Popularity
from multipick_epp.policy.snapshot import NO_PREFIXES, Prefixes, Ranking, Snapshot
from multipick_epp.types import Endpoint

BLOCK = 16
PODS = [Endpoint(f"10.0.0.{i}:8000") for i in range(8)]


def prefix(share: float, requests: int = WINDOW) -> Prefixes:
    """One of four blocks."""
    return Prefixes([64], [42], [round(share * requests)], requests)


def guarding() -> HotspotGuard:
    return HotspotGuard(Popularity())


def decision(guard: HotspotGuard, prefixes: Prefixes, hits: list[int], best: int) -> Hotspot | None:
    snapshot = Snapshot(4096, PODS[: len(hits)], hits, [0] * len(hits), [0] * len(hits), prefixes=prefixes)
    return guard.watch(snapshot, Ranking([best]))


def test_shares_are_of_the_window_and_of_every_depth() -> None:
    popularity = Popularity()
    shared = list(range(1, 6))
    for number in range(WINDOW // 2):
        popularity.count([*shared, 1000 + number], BLOCK)
    prefixes = popularity.count([*shared, 99], BLOCK)
    requests = WINDOW // 2 + 1
    assert prefixes == Prefixes([16, 32, 64, 96], [1, 2, 4, 99], [requests] * 3 + [1], requests)


@pytest.mark.parametrize(
    ("blocks", "depths"),
    [
        (0, []),
        (1, [1]),
        (2, [1, 2]),
        (4, [1, 2, 4]),
        (5, [1, 2, 4, 5]),
        (1024, [*DEPTHS]),
        (1025, [*DEPTHS, 1025]),
        (4096, [*DEPTHS, 4096]),
    ],
)
def test_the_prefixes_are_powers_of_two_and_the_whole_prompt(blocks: int, depths: list[int]) -> None:
    prefixes = Popularity().count(range(1, blocks + 1), BLOCK)
    assert prefixes.keys == depths
    assert prefixes.tokens == [depth * BLOCK for depth in depths]


def test_what_leaves_the_window_is_forgotten() -> None:
    popularity = Popularity()
    popularity.count([7], BLOCK)
    for number in range(WINDOW):
        popularity.count([1000 + number] * 2, BLOCK)
    assert not popularity.holds(7)
    assert popularity.count([7], BLOCK) == Prefixes([BLOCK], [7], [1], WINDOW)


def test_memory_is_bounded_by_the_window() -> None:
    popularity = Popularity()
    for number in range(3 * WINDOW):
        popularity.count(range(number << 12, (number << 12) + 2048), BLOCK)
    assert len(popularity._window) == WINDOW
    assert len(popularity._counts) <= WINDOW * (len(DEPTHS) + 1)


@pytest.mark.parametrize(
    ("share", "holders", "hot"),
    [
        (0.5, 4, False),  # 1 > 4 / 4 is false
        (0.501, 4, True),
        (1.0, 7, True),  # everything, on seven of eight
        (1.0, 8, False),  # everybody holds it
        (1.0, 0, False),  # nobody does yet
        (0.12, 1, False),  # 0.136 > 1 / 7 is false
        (0.13, 1, True),
    ],
)
def test_the_condition_is_the_papers(share: float, holders: int, hot: bool) -> None:
    assert is_hot(round(share * WINDOW), WINDOW, holders, 8) is hot


def test_the_last_of_two_requests_a_holder_in_a_row_is_kept_out() -> None:
    guard = guarding()
    hot = prefix(0.9)
    hits = [64, 64, 0, 0]
    seen = [decision(guard, hot, hits, best) for best in (0, 1, 1, 0, 0)]
    assert [hotspot.avoid for hotspot in seen if hotspot] == [False, False, False, True, False]
    assert [hotspot.began for hotspot in seen if hotspot] == [True, False, False, False, False]
    assert seen[0] is not None
    assert (seen[0].holders, seen[0].holder_rows) == (2, [0, 1])


def test_among_a_handful_of_requests_nothing_is_hot() -> None:
    for number, found in ((LEAST - 1, False), (LEAST, True)):
        hotspot = decision(guarding(), prefix(0.9, number), [64, 0, 0], 0)
        assert (hotspot is not None) is found


def test_one_pick_outside_the_holders_begins_the_count_anew() -> None:
    guard = guarding()
    hot = prefix(0.9)
    avoided = [decision(guard, hot, [64, 0, 0, 0], best) for best in (0, 1, 0, 0)]
    assert [hotspot.avoid for hotspot in avoided if hotspot] == [False, False, False, True]


def test_a_class_that_cools_down_is_forgotten() -> None:
    guard = guarding()
    decision(guard, prefix(0.9), [64, 0, 0, 0], 0)
    assert decision(guard, prefix(0.1), [64, 0, 0, 0], 0) is None
    again = decision(guard, prefix(0.9), [64, 0, 0, 0], 0)
    assert again is not None
    assert again.began
    assert not again.avoid


def test_a_hot_prefix_below_one_that_everybody_holds_is_found() -> None:
    guard = guarding()
    prefixes = Prefixes([16, 32], [1, 2], [1000, 800], 1000)
    hotspot = decision(guard, prefixes, [32, 16, 16, 16], 0)
    assert hotspot is not None
    assert hotspot.key == 2


def test_prefixes_of_the_same_requests_are_one_class_by_the_longest() -> None:
    guard = guarding()
    hotspot = decision(guard, Prefixes([16, 32, 64], [1, 2, 3], [900, 900, 100], 1000), [64, 64, 16, 0], 0)
    assert hotspot is not None
    assert (hotspot.key, hotspot.tokens, hotspot.holders) == (2, 32, 2)
    assert not guard.is_watched(1)
    parted = decision(guard, Prefixes([16, 32, 64], [1, 2, 3], [901, 900, 100], 1000), [64, 64, 16, 0], 0)
    assert parted is not None
    assert guard.is_watched(1)
    decision(guard, Prefixes([16, 32, 64], [1, 2, 3], [901, 901, 100], 1000), [64, 64, 16, 0], 0)
    assert not guard.is_watched(1), "it is the same as a longer one again"
    whole = decision(guarding(), Prefixes([16, 32, 48], [1, 2, 3], [900] * 3, 1000), [32, 0, 0, 0], 0)
    assert whole is not None
    assert (whole.key, whole.holders) == (2, 1), "nobody holds the whole of a prompt, whose last token is computed"


def test_requests_without_a_whole_block_belong_to_no_class() -> None:
    assert decision(guarding(), NO_PREFIXES, [0, 0], 0) is None


def test_classes_that_left_the_window_do_not_stay_in_memory() -> None:
    popularity = Popularity()
    guard = HotspotGuard(popularity)
    for number in range(4 * WINDOW):
        prefixes = popularity.count([number], BLOCK)
        decision(guard, replace(prefixes, counts=[prefixes.requests]), [16, 0], 0)
    assert len(guard._in_a_row) <= 2 * WINDOW


def test_the_ranking_without_the_holders_is_by_the_same_scores() -> None:
    count = 40
    hits = [1000] * 20 + [0] * 20
    snapshot = Snapshot(1024, [Endpoint(str(row)) for row in range(count)], hits, [0] * count, [*range(count)])
    ranking = lmetric(snapshot, Random(0))
    assert set(ranking.rows) <= set(range(20))  # the best sixteen all hold it
    hotspot = Hotspot(1, 1000, 1.0, 20, hits, began=False, avoid=True)
    assert list(without(ranking, hotspot, Random(0)).rows[:3]) == [20, 21, 22]
    assert list(without(Ranking([2, 30, 21]), hotspot, Random(0)).rows) == [30, 21], "of one without scores"
    few = replace(ranking, rows=[0, 25, 1, 22])
    assert list(without(few, hotspot, Random(0)).rows) == [25, 22], "half of the best will do"
