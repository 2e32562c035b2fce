"""Requests of all APIs with something wrong in them: each gets an endpoint, and none is an error of ours."""

from pathlib import Path

from mutations.bodies import SEEDS, mutated
from mutations.picks import send

MODEL = Path(__file__).parents[2] / "fixtures" / "tiny-model"


async def test_whatever_is_wrong_with_a_request_it_is_picked() -> None:
    outcome = await send(mutated(3_000, seed=7), MODEL)
    assert [f"{sent.path} {sent.body[:300]!r}: {error!r}" for sent, error in outcome.raised] == []
    assert outcome.unpicked == []
    assert outcome.blind["internal error"] == 0
    assert sum(outcome.read.values()) == 3_000
    assert outcome.read["prompt"] > 300, "most are to be wrong, and not all"
    assert len(outcome.read) > 15, "in many ways"


def test_the_same_seed_makes_the_same_requests() -> None:
    assert [*mutated(50, 3)] == [*mutated(50, 3)]
    assert {path for path, _ in SEEDS} >= {"/v1/chat/completions", "/v1/messages", "/v1/responses", "/generate"}
