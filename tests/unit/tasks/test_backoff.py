from random import Random

from multipick_epp.tasks.backoff import Backoff


def test_pauses_grow_up_to_the_longest_and_begin_again() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_with_a_random_source_they_are_up_to_half_shorter() -> None:
    backoff = Backoff(8.0, 8.0, Random(1))
    pauses = [backoff.next_s() for _ in range(100)]
    assert all(4.0 <= pause <= 8.0 for pause in pauses)
    assert len(set(pauses)) > 50
