"""Why predicted and reported hits differ: each cause from the least evidence that proves it."""

from dataclasses import replace

import pytest
from multipick_sim.traffic.causes import Cause, agreement, cause, shared_tokens
from multipick_sim.traffic.records import Record, Segment

SYSTEM, QUESTION, OTHER = Segment(1, 512), Segment(2, 100), Segment(3, 100)
LAG_S = 0.5


def record(
    name: str, sent_s: float, segments: tuple[Segment, ...], predicted: int | None, reported: int | None
) -> Record:
    return Record(
        name=name,
        segments=segments,
        answer=Segment(name, 50),
        sent_s=sent_s,
        first_token_s=sent_s + 2,
        end_s=sent_s + 4,
        prompt_tokens=700,
        output_tokens=45,
        cached_tokens=reported,
        counted_tokens=700,
        predicted_tokens=predicted,
        endpoint="a",
        mode="exact",
        status=200,
    )


EARLIER = record("earlier", 0.0, (SYSTEM, QUESTION), 0, 0)


def late(sent_s: float, predicted: int, reported: int) -> Record:
    return record("late", sent_s, (SYSTEM, OTHER), predicted, reported)


def why(subject: Record, *others: Record) -> Cause:
    return cause(subject, [*others, subject], LAG_S)


def test_a_prefix_still_in_prefill_at_the_pick() -> None:
    assert why(late(1.0, 0, 512), EARLIER) is Cause.IN_PREFILL


def test_a_prefix_computed_a_moment_before_the_pick() -> None:
    assert why(late(2.1, 0, 512), EARLIER) is Cause.EVENT_LAG


def test_a_prefix_computed_long_before_the_pick_does_not_explain_a_smaller_prediction() -> None:
    assert why(late(3.0, 0, 512), EARLIER) is Cause.LESS


def test_an_answer_counts_as_computed_when_it_ends() -> None:
    follow_up = record("late", 4.2, (SYSTEM, QUESTION, EARLIER.answer, OTHER), 608, 656)
    assert why(follow_up, EARLIER) is Cause.EVENT_LAG
    assert why(replace(follow_up, sent_s=9.0, first_token_s=11.0), EARLIER) is Cause.LESS


def test_a_prefix_that_was_there_and_is_gone() -> None:
    assert why(late(3.0, 512, 0), EARLIER) is Cause.EVICTED


def test_a_prediction_that_counts_on_a_prompt_still_in_prefill() -> None:
    assert why(late(1.0, 512, 0), EARLIER) is Cause.COUNTED_AHEAD


@pytest.mark.parametrize(("predicted", "reported", "expected"), [(0, 512, Cause.LESS), (512, 0, Cause.MORE)])
def test_nothing_is_explained_by_requests_that_had_no_part_in_it(
    predicted: int, reported: int, expected: Cause
) -> None:
    subject = late(1.0, predicted, reported)
    elsewhere = replace(EARLIER, endpoint="b")
    unrelated = replace(EARLIER, segments=(OTHER, QUESTION))
    too_short = replace(EARLIER, segments=(replace(SYSTEM, tokens=400), QUESTION))
    too_late = replace(EARLIER, sent_s=3.5, first_token_s=5.0)
    assert why(subject, elsewhere, unrelated, too_short, too_late) is expected


def test_a_request_sent_later_that_overtook_explains_a_hit() -> None:
    assert why(late(1.0, 0, 512), replace(EARLIER, sent_s=1.1)) is Cause.IN_PREFILL


def test_an_endpoint_that_was_not_known_exactly_is_the_first_cause() -> None:
    assert why(replace(late(1.0, 0, 512), mode="blind"), EARLIER) is Cause.BLIND
    assert why(replace(late(1.0, 0, 512), mode="approx"), EARLIER) is Cause.APPROX


def test_a_prompt_that_picker_and_engine_count_differently_has_other_tokens() -> None:
    assert why(replace(late(1.0, 0, 512), counted_tokens=699), EARLIER) is Cause.OTHER_TOKENS


def test_shared_tokens_are_the_common_leading_segments_and_the_opening_of_the_next_message() -> None:
    assert shared_tokens((SYSTEM, OTHER), (SYSTEM, QUESTION)) == 512 + 3
    assert shared_tokens((OTHER, SYSTEM), (QUESTION, SYSTEM)) == 3
    assert shared_tokens((SYSTEM, replace(QUESTION, tokens=40), OTHER), (SYSTEM, QUESTION, OTHER)) == 552 + 3


def test_agreement_compares_answers_that_have_both_hits() -> None:
    equal = record("equal", 0, (SYSTEM,), 512, 512)
    unequal = late(3.0, 512, 0)
    found = agreement(
        [
            EARLIER,
            equal,
            unequal,
            replace(unequal, error="cut"),
            replace(unequal, predicted_tokens=None),
            replace(unequal, cached_tokens=None),
        ],
        speed=1.0,
    )
    assert (found.compared, found.equal, found.unpredicted) == (3, 2, 1)
    assert found.share == pytest.approx(2 / 3)
    assert found.causes == {Cause.EVICTED: 1}


def test_nothing_to_compare_is_no_disagreement() -> None:
    assert agreement([], speed=1.0).share == 1


def test_events_take_longer_in_engine_time_the_faster_it_runs() -> None:
    subject = late(2.9, 0, 512)
    assert agreement([EARLIER, subject], speed=1.0).causes == {Cause.LESS: 1}
    assert agreement([EARLIER, subject], speed=10.0).causes == {Cause.EVENT_LAG: 1}
