"""Token ids are read in slices, and no further than any model reads."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.requests import parse
from multipick_epp.requests.body import is_light
from multipick_epp.requests.prompt import Prompt, TokenIds, Unread
from multipick_epp.requests.token_ids import MAX_PROMPTS, MAX_TOKENS

COMPLETIONS = "/v1/completions"


def ids(body: bytes) -> list[list[int]]:
    prompt = parse(COMPLETIONS, {}, body)
    assert isinstance(prompt, Prompt), prompt
    sources = (prompt.source, *prompt.batch)
    return [list(source.ids) for source in sources if isinstance(source, TokenIds)]


def reason(prompt: Any) -> str:
    outcome = parse(COMPLETIONS, {}, json.dumps({"prompt": prompt}).encode())
    assert isinstance(outcome, Unread)
    return outcome.reason


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20),
    st.integers(1, 400),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]),
)
@settings(deadline=None, derandomize=True)
def test_slices_lose_nothing(sent: list[int], times: int, separators: tuple[str, str]) -> None:
    body = json.dumps({"prompt": sent * times}, separators=separators).encode()
    assert ids(body) == [sent * times]


def test_a_prompt_longer_than_any_model_is_cut() -> None:
    body = b'{"prompt":[' + b"7," * (2 * MAX_TOKENS) + b"7]}"
    assert list(map(len, ids(body))) == [MAX_TOKENS]


def test_a_batch_is_bounded_in_all() -> None:
    half = [7] * (MAX_TOKENS // 2 + 1)
    assert list(map(len, ids(json.dumps({"prompt": [half, half, half]}).encode()))) == [
        MAX_TOKENS // 2 + 1,
        MAX_TOKENS // 2 - 1,
        0,
    ]
    assert reason([[1]] * (MAX_PROMPTS + 1)) == "too many prompts"
    assert reason(["x"] * (MAX_PROMPTS + 1)) == "too many prompts"
    assert reason(["x"] * 100_000) == "too many values"


@pytest.mark.parametrize("prompt", [[1] * 5_000 + ["a"], [1] * 5_000 + [1.5], [1] * 5_000 + [None], [[1], [[2]]]])
def test_what_is_no_id_is_found_in_every_slice(prompt: Any) -> None:
    assert reason(prompt) == "unexpected fields"
    assert reason([1] * 5_000 + [-1]) == reason([2**32]) == "not token ids"


def test_only_bodies_that_cost_little_count_as_light() -> None:
    assert is_light(b"[" * 16_000)
    assert is_light(json.dumps({"messages": [{"role": "user", "content": "word " * 40_000}]}).encode())
    assert not is_light(json.dumps({"prompt": [*range(20_000)]}).encode())
    assert not is_light(b'{"prompt":"' + b"x" * 300_000 + b'"}')
