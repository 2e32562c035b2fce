"""What batch numbers say: gaps, restarts, duplicates, and what a replay can and can't bring."""

from collections.abc import Iterator

import pytest
from multipick_epp.events.sequence import (
    MAX_ATTEMPTS,
    MAX_HELD_BYTES,
    PATIENT_ATTEMPTS,
    Ask,
    BatchSequence,
    Begin,
    Effect,
    Lost,
    Take,
)
from xxhash import xxh3_64_intdigest


def batch(seq: int, engine: str = "a") -> tuple[int, bytes]:
    return seq, f"{engine}{seq}".encode()


def take(seq: int, engine: str = "a") -> Take:
    return Take(*batch(seq, engine))


def done(effects: Iterator[Effect]) -> list[Effect]:
    return list(effects)


def held(sequence: BatchSequence) -> list[Effect]:
    """All that can be had of what was held."""
    effects = []
    while sequence.holds:
        effects += done(sequence.held())
    return effects


def live(sequence: BatchSequence, *seqs: int, engine: str = "a") -> list[Effect]:
    return [effect for seq in seqs for effect in sequence.live(*batch(seq, engine))]


def answer(sequence: BatchSequence, *seqs: int, engine: str = "a", whole: bool = True) -> list[Effect]:
    effects = [effect for seq in seqs for effect in sequence.replayed(*batch(seq, engine))]
    return effects + done(sequence.replay_ended(whole))


def replay(sequence: BatchSequence, *seqs: int, engine: str = "a", whole: bool = True) -> list[Effect]:
    return answer(sequence, *seqs, engine=engine, whole=whole) + held(sequence)


def joined(replays: bool = True) -> BatchSequence:
    """A sequence that has taken batches 0 to 2 live."""
    sequence = BatchSequence(replays)
    done(sequence.connected())
    if replays:
        done(sequence.replay_ended(whole=True))
    live(sequence, 0, 1, 2)
    assert sequence.next == 3
    return sequence


def deaf_at_first() -> BatchSequence:
    """A sequence whose first questions nobody answered."""
    sequence = BatchSequence(replay=True)
    done(sequence.connected())
    for _ in range(MAX_ATTEMPTS):
        replay(sequence, whole=False)
    assert sequence.next is None
    return sequence


def sure(sequence: BatchSequence) -> bool:
    return sequence.sure


class TestWithoutReplay:
    def test_from_the_first_batch_on_nothing_is_missing(self) -> None:
        sequence = BatchSequence(replay=False)
        assert done(sequence.connected()) == []
        assert live(sequence, 0, 1) == [Begin(complete=True), take(0), take(1)]
        assert sequence.proven

    def test_a_late_join_is_incomplete(self) -> None:
        assert live(BatchSequence(replay=False), 7, 8) == [Begin(complete=False), take(7), take(8)]

    def test_a_gap_is_lost(self) -> None:
        sequence = joined(replays=False)
        assert live(sequence, 5, 6) == [Lost(), take(5), take(6)]
        assert sequence.gaps == 1

    def test_a_number_that_falls_back_is_another_engine(self) -> None:
        sequence = joined(replays=False)
        assert live(sequence, 0, 1, engine="b") == [Begin(complete=True), take(0, "b"), take(1, "b")]
        assert live(sequence, 1, engine="c") == [Begin(complete=False), take(1, "c")]

    def test_after_a_disconnection_the_next_number_passes_for_the_same_engine(self) -> None:
        sequence = joined(replays=False)
        sequence.disconnected()
        assert done(sequence.connected()) == []
        assert not sequence.proven
        assert live(sequence, 3) == [take(3)]

    def test_a_quiet_publisher_is_not_asked(self) -> None:
        assert done(joined(replays=False).probe()) == []


