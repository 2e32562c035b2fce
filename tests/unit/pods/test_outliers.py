"""Who fails where the others don't is left out, tried again, and let back."""

from dataclasses import dataclass

import pytest
from multipick_epp.pods import outliers as outliers_module
from multipick_epp.pods.outliers import (
    CALM_S,
    FIRST_PAUSE_S,
    IN_A_ROW,
    LONGEST_PAUSE_S,
    TRIAL_S,
    TRIALS,
    Outliers,
    Signal,
)
from multipick_epp.types import Endpoint

A, B, C, D = (Endpoint(f"10.0.0.{number}:8000") for number in range(1, 5))


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outliers(clock: Clock) -> Outliers:
    return Outliers(clock)


def fail(outliers: Outliers, endpoint: Endpoint, times: int = IN_A_ROW, signal: Signal = Signal.REQUEST) -> list[int]:
    return [level for _ in range(times) if (level := outliers.failed(endpoint, signal)) is not None]


def test_who_fails_alone_is_left_out(outliers: Outliers) -> None:
    for peer in (B, C, D):
        outliers.succeeded(peer)
    assert fail(outliers, A, IN_A_ROW - 1) == []
    assert outliers.left_out() == {}
    assert fail(outliers, A, 1) == [1]
    assert outliers.left_out() == {A: 1}
    assert outliers.ejections == 1


def test_who_drew_all_requests_is_left_out_although_nobody_else_was_tried(outliers: Outliers) -> None:
    assert fail(outliers, A) == [1]


def test_where_all_fail_it_is_not_the_endpoints(outliers: Outliers) -> None:
    fail(outliers, A, 1)
    fail(outliers, B, 1)
    fail(outliers, C, 1)
    assert fail(outliers, A) + fail(outliers, B) + fail(outliers, C) == []


def test_the_second_of_two_that_fail_stays(outliers: Outliers) -> None:
    assert fail(outliers, A) == [1]
    assert fail(outliers, B, 10) == []
    assert outliers.left_out() == {A: 1}


def test_a_success_in_between_begins_the_row_anew(outliers: Outliers) -> None:
    for _ in range(10):
        fail(outliers, A, IN_A_ROW - 1)
        outliers.succeeded(A)
    assert outliers.left_out() == {}


def test_one_that_mostly_works_stays(outliers: Outliers) -> None:
    for _ in range(20):
        outliers.succeeded(A)
        outliers.succeeded(B)
    assert fail(outliers, A) == []


def test_pauses_double_up_to_the_longest(outliers: Outliers, clock: Clock) -> None:
    outliers.succeeded(B)
    fail(outliers, A)
    pause_s = FIRST_PAUSE_S
    for level in range(2, 12):
        clock.now_s += pause_s - 0.1
        assert A in outliers.left_out()
        clock.now_s += 0.2
        assert A not in outliers.left_out()
        assert outliers.picked(A)
        assert outliers.failed(A) == level
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    assert pause_s == LONGEST_PAUSE_S


def test_one_trial_at_a_time_and_two_bring_it_back(outliers: Outliers, clock: Clock) -> None:
    fail(outliers, A)
    clock.now_s += FIRST_PAUSE_S
    assert outliers.picked(A)
    assert A in outliers.left_out()
    assert not outliers.picked(A)
    assert outliers.succeeded(A) is None
    assert A not in outliers.left_out()
    assert outliers.picked(A)
    assert outliers.succeeded(A) == 0
    assert outliers.left_out() == {}
    assert not outliers.picked(A)


def test_a_trial_that_nobody_tells_of_does_not_keep_it_out_for_ever(outliers: Outliers, clock: Clock) -> None:
    fail(outliers, A)
    clock.now_s += FIRST_PAUSE_S
    outliers.picked(A)
    clock.now_s += TRIAL_S
    assert A not in outliers.left_out()


def test_a_trial_that_says_nothing_of_the_endpoint_lets_the_next_one_go(outliers: Outliers, clock: Clock) -> None:
    fail(outliers, A)
    clock.now_s += FIRST_PAUSE_S
    outliers.picked(A)
    outliers.undecided(A)
    assert outliers.picked(A)


