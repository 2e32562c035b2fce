"""Whatever a client sends, parsing ends with a prompt or a reason, and a prompt is what its type says."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Chat, Prompt, Text, TokenIds, Unread

CHATS = ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings"]
PATHS = st.sampled_from([*CHATS, "/v1/completions", "/inference/v1/generate", "/generate"])

few = settings(deadline=None, derandomize=True)
many = settings(few, max_examples=100)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["user", "assistant", "system", "tool", "developer", "text", "image_url", "function", "message"]),
    st.sampled_from(["function_call", "reasoning", "tool_use", "tool_result", "thinking", "image", "custom", "none"]),
)
FIELD_NAMES = """
    messages role content type text model prompt input instructions tools tool_calls function name arguments id
    parameters description system max_tokens stream token_ids input_ids features mm_placeholders offset image_url
    reasoning reasoning_effort thinking output_config effort summary call_id output status documents cache_salt
    sampling_params prompt_logprobs echo suffix truncate_prompt_tokens chat_template_kwargs input_schema source
    tool_use_id tool_call_id lora_path uuid refusal namespace
"""
FIELDS = st.sampled_from(FIELD_NAMES.split())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)
OBJECTS = st.dictionaries(FIELDS, VALUES, max_size=8)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer"])},
        optional={
            "content": VALUES | st.lists(st.dictionaries(FIELDS, SCALARS, max_size=4), max_size=3),
            "tool_calls": VALUES,
            "reasoning": SCALARS,
            "type": SCALARS,
            "name": SCALARS,
        },
    ),
    max_size=4,
)


def check(path: str, body: bytes) -> None:
    outcome = parse(path, {}, body)
    if isinstance(outcome, Unread):
        assert len(outcome.reason) < 40
        return
    assert isinstance(outcome, Prompt)
    assert outcome.model is None or isinstance(outcome.model, str)
    assert outcome.guessed_tokens >= 0
    for source in (outcome.source, *outcome.batch):
        match source:
            case TokenIds(ids):
                assert all(0 <= id_ < 2**32 for id_ in ids)
            case Text(text):
                assert isinstance(text, str)
            case Chat(messages):
                assert all(isinstance(message["role"], str) for message in messages)


@given(PATHS, st.binary(max_size=200))
@few
def test_any_bytes(path: str, body: bytes) -> None:
    check(path, body)


@given(PATHS, VALUES)
@few
def test_any_json(path: str, value: Any) -> None:
    check(path, json.dumps(value).encode())


@given(PATHS, OBJECTS)
@many
def test_objects_of_known_fields(path: str, value: Any) -> None:
    check(path, json.dumps(value).encode())


@given(st.sampled_from(CHATS), MESSAGES, OBJECTS)
@many
def test_messages_of_known_fields(path: str, messages: Any, rest: Any) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    check(path, json.dumps({**rest, field: messages}).encode())


@given(PATHS, OBJECTS, st.integers(0, 400), st.binary(min_size=1, max_size=3))
@few
def test_a_damaged_body(path: str, value: Any, at: int, damage: bytes) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    check(path, body[:at] + damage + body[at + len(damage) :])


@given(st.text(max_size=60))
@few
def test_any_path(path: str) -> None:
    check(path, b'{"messages": []}')
