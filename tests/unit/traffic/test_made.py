"""Made traffic as texts: what real tokens share is what the workload's blocks share."""

from collections.abc import Sequence

import pytest
from multipick_sim.traffic.made import plan
from multipick_sim.traffic.plan import ANSWER_OPENING_TOKENS, MESSAGE_OVERHEAD_TOKENS, Message, Session, request_count
from multipick_sim.workloads.generators import GENERATORS, hot_prefix
from multipick_sim.workloads.workload import NOBODY

NAMES = sorted(GENERATORS)


def shared_tokens(one: Sequence[Message], two: Sequence[Message]) -> int:
    total = 0
    for mine, theirs in zip(one, two, strict=False):
        if mine.seed != theirs.seed:
            break
        total += min(mine.tokens, theirs.tokens)
    return total


def prompts(session: Session) -> list[int]:
    """Tokens of each prompt, as the chat template makes them."""
    tokens, found = 0, []
    for turn in session.turns:
        tokens += sum(message.tokens for message in turn.messages)
        found.append(tokens + ANSWER_OPENING_TOKENS)
        tokens += turn.output_tokens + MESSAGE_OVERHEAD_TOKENS
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_request_is_sent_with_its_length_and_its_session(name: str) -> None:
    workload = GENERATORS[name](200, 3)
    sessions = plan(workload, 0.5, 3)
    assert request_count(sessions) == 200
    assert [session.start_s for session in sessions] == sorted(session.start_s for session in sessions)
    firsts = [item for item in workload.items if item.after == NOBODY]
    for session, item in zip(sessions, firsts, strict=True):
        assert session.start_s == pytest.approx(2 * item.at_s)
        assert prompts(session)[0] == pytest.approx(item.prompt_tokens, abs=6)
    wanted = sorted(item.prompt_tokens for item in workload.items)
    sent = sorted(tokens for session in sessions for tokens in prompts(session))
    assert sent == pytest.approx(wanted, abs=120)  # some tokens a turn


@pytest.mark.parametrize("name", NAMES)
def test_first_prompts_share_what_they_share_in_the_workload(name: str) -> None:
    workload = GENERATORS[name](120, 5)
    sessions = plan(workload, 1.0, 5)
    firsts = [item for item in workload.items if item.after == NOBODY]
    for one, mine in zip(sessions, firsts, strict=True):
        for two, theirs in zip(sessions, firsts, strict=True):
            if one is two:
                continue
            common = 0
            for ours, others in zip(mine.prefixes, theirs.prefixes, strict=False):
                if ours != others:
                    break
                common += workload.block_tokens
            shared = shared_tokens(one.turns[0].messages, two.turns[0].messages)
            assert shared == pytest.approx(min(common, mine.prompt_tokens, theirs.prompt_tokens), abs=16)


def test_the_same_seed_gives_the_same_plan_and_another_one_other_texts() -> None:
    one, same, other = (plan(GENERATORS["chat"](60, 1), 1.0, seed) for seed in (1, 1, 2))
    assert one == same
    own = [{session.turns[0].messages[-1].seed for session in each} for each in (one, other)]
    assert not own[0] & own[1]


def test_a_hot_prefix_is_one_text_that_its_share_of_the_requests_begins_with() -> None:
    sessions = plan(hot_prefix(400, 1, tokens=2048, share=0.6, answer=100), 1.0, 1)
    heads = [each.turns[0].messages[0].seed for each in sessions if len(each.turns[0].messages) == 2]
    assert len(set(heads)) == 1
    assert 0.55 * 300 < len(heads) < 0.7 * 300