class TestJoining:
    def test_everything_is_replayed_and_what_comes_live_meanwhile_waits_its_turn(self) -> None:
        sequence = BatchSequence(replay=True)
        assert done(sequence.connected()) == [Ask(0)]
        assert live(sequence, 2, 3) == []
        assert replay(sequence, 0, 1, 2) == [Begin(complete=True), take(0), take(1), take(2), take(3)]
        assert live(sequence, 4) == [take(4)]

    def test_an_engine_that_has_published_nothing_is_known_to_be_empty(self) -> None:
        sequence = BatchSequence(replay=True)
        done(sequence.connected())
        assert replay(sequence) == [Begin(complete=True)]
        assert (sequence.proven, sequence.next) == (True, 0)

    def test_a_truncated_replay_is_taken_for_what_it_is(self) -> None:
        sequence = BatchSequence(replay=True)
        done(sequence.connected())
        assert replay(sequence, 10, 11) == [Begin(complete=False), take(10), take(11)]
        assert sequence.proven

    def test_without_an_answer_it_goes_on_with_what_comes_live(self) -> None:
        sequence = BatchSequence(replay=True)
        done(sequence.connected())
        live(sequence, 7)
        for _ in range(MAX_ATTEMPTS - 1):
            assert done(sequence.replay_ended(whole=False)) == [Ask(0)]
        assert done(sequence.replay_ended(whole=False)) == []
        assert held(sequence) == [Begin(complete=False), take(7)]
        assert live(sequence, 9) == [Lost(), take(9)]

    def test_what_came_before_a_beginning_without_an_answer_is_had_once_one_comes(self) -> None:
        sequence = deaf_at_first()
        assert live(sequence, 2) == [Begin(complete=False), take(2)]
        assert done(sequence.probe()) == [Ask(2)]
        assert replay(sequence, whole=False) == [Ask(2)]
        assert replay(sequence, 2) == [Ask(0)]
        assert replay(sequence, 0, 1, 2) == [Begin(complete=True), take(0), take(1), take(2)]
        assert sequence.sure
        done(sequence.probe())
        assert replay(sequence, 2) == []

    def test_a_beginning_without_an_answer_is_looked_into_once(self) -> None:
        sequence = deaf_at_first()
        live(sequence, 7)
        done(sequence.probe())
        assert replay(sequence, 7) == [Ask(0)]
        assert replay(sequence, 5, 6, 7) == [Begin(complete=False), take(5), take(6), take(7)]
        done(sequence.probe())
        assert replay(sequence, 7) == []


