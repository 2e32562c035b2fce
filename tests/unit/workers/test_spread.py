"""Which worker gets a connection, and when one has to let one go."""

from multipick_epp.workers.spread import UNEVEN_S, Balance, Share, by_turn


def shares(*busy: int) -> list[Share]:
    return [Share(number, each, each, 0) for number, each in enumerate(busy)]


def test_who_has_the_fewest_connections_with_requests_is_next() -> None:
    assert by_turn(shares(3, 1, 2)) == [1, 2, 0]


def test_of_equals_who_has_fewer_that_rest_is_next_and_then_who_waited_longest() -> None:
    assert by_turn([Share(0, 1, 5, 1), Share(1, 1, 2, 4), Share(2, 1, 2, 3)]) == [2, 1, 0]


def test_what_differs_for_a_while_is_moved_one_by_one() -> None:
    balance = Balance()
    assert balance.overloaded(shares(4, 0), 100.0) is None
    assert balance.overloaded(shares(4, 0), 100.0 + UNEVEN_S) == 0
    assert balance.overloaded(shares(3, 0), 100.1 + UNEVEN_S) is None, "the first needs its time to come again"
    assert balance.overloaded(shares(3, 1), 100.0 + 2 * UNEVEN_S) == 0
    assert balance.overloaded(shares(2, 2), 100.0 + 3 * UNEVEN_S) is None


def test_what_differs_for_a_moment_or_by_one_stays() -> None:
    balance = Balance()
    assert balance.overloaded(shares(2, 0), 0.0) is None
    assert balance.overloaded(shares(1, 0), 1.0) is None
    assert balance.overloaded(shares(2, 0), UNEVEN_S) is None
    assert balance.overloaded(shares(1, 0, 1), 10 * UNEVEN_S) is None


def test_one_alone_keeps_all() -> None:
    balance = Balance()
    assert balance.overloaded(shares(0, 9), 0.0) is None
    assert balance.overloaded(shares(9), UNEVEN_S) is None
    assert balance.overloaded(shares(0, 9), 2 * UNEVEN_S) is None, "uneven since now"
