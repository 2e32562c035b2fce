"""The view never forgets what the store was told after the question that an answer belongs to."""

from collections.abc import Sequence

from multipick_epp.state.ledger import Charge
from multipick_epp.state.redis.figures import IN_FLIGHT
from multipick_epp.state.redis.view import View
from multipick_epp.types import Endpoint, Load, ReservationId

A, B = Endpoint("a:1"), Endpoint("b:1")
ONE, TWO = ReservationId("one"), ReservationId("two")


def test_a_reading_replaces_what_was_believed() -> None:
    view = View()
    view.charge(ONE, Charge(A, 5))
    view.asked()
    view.read({B: Load(7, 2)})
    assert view.loads == {B: Load(7, 2)}
    assert view.charges == {ONE: Charge(A, 5)}


def test_an_answer_does_not_undo_what_the_store_was_told_after_the_question() -> None:
    view = View()
    view.charge(ONE, Charge(A, 100))
    view.progress(ONE, 90)
    view.told(A, Load(-10))  # no question is open: the next one comes after this
    view.asked()
    view.progress(ONE, 70)
    view.told(A, Load(-20))
    view.read({A: Load(90, 1)})
    assert view.loads == {A: Load(70, 1)}
    view.asked()
    view.read({A: Load(70, 1)})
    assert view.loads == {A: Load(70, 1)}


def test_the_answer_knows_what_the_store_charged_before_it() -> None:
    view = View()
    view.asked()
    view.charge(ONE, Charge(A, 100))  # the store's replies come in order: it did this before the question came
    view.read({A: Load(100, 1)})
    assert view.loads == {A: Load(100, 1)}
    view.charge(TWO, Charge(A, 10))
    assert view.loads == {A: Load(110, 2)}


def test_a_question_that_was_never_answered_counts_for_nothing() -> None:
    view = View()
    view.asked()
    view.told(A, Load(5, 1))
    view.asked()
    view.read({A: Load(5, 1)})
    assert view.loads == {A: Load(5, 1)}


def test_what_the_store_has_lost_is_told_again_and_counts_at_once() -> None:
    view = View()
    view.charge(ONE, Charge(A, 100, 300))
    view.charge(TWO, Charge(A, 0, 50))
    view.asked()
    view.progress(ONE, 90)
    view.told(A, Load(-10))
    missing = view.missing({A: IN_FLIGHT, B: IN_FLIGHT + 7})
    view.read({A: Load(0, 1), B: Load(8, 2)}, missing)
    assert view.loads == {A: Load(90, 2, 350, 1), B: Load(1, 1)}


def test_a_load_is_never_negative() -> None:
    view = View()
    view.charge(ONE, Charge(A, 5))
    view.asked()
    view.read({A: Load(3, 1), B: Load(1, 1)})  # of a moment when the store had lost some
    view.release(ONE)
    assert view.loads == {B: Load(1, 1)}


def test_without_the_others_our_own_charges_are_left() -> None:
    view = View()
    view.charge(ONE, Charge(A, 5))
    view.charge(TWO, Charge(A, 6))
    view.asked()
    view.read({A: Load(100, 9), B: Load(1, 1)})
    view.forget_others()
    assert view.loads == {A: Load(11, 2)}


def test_of_a_dropped_endpoint_nothing_is_left() -> None:
    view = View()
    view.charge(ONE, Charge(A, 5))
    view.charge(TWO, Charge(B, 6))
    view.asked()
    view.read({A: Load(100, 9), B: Load(6, 1)})
    assert view.drop(A) == Load(5, 1)
    assert (view.loads, view.charges) == ({B: Load(6, 1)}, {TWO: Charge(B, 6)})


def test_what_the_store_lacks_of_our_charges_is_seen_as_of_the_question() -> None:
    view = View()
    view.charge(ONE, Charge(A, 5))
    view.charge(TWO, Charge(B, 6))
    view.asked()
    view.release(TWO)
    view.told(B, Load(-6, -1))  # after the question: the answer has it still
    assert view.missing({A: IN_FLIGHT + 5, B: IN_FLIGHT + 6}) == {}
    assert view.missing({A: 5}) == {A: IN_FLIGHT, B: IN_FLIGHT + 6}
    assert view.missing({A: IN_FLIGHT + 5, B: IN_FLIGHT + 6, Endpoint("c:1"): 9}) == {Endpoint("c:1"): -9}


def test_contexts_are_seen_as_of_the_question_too() -> None:
    view = View()
    view.charge(ONE, Charge(A, 5, 700))
    view.asked()
    change = view.progress(ONE, 0)
    assert change == Load(-5, 0, 0, -1), "it is prefilled"
    view.told(A, change)
    assert view.missing({A: IN_FLIGHT + 5, "a:1 contexts": IN_FLIGHT + 700}) == {}
    assert view.missing({A: IN_FLIGHT + 5}) == {"a:1 contexts": IN_FLIGHT + 700}
    view.read({A: Load(5, 1, 700, 1)})
    assert view.loads == {A: Load(0, 1, 700, 0)}


def test_columns_are_what_the_loads_are_however_they_change() -> None:
    view = View()
    pods = (A, B)

    def columns() -> Sequence[tuple[int, ...]]:
        seen = [[*zip(*view.columns(asked), strict=True)] for asked in (pods, pods, [A, B])]
        assert seen[0] == seen[1] == seen[2] == [view.load(A), view.load(B)]
        return seen[0]

    assert columns() == [Load(), Load()]
    before = view.columns(pods)
    view.charge(ONE, Charge(B, 5, 700))
    assert columns() == [Load(), Load(5, 1, 700, 1)]
    assert [*before.queued_tokens] == [0, 0], "what was asked before stays as it was"
    view.progress(ONE, 0)
    assert columns() == [Load(), Load(0, 1, 700, 0)]
    view.move(ONE, A)
    view.asked()
    view.read({B: Load(9, 2)})
    assert columns() == [Load(), Load(9, 2)]
    view.forget_others()
    assert columns() == [Load(0, 1, 700, 0), Load()]
    view.drop(A)
    assert columns() == [Load(), Load()]
    assert view.columns([]) == ((), (), (), ())
