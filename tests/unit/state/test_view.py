"""The view never forgets what was sent after the question that an answer belongs to."""

from multipick_epp.state.redis.view import View
from multipick_epp.types import Endpoint, Load

A, B = Endpoint("a:1"), Endpoint("b:1")


def test_a_reading_replaces_what_was_believed() -> None:
    view = View()
    view.shift(A, 5, 1)
    view.read(view.number, {B: Load(7, 2)})
    assert view.loads == {B: Load(7, 2)}


def test_an_answer_does_not_undo_what_was_sent_since_the_question() -> None:
    view = View()
    view.read(view.number, {A: Load(100, 1)})
    view.sends(A, -10, 0)
    mark = view.number
    view.sends(A, -20, 0)
    view.read(mark, {A: Load(90, 1)})  # the store had heard of the first change only
    assert view.loads[A] == Load(70, 1)
    view.read(view.number, {A: Load(70, 1)})
    assert view.loads[A] == Load(70, 1)


def test_an_answer_for_some_endpoints_does_not_either() -> None:
    view = View()
    view.read(view.number, {A: Load(100, 2), B: Load(50, 2)})
    mark = view.number
    view.sends(A, -100, -1)
    view.sends(B, -50, -1)
    view.read_some(mark, [A], [Load(130, 3)])
    assert view.loads == {A: Load(30, 2), B: Load(0, 1)}


def test_questions_may_overlap() -> None:
    view = View()
    early = view.number
    view.sends(A, 5, 1)
    late = view.number
    view.sends(A, 7, 1)
    view.read_some(early, [A], [Load()])
    assert view.loads[A] == Load(12, 2)
    view.read(late, {A: Load(5, 1)})
    assert view.loads[A] == Load(12, 2)


def test_a_load_is_never_negative() -> None:
    view = View()
    view.sends(A, -5, -1)
    assert view.loads[A] == Load(0, 0)