def test_requests_from_before_change_nothing_while_it_is_left_out(outliers: Outliers) -> None:
    fail(outliers, A)
    assert fail(outliers, A, 10) == []
    for _ in range(10):
        assert outliers.succeeded(A) is None
    assert outliers.left_out() == {A: 1}


def test_the_next_time_is_longer_unless_it_is_long_after(outliers: Outliers, clock: Clock) -> None:
    def come_back() -> None:
        for _ in range(2):
            outliers.picked(A)
            outliers.succeeded(A)

    outliers.succeeded(B)
    fail(outliers, A)
    clock.now_s += FIRST_PAUSE_S
    come_back()
    clock.now_s += 60
    assert fail(outliers, A) == [2]
    clock.now_s += 2 * FIRST_PAUSE_S
    come_back()
    clock.now_s += CALM_S
    outliers.succeeded(A)
    assert fail(outliers, A) == [1]


def test_looks_are_weighed_by_themselves_and_a_good_one_leads_to_a_trial_at_once(outliers: Outliers) -> None:
    for peer in (B, C):
        outliers.succeeded(peer, Signal.LOOK)
    assert fail(outliers, A, signal=Signal.LOOK) == [1]
    assert outliers.succeeded(A, Signal.LOOK) is None
    assert outliers.picked(A)


def test_where_no_engine_can_be_looked_at_nobody_is_left_out(outliers: Outliers) -> None:
    for _ in range(5):
        for endpoint in (A, B, C):
            assert outliers.failed(endpoint, Signal.LOOK) is None


def test_looks_that_fail_everywhere_end_no_trial(outliers: Outliers, clock: Clock) -> None:
    fail(outliers, A)
    clock.now_s += FIRST_PAUSE_S
    outliers.remember(B, 3)
    for _ in range(TRIALS):
        for endpoint in (A, B):
            assert outliers.picked(endpoint)
        for _ in range(IN_A_ROW):
            for endpoint in (C, D, A, B):
                assert outliers.failed(endpoint, Signal.LOOK) is None
        assert outliers.left_out() == {A: 1, B: 3}, "the trials go on"
        back = [outliers.succeeded(A), outliers.succeeded(B)]
        assert outliers.left_out() == {}
    assert back == [0, 0]


def test_a_late_look_ends_no_trial_and_several_where_peers_answer_do(outliers: Outliers, clock: Clock) -> None:
    fail(outliers, A)
    clock.now_s += FIRST_PAUSE_S
    outliers.picked(A)
    outliers.succeeded(B, Signal.LOOK)
    assert fail(outliers, A, IN_A_ROW - 1, Signal.LOOK) == []
    outliers.succeeded(A)
    assert fail(outliers, A, 1, Signal.LOOK) == [2]


def test_what_another_picker_decided_holds_here_too(outliers: Outliers, clock: Clock) -> None:
    outliers.learn(A, 2)
    assert outliers.left_out() == {A: 2}
    outliers.learn(A, 1)  # late news
    assert outliers.left_out() == {A: 2}
    outliers.learn(A, 0)
    assert outliers.left_out() == {}
    assert outliers.ejections == 0


def test_what_was_left_out_before_we_came_is_tried_at_once(outliers: Outliers) -> None:
    outliers.remember(A, 3)
    assert outliers.left_out() == {}
    assert outliers.picked(A)
    assert outliers.failed(A) == 4


def test_who_left_the_pool_is_forgotten(outliers: Outliers) -> None:
    fail(outliers, A)
    outliers.forget(A)
    assert outliers.left_out() == {}


def test_old_failures_count_less_and_less(outliers: Outliers, clock: Clock) -> None:
    fail(outliers, B, 2)
    outliers.succeeded(B)
    fail(outliers, C, 2)
    outliers.succeeded(C)
    clock.now_s += 10 * outliers_module.HALF_LIFE_S
    for peer in (B, C):
        outliers.succeeded(peer)
    assert fail(outliers, A) == [1]
