"""The built-in chats: what a plan promises."""

from collections import Counter

import pytest
from multipick_sim.traffic.chats import Range, Shape, chats
from multipick_sim.traffic.plan import request_count


def test_the_same_seed_gives_the_same_plan() -> None:
    assert chats(200, 7, Shape()) == chats(200, 7, Shape())


def test_another_seed_gives_other_texts() -> None:
    seeds = [
        {message.seed for session in chats(50, seed, Shape()) for turn in session.turns for message in turn.messages}
        for seed in (1, 2)
    ]
    assert not seeds[0] & seeds[1]


@pytest.mark.parametrize("requests", [1, 2, 37, 400])
def test_a_plan_has_as_many_requests_as_asked_for(requests: int) -> None:
    assert request_count(chats(requests, 3, Shape())) == requests


def test_more_requests_only_add_to_a_plan() -> None:
    fewer, more = chats(100, 5, Shape()), chats(300, 5, Shape())
    for session, longer in zip(fewer, more, strict=False):
        assert session.start_s == longer.start_s
        assert session.turns == longer.turns[: len(session.turns)]
    assert more[len(fewer)].start_s > fewer[-1].start_s


def test_traffic_ends_at_once_without_a_tail_of_few_sessions() -> None:
    sessions = chats(1000, 6, Shape(mean_think_s=5.0))
    asked = sorted(session.start_s + sum(turn.wait_s for turn in session.turns) for session in sessions)
    assert asked[-1] < sessions[-1].start_s + 5.0


def test_applications_are_as_popular_as_zipf_says() -> None:
    shape = Shape(applications=4, mean_turns=1.0)
    sessions = chats(8000, 11, shape)
    counts = [count for _, count in Counter(session.turns[0].messages[0].seed for session in sessions).most_common()]
    assert len(counts) == 4
    for count, share in zip(counts, shape.shares(), strict=True):
        assert count / len(sessions) == pytest.approx(share, rel=0.1)


def test_shares_sum_to_one_and_fall() -> None:
    shares = list(Shape(applications=9, zipf=1.2).shares())
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)


def test_sessions_arrive_at_the_rate_asked_for_and_turns_have_the_mean_length() -> None:
    shape = Shape(sessions_per_s=5.0, mean_turns=3.0, mean_think_s=2.0)
    sessions = chats(12_000, 1, shape)
    waits = [turn.wait_s for session in sessions for turn in session.turns[1:]]
    assert len(sessions) / sessions[-1].start_s == pytest.approx(5.0, rel=0.1)
    assert 12_000 / len(sessions) == pytest.approx(3.0, rel=0.1)
    assert sum(waits) / len(waits) == pytest.approx(2.0, rel=0.1)


def test_only_a_first_turn_brings_the_system_prompt_and_no_turn_waits_before_the_session() -> None:
    for session in chats(300, 2, Shape()):
        first, *others = session.turns
        assert [message.role for message in first.messages] == ["system", "user"]
        assert first.wait_s == 0
        assert all([message.role for message in turn.messages] == ["user"] for turn in others)


def test_lengths_stay_in_their_ranges() -> None:
    shape = Shape(system=Range(100, 200), question=Range(1, 9), answer=Range(5, 5))
    turns = [turn for session in chats(500, 4, shape) for turn in session.turns]
    assert {turn.output_tokens for turn in turns} == {5}
    assert {message.text_tokens for turn in turns for message in turn.messages if message.role == "user"} == {
        *range(1, 10)
    }
    assert all(
        100 <= message.text_tokens <= 200 for turn in turns for message in turn.messages if message.role == "system"
    )
