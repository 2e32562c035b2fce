from multipick_sim.workloads.workload import NOBODY, Item, Workload


def items(*times: float, tokens: int = 100) -> Workload:
    return Workload("w", 16, [Item(at_s, tokens, 10, (1,), tokens) for at_s in times])


def test_requests_of_one_instant_are_spread_over_the_clocks_tick() -> None:
    spread = items(0, 0, 0, 3, 9, 9).spread()
    assert [item.at_s for item in spread.items] == [0, 1, 2, 3, 9, 10.5]


def test_a_fine_clock_is_left_as_it_is() -> None:
    assert items(0, 0.1, 0.5).spread().items == items(0, 0.1, 0.5).items
    assert items(0, 0).spread().items == items(0, 0).items


def test_requests_too_long_for_an_engine_go_and_nobody_follows_them() -> None:
    parts = [Item(0, 100, 10, (1,), 100), Item(1, 500, 10, (1,), 500, 0), Item(2, 100, 10, (1,), 100, 1)]
    more = [Item(3, 90, 20, (1,), 90, 0)]
    left = Workload("w", 16, [*parts, *more]).fitting(110)
    assert [(item.at_s, item.after) for item in left.items] == [(0, NOBODY), (2, NOBODY), (3, 0)]