class TestGaps:
    def test_a_gap_is_replayed_from_the_last_batch_taken(self) -> None:
        sequence = joined()
        assert live(sequence, 5, 6) == [Ask(2)]
        assert replay(sequence, 2, 3, 4, 5) == [take(3), take(4), take(5), take(6)]
        assert (sequence.next, sequence.gaps) == (7, 1)

    def test_a_truncated_replay_loses_what_it_lacks(self) -> None:
        sequence = joined()
        live(sequence, 9)
        assert replay(sequence, 6, 7, 8, 9) == [Lost(), take(6), take(7), take(8), take(9)]

    def test_a_hole_in_a_replay_is_asked_for_again_and_then_lost(self) -> None:
        sequence = joined()
        live(sequence, 9)
        done(sequence.replayed(*batch(2)))
        for _ in range(MAX_ATTEMPTS):
            assert done(sequence.replayed(*batch(5))) == [Ask(2)]
            assert done(sequence.replayed(*batch(2))) == []
        assert done(sequence.replayed(*batch(5))) == [Lost(), take(5)]

    def test_a_replay_that_breaks_off_may_go_on_as_long_as_it_brings_something(self) -> None:
        sequence = joined()
        live(sequence, 99)
        for first in range(3, 3 + 2 * MAX_ATTEMPTS):
            assert done(sequence.replayed(*batch(first))) == [take(first)]
            assert done(sequence.replay_ended(whole=False)) == [Ask(first)]
        done(sequence.replayed(*batch(2 + 2 * MAX_ATTEMPTS)))
        for _ in range(PATIENT_ATTEMPTS - 1):
            assert sequence.asking
            done(sequence.replay_ended(whole=False))
        assert held(sequence) == [Lost(), take(99)]

    def test_batches_that_only_a_replay_has_are_waited_for(self) -> None:
        sequence = joined()
        assert live(sequence, 9) == [Ask(2)]
        for _ in range(PATIENT_ATTEMPTS - 1):
            assert done(sequence.replay_ended(whole=False)) == [Ask(2)]
            assert not sure(sequence)
        assert replay(sequence, *range(2, 9)) == [take(seq) for seq in range(3, 10)]
        assert sure(sequence)

    def test_a_probe_that_nobody_answered_costs_no_patience_with_a_gap_behind_it(self) -> None:
        sequence = joined()
        done(sequence.probe())
        for _ in range(MAX_ATTEMPTS - 1):
            done(sequence.replay_ended(whole=False))
        assert live(sequence, 9) == []
        for _ in range(PATIENT_ATTEMPTS - 1):
            assert done(sequence.replay_ended(whole=False)) == [Ask(2)]
        assert held(sequence) == []

    def test_a_gap_behind_probes_that_were_given_up_is_asked_for(self) -> None:
        sequence = joined()
        done(sequence.probe())
        for _ in range(MAX_ATTEMPTS):
            done(sequence.replay_ended(whole=False))
        assert not sequence.asking
        assert live(sequence, 9) == [Ask(2)]

    def test_what_was_held_comes_one_by_one_and_before_what_comes_live_meanwhile(self) -> None:
        sequence = joined()
        live(sequence, 4, 5)
        assert done(sequence.replayed(*batch(3))) == [take(3)]
        assert done(sequence.replay_ended(whole=True)) == []
        assert done(sequence.held()) == [take(4)]
        assert live(sequence, 6) == []
        assert held(sequence) == [take(5), take(6)]
        assert sequence.held_bytes == 0

    def test_what_is_too_much_to_hold_is_replayed_in_its_turn(self) -> None:
        sequence = joined()
        big = b"x" * (MAX_HELD_BYTES // 2)
        for seq in range(4, 8):
            done(sequence.live(seq, big))
        assert sequence.held_bytes == MAX_HELD_BYTES
        assert done(sequence.replayed(*batch(3))) == [take(3)]
        assert done(sequence.replay_ended(whole=True)) == []
        assert [type(effect) for effect in held(sequence)] == [Take, Take]
        assert live(sequence, 8) == [Ask(5)]

    def test_live_copies_of_replayed_batches_are_dropped(self) -> None:
        sequence = joined()
        live(sequence, 5)
        replay(sequence, 2, 3, 4, 5, 6, 7)
        assert live(sequence, 6, 7, 8) == [take(8)]

    def test_a_gap_behind_the_end_of_a_replay_is_replayed_in_its_turn(self) -> None:
        sequence = joined()
        live(sequence, 5, 9)
        assert replay(sequence, 2, 3, 4, 5) == [take(3), take(4), take(5), Ask(5)]
        assert replay(sequence, 5, 6, 7, 8) == [take(6), take(7), take(8), take(9)]


class TestRestarts:
    def test_numbers_that_fall_back_begin_anew(self) -> None:
        sequence = joined()
        assert live(sequence, 0, engine="b") == [Begin(complete=True), take(0, "b")]

    def test_what_a_restarted_engine_published_before_is_replayed(self) -> None:
        sequence = joined()
        assert live(sequence, 2, engine="b") == [Ask(0)]
        assert replay(sequence, 0, 1, 2, engine="b") == [
            Begin(complete=True),
            *(take(seq, "b") for seq in range(3)),
        ]

    def test_after_a_disconnection_the_last_batch_must_come_back_the_same(self) -> None:
        sequence = joined()
        sequence.disconnected()
        assert done(sequence.connected()) == [Ask(2)]
        assert replay(sequence, 2, 3) == [take(3)]
        assert sequence.proven

    def test_numbers_that_go_on_by_chance_don_t_hide_another_engine(self) -> None:
        sequence = joined()
        sequence.disconnected()
        done(sequence.connected())
        assert live(sequence, 3, engine="b") == []
        assert done(sequence.replayed(*batch(2, "b"))) == [Ask(0)]
        assert replay(sequence, 0, 1, 2, 3, engine="b") == [Begin(complete=True), *(take(s, "b") for s in range(4))]

    def test_an_engine_that_lacks_the_last_batch_is_another(self) -> None:
        sequence = joined()
        sequence.disconnected()
        done(sequence.connected())
        assert replay(sequence) == [Ask(0)]
        assert replay(sequence, 0, engine="b") == [Begin(complete=True), take(0, "b")]

    def test_after_a_disconnection_a_truncated_replay_proves_nothing(self) -> None:
        sequence = joined()
        sequence.disconnected()
        done(sequence.connected())
        assert done(sequence.replayed(*batch(8))) == [Ask(0)]
        assert replay(sequence, 8, 9) == [Begin(complete=False), take(8), take(9)]

    def test_what_waited_from_an_earlier_connection_is_dropped(self) -> None:
        sequence = joined()
        live(sequence, 5)
        sequence.disconnected()
        assert done(sequence.connected()) == [Ask(2)]
        assert replay(sequence) == [Ask(0)]
        assert replay(sequence, 0, engine="b") == [Begin(complete=True), take(0, "b")]

    def test_a_message_that_contradicts_a_whole_replay_is_dropped(self) -> None:
        sequence = joined()
        assert live(sequence, 1, engine="old") == [Ask(0)]
        assert replay(sequence, 0, 1, 2) == [Begin(complete=True), take(0), take(1), take(2)]
        assert live(sequence, 3) == [take(3)]

    def test_somebody_else_may_know_of_the_restart(self) -> None:
        sequence = joined()
        assert done(sequence.restarted()) == [Begin(complete=False), Ask(0)]
        assert replay(sequence) == [Begin(complete=True)]


class TestSilence:
    def test_a_probe_brings_what_was_lost_before_the_silence(self) -> None:
        sequence = joined()
        assert done(sequence.probe()) == [Ask(2)]
        assert not sequence.catching_up
        assert replay(sequence, 2, 3, 4) == [take(3), take(4)]

    def test_live_batches_need_not_wait_for_a_probe(self) -> None:
        sequence = joined()
        done(sequence.probe())
        assert live(sequence, 3, 4) == [take(3), take(4)]
        assert replay(sequence, 2, 3, 4, 5) == [take(5)]
        assert live(sequence, 5, 6) == [take(6)]

    def test_a_gap_that_shows_during_a_probe_is_filled_by_it(self) -> None:
        sequence = joined()
        done(sequence.probe())
        assert live(sequence, 5) == []
        assert replay(sequence, 2, 3, 4) == [take(3), take(4), take(5)]

    def test_a_probe_finds_another_engine(self) -> None:
        sequence = joined()
        done(sequence.probe())
        assert done(sequence.replayed(*batch(2, "b"))) == [Ask(0)]

    def test_a_probe_asks_again_after_replays_had_been_given_up(self) -> None:
        sequence = joined()
        live(sequence, 5)
        for _ in range(PATIENT_ATTEMPTS):
            done(sequence.replay_ended(whole=False))
        held(sequence)
        assert sequence.next == 6
        assert done(sequence.probe()) == [Ask(5)]
        assert replay(sequence, 5) == []
        assert live(sequence, 8) == [Ask(5)]


class TestWhatIsMissing:
    """Nothing is sure before it has come, or is known to be lost."""

    def test_a_gap(self) -> None:
        sequence = joined()
        assert live(sequence, 5) == [Ask(2)]
        assert not sure(sequence)
        assert done(sequence.replayed(*batch(2))) == []
        assert done(sequence.replayed(*batch(3))) == [take(3)]
        assert not sure(sequence)
        assert replay(sequence, 4, 5) == [take(4), take(5)]
        assert sure(sequence)

    def test_what_was_held_meanwhile(self) -> None:
        sequence = joined()
        live(sequence, 5, 6, 4)
        assert answer(sequence, 2, 3, 4) == [take(3), take(4)]
        assert not sure(sequence)
        assert done(sequence.held()) == [take(5)]
        assert not sure(sequence), "two more are held"
        assert done(sequence.held()) == [take(6)]
        assert not sure(sequence)
        assert done(sequence.held()) == [], "it came in the answer, too"
        assert sure(sequence)

    def test_a_gap_that_shows_during_a_probe(self) -> None:
        sequence = joined()
        done(sequence.probe())
        assert sure(sequence)
        live(sequence, 5)
        assert not sure(sequence)
        replay(sequence, 2, 3, 4)
        assert sure(sequence)

    def test_the_rest_of_an_answer_that_broke_off(self) -> None:
        sequence = joined()
        done(sequence.probe())
        assert replay(sequence, 2, 3, whole=False) == [take(3), Ask(3)]
        assert not sure(sequence)
        assert replay(sequence, 3, 4) == [take(4)]
        assert sure(sequence)

    def test_a_gap_in_an_answer(self) -> None:
        sequence = joined()
        done(sequence.probe())
        done(sequence.replayed(*batch(2)))
        assert done(sequence.replayed(*batch(4))) == [Ask(2)]
        assert not sure(sequence)

    def test_a_gap_that_nobody_can_fill(self) -> None:
        sequence = joined()
        live(sequence, 5)
        for _ in range(PATIENT_ATTEMPTS):
            done(sequence.replay_ended(whole=False))
        assert not sure(sequence)
        assert held(sequence) == [Lost(), take(5)]
        assert sure(sequence), "what is lost is said"


def test_answers_to_an_old_question_are_ignored() -> None:
    sequence = joined()
    assert done(sequence.replayed(*batch(3))) == []
    assert done(sequence.replay_ended(whole=True)) == []


class TestAfterADisconnection:
    """A publisher's last words are handed over after the news that its connection is gone."""

    def test_a_batch_that_still_comes_is_taken_and_makes_nothing_sure(self) -> None:
        sequence = joined()
        sequence.disconnected()
        assert live(sequence, 3) == [take(3)]
        assert not sequence.sure

    def test_an_answer_that_still_comes_makes_nothing_sure(self) -> None:
        sequence = joined()
        assert done(sequence.probe()) == [Ask(2)]
        sequence.disconnected()
        assert replay(sequence, 2, 3) == [take(3)]
        assert not sequence.sure

    def test_the_next_connection_is_sure_once_its_own_question_is_answered(self) -> None:
        sequence = joined()
        sequence.disconnected()
        live(sequence, 3)
        assert done(sequence.connected()) == [Ask(3)]
        assert not sequence.sure
        assert replay(sequence, 3, 4) == [take(4)]
        assert sequence.sure


class TestAnotherOwner:
    def resumed(self, replays: bool = True) -> BatchSequence:
        sequence = BatchSequence(replays)
        sequence.resume(7, xxh3_64_intdigest(batch(7)[1]))
        return sequence

    def test_goes_on_behind_the_last_batch_of_the_one_before(self) -> None:
        sequence = self.resumed()
        assert not sure(sequence)
        assert done(sequence.connected()) == [Ask(7)]
        assert done(sequence.replayed(*batch(7))) == []
        assert done(sequence.replayed(*batch(8))) == [take(8)]
        assert done(sequence.replay_ended(whole=True)) == []
        assert sure(sequence)
        assert sequence.last == (8, xxh3_64_intdigest(batch(8)[1]))

    def test_is_not_sure_before_the_answer_is_through_and_what_came_meanwhile(self) -> None:
        sequence = self.resumed()
        done(sequence.connected())
        assert live(sequence, 9, 10) == []
        for seq in (7, 8):
            done(sequence.replayed(*batch(seq)))
            assert not sure(sequence), "more was published"
        done(sequence.replay_ended(whole=True))
        assert done(sequence.held()) == [take(9)]
        assert not sure(sequence), "one more is held"
        assert done(sequence.held()) == [take(10)]
        assert sure(sequence)

    @pytest.mark.parametrize("first", [batch(7, "other"), batch(9)])
    def test_begins_anew_where_that_does_not_come_back(self, first: tuple[int, bytes]) -> None:
        sequence = self.resumed()
        assert done(sequence.connected()) == [Ask(7)]
        assert done(sequence.replayed(*first)) == [Ask(0)]
        assert done(sequence.replayed(*batch(0))) == [Begin(complete=True), take(0)]

    def test_takes_the_next_number_for_the_same_engine_where_nothing_can_be_replayed(self) -> None:
        sequence = self.resumed(replays=False)
        assert done(sequence.connected()) == []
        assert live(sequence, 8) == [take(8)]
        assert sure(sequence)
        assert live(self.resumed(replays=False), 10) == [Lost(), take(10)]
        assert live(self.resumed(replays=False), 3) == [Begin(complete=False), take(3)]

    def test_goes_on_from_an_engine_that_had_published_nothing(self) -> None:
        for published in ([], [0, 1]):
            sequence = BatchSequence(replay=True)
            sequence.resume(-1, 0)
            assert done(sequence.connected()) == [Ask(0)]
            assert [done(sequence.replayed(*batch(seq))) for seq in published] == [[take(seq)] for seq in published]
            assert done(sequence.replay_ended(whole=True)) == []
            assert sure(sequence)

    def test_that_hears_nothing_knows_nothing(self) -> None:
        """A probe that is not answered: what came last may be missing."""
        sequence = joined()
        assert sure(sequence)
        assert done(sequence.probe()) == [Ask(2)]
        assert sure(sequence)
        sequence.doubt()
        assert not sure(sequence)
        assert done(sequence.replay_ended(whole=False)) == [Ask(2)]
        assert not sure(sequence)
        assert not sequence.catching_up, "what comes is taken all the same"
        assert live(sequence, 3) == [take(3)]
        assert sure(sequence)

    def test_and_that_is_told_in_the_end_knows_again(self) -> None:
        sequence = joined()
        done(sequence.probe())
        sequence.doubt()
        assert done(sequence.replayed(*batch(2))) == []
        assert not sure(sequence), "the rest of the answer is to come"
        assert done(sequence.replayed(*batch(3))) == [take(3)]
        assert not sure(sequence)
        assert done(sequence.replay_ended(whole=False)) == [Ask(3)]
        assert not sure(sequence)
        assert replay(sequence, 3, 4) == [take(4)]
        assert sure(sequence)

    def test_and_that_is_told_in_time_has_no_doubts(self) -> None:
        sequence = joined()
        done(sequence.probe())
        assert done(sequence.replayed(*batch(2))) == []
        sequence.doubt()
        assert sure(sequence), "the answer has begun"

    def test_and_that_hears_of_the_next_batch_knows_again(self) -> None:
        """A message in line shows that nothing is missing before it."""
        sequence = joined()
        done(sequence.probe())
        sequence.doubt()
        assert live(sequence, 3) == [take(3)]
        assert sure(sequence)
