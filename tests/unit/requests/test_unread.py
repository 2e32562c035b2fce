"""A body that we can't read is no error: it has a reason, out of a few, and goes to some pod."""

import gzip
import json
import sys
from typing import Any

import pytest
from multipick_epp.requests import body as body_module
from multipick_epp.requests import parse
from multipick_epp.requests.body import MAX_BYTES, MAX_VALUES
from multipick_epp.requests.prompt import Prompt, Unread

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = "/v1/messages"
GENERATE = "/inference/v1/generate"
SGLANG = "/generate"
PATHS = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MESSAGES, GENERATE, SGLANG)
U = {"role": "user", "content": "hi"}


def reason(path: str, body: Any, headers: dict[str, str] | None = None) -> str:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    outcome = parse(path, headers or {}, sent)
    assert isinstance(outcome, Unread), outcome
    return outcome.reason


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def tool_calls(*calls: Any) -> dict[str, Any]:
    return {"messages": [U, {"role": "assistant", "content": "x", "tool_calls": [*calls]}]}


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (CHAT, {}, "unexpected fields"),
        (CHAT, {"messages": "hi"}, "unexpected fields"),
        (CHAT, {"messages": [{"content": "no role"}]}, "unexpected fields"),
        (CHAT, {"messages": [{"role": 1, "content": "x"}]}, "unexpected fields"),
        (CHAT, {"messages": [U], "tools": [{"type": "function"}]}, "unexpected fields"),
        (CHAT, {"messages": [U], "tools": [{"type": "web", "function": {"name": "f"}}]}, "unexpected fields"),
        (CHAT, {"messages": [U], "chat_template_kwargs": [1]}, "unexpected fields"),
        (CHAT, {"messages": [U], "truncate_prompt_tokens": 0}, "truncated prompt"),
        (CHAT, user([{"type": "text", "text": None}]), "unknown content part"),
        (CHAT, user([{"text": "no type"}]), "unknown content part"),
        (CHAT, user([{"type": ["text"], "text": "x"}]), "unknown content part"),
        (CHAT, user([{"type": "file", "file": {}}]), "unknown content part"),
        (CHAT, user([{"type": "prompt_embeds", "data": "AA"}]), "unknown content part"),
        (CHAT, tool_calls({"id": "c"}), "unknown tool call"),
        (CHAT, tool_calls({"id": "c", "type": "custom", "custom": {}}), "unknown tool call"),
        (CHAT, tool_calls("c"), "unexpected fields"),
        (COMPLETIONS, {}, "no prompt"),
        (COMPLETIONS, {"prompt": []}, "no prompt"),
        (COMPLETIONS, {"prompt": {"a": 1}}, "unexpected fields"),
        (COMPLETIONS, {"prompt": ["a", 1]}, "unexpected fields"),
        (COMPLETIONS, {"prompt": [1, [2]]}, "unexpected fields"),
        (COMPLETIONS, {"prompt": [1.5]}, "unexpected fields"),
        (COMPLETIONS, {"prompt": [-1]}, "not token ids"),
        (COMPLETIONS, {"prompt": [[1], [2**32]]}, "not token ids"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix"),
        (COMPLETIONS, {"prompt": "a", "prompt_embeds": "AA"}, "prompt embeddings"),
        (EMBEDDINGS, {"input": []}, "no prompt"),
        (EMBEDDINGS, {"input": "x", "padding": "max_length"}, "padded prompt"),
        (RESPONSES, {"input": "x", "previous_response_id": "r"}, "stored conversation"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "i"}]}, "unknown input item"),
        (RESPONSES, {"input": [{"type": "reasoning", "encrypted_content": "e"}]}, "encrypted reasoning"),
        (RESPONSES, {"input": [{"type": "function_call", "name": "f"}]}, "unknown tool call"),
        (RESPONSES, {"input": [{"role": "assistant", "content": []}]}, "unknown input item"),
        (RESPONSES, {"input": "x", "tools": [{"type": "function"}]}, "unexpected fields"),
        (RESPONSES, {"input": "x", "tools": [{"type": "namespace", "name": "n" * 257}]}, "name too long"),
        (MESSAGES, {"messages": [{"role": "tool", "content": "x"}]}, "unexpected fields"),
        (MESSAGES, user([{"type": "document", "source": {}}]), "unknown content part"),
        (MESSAGES, {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, "unknown tool call"),
        (MESSAGES, {"messages": [{"role": "system", "content": [{"type": "tool_removal"}]}]}, "tools that change"),
        (GENERATE, {"token_ids": ["a"]}, "unexpected fields"),
        (GENERATE, {"token_ids": [-5]}, "not token ids"),
        (GENERATE, {"token_ids": [1], "content_parts": [{}]}, "media without positions"),
        (SGLANG, {}, "no prompt"),
        (SGLANG, {"text": "x", "image_data": "AA"}, "media without positions"),
        (SGLANG, {"text": ["x", "y"], "lora_path": ["a", None]}, "a name for each prompt"),
    ],
)
def test_each_unreadable_body_says_why(path: str, body: dict[str, Any], why: str) -> None:
    assert reason(path, body) == why


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b'{"messages": NaN}', "unexpected fields"),
        (b'{"a": "\xff"}', "unexpected fields"),  # in a field that is skipped, nobody minds
        (b"[]", "unexpected fields"),
        (b"null", "unexpected fields"),
        (b'"text"', "unexpected fields"),
    ],
)
def test_what_is_no_object_is_unread(path: str, body: bytes, why: str) -> None:
    assert reason(path, body) in (why, "no prompt")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"messages":[', b'{"tools":[{"function":{"parameters":{"a":'])
def test_deep_nesting_is_unread_and_harmless(path: str, opening: bytes) -> None:
    depth_is_bounded = sys.version_info < (3, 12)  # by the interpreter; in later ones by the machine's stack
    why = reason(path, b'{"x":' + opening * 8_000)
    assert why == "nested too deeply" if depth_is_bounded else why in {"nested too deeply", "not JSON"}


def test_text_that_is_no_utf8_is_unread() -> None:
    assert reason(CHAT, b'{"messages": [{"role": "user", "content": "\xff"}]}') == "not JSON"


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udfff\\ud800", b"\\ud800x"])
def test_half_a_character_is_unread(escape: bytes) -> None:
    assert reason(CHAT, b'{"messages": [{"role": "user", "content": "' + escape + b'"}]}') == "not JSON"


def test_a_number_too_large_for_json_is_unread() -> None:
    assert reason(CHAT, b'{"messages": [], "chat_template_kwargs": {"a": 1e999}}') == "unexpected fields"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b" " * (MAX_BYTES + 1), "too large"),
        (b'{"a":[' + b"{}," * MAX_VALUES, "too many values"),
        (b'{"a":[' + b"0," * (MAX_VALUES + 1), "too many values"),
    ],
)
def test_a_body_that_would_take_much_memory_is_not_decoded(body: bytes, why: str) -> None:
    assert reason(CHAT, body) == why


MANY = json.dumps([{}] * (MAX_VALUES // 6))
CODE = json.dumps({"text": "f(a, [b, {c}])\n" * 2_000})


def calls(path: str, arguments: str, times: int) -> dict[str, Any]:
    if path == RESPONSES:
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
        return {"input": [call] * times}
    return tool_calls(*[{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}] * times)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, EMBEDDINGS])
def test_the_values_in_the_arguments_of_all_calls_are_bounded_together(path: str) -> None:
    assert isinstance(parse(path, {}, json.dumps(calls(path, MANY, 2)).encode()), Prompt)
    assert reason(path, calls(path, MANY, 4)) == "too many values"


@pytest.mark.parametrize("path", [CHAT, RESPONSES, EMBEDDINGS])
def test_code_in_the_arguments_of_calls_is_a_text_however_many_brackets_it_has(path: str) -> None:
    assert isinstance(parse(path, {}, json.dumps(calls(path, CODE, 20)).encode()), Prompt)


def test_arguments_with_few_brackets_and_commas_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_apart(_: bytes) -> bytes:
        raise AssertionError

    monkeypatch.setattr(body_module, "outside_texts", taken_apart)
    prose = json.dumps({"text": 'She said "no", and went.\n' * 500})
    assert isinstance(parse(CHAT, {}, json.dumps(calls(CHAT, prose, 20)).encode()), Prompt)


def test_a_million_token_ids_are_read() -> None:
    body = json.dumps({"prompt": [*range(100_000, 1_100_000)]}).encode()
    assert isinstance(parse(COMPLETIONS, {}, body), Prompt)


@pytest.mark.parametrize("named", ["gzip", "GZIP", "br", "identity", ""])
def test_a_body_is_read_by_what_it_is_whatever_the_header_names(named: str) -> None:
    plain = b'{"messages": []}'
    assert isinstance(parse(CHAT, {"content-encoding": named}, plain), Prompt)
    assert parse(CHAT, {"content-encoding": named}, gzip.compress(plain)) == Unread("compressed body")
    assert parse(CHAT, {}, gzip.compress(plain)) == Unread("not JSON")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions/render", "/tokenize", "/", "", "/v1/messages/x"])
def test_an_unknown_path_is_unread_whatever_the_body(path: str) -> None:
    assert parse(path, {}, b"\x00") == Unread("unknown path")


# --- base64 that was cut out of a body

BASE64 = "QUJD" * 3_000
DATA = {"data": BASE64}
CALL_OF_DATA = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra": DATA}
IMAGE = {"type": "image_url", "image_url": {"url": BASE64}}


def anthropic(role: str, **block: Any) -> dict[str, Any]:
    return {"messages": [U, {"role": role, "content": [block]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (MESSAGES, anthropic("assistant", type="tool_use", id="c", name="f", input=DATA)),
        (MESSAGES, anthropic("assistant", type="tool_use", id="c", name="f", input={"a": [DATA]})),
        (MESSAGES, anthropic("assistant", type="tool_result", content=[{"type": "image", "source": DATA}])),
        (MESSAGES, {"messages": [U], "tools": [{"name": "f", "input_schema": {"default": DATA}}]}),
        (CHAT, tool_calls(CALL_OF_DATA)),
        (CHAT, {"messages": [U], "documents": [DATA]}),
        (CHAT, {"messages": [U], "chat_template_kwargs": {"a": DATA}}),
        (CHAT, {"messages": [U], "tools": [{"function": {"name": "f", "parameters": {"default": DATA}}}]}),
        (CHAT, user([{"type": "text", "text": "a", "extra": DATA}])),
        (CHAT, user([IMAGE | {"extra": DATA}])),
        (RESPONSES, {"input": "a", "tools": [{"type": "function", "name": "f", "parameters": {"default": DATA}}]}),
        (EMBEDDINGS, {"messages": [U], "chat_template_kwargs": {"a": DATA}}),
    ],
)
def test_base64_that_is_no_media_is_never_taken_for_a_text(path: str, body: dict[str, Any]) -> None:
    assert reason(path, body) == "base64 in a text"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, user([IMAGE, {"type": "input_audio", "input_audio": DATA}])),
        (CHAT, {"messages": [U | {"audio": DATA}], "metadata": DATA}),  # the engine knows no such fields
        (MESSAGES, anthropic("user", type="image", source=DATA)),
        (MESSAGES, anthropic("assistant", type="redacted_thinking", data=BASE64)),
        (MESSAGES, anthropic("user", type="tool_result", tool_use_id="c", content=[{"type": "image", "source": DATA}])),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": BASE64}]}]}),
    ],
)
def test_base64_that_is_media_or_goes_nowhere_keeps_no_prompt_from_being_read(path: str, body: dict[str, Any]) -> None:
    assert isinstance(parse(path, {}, json.dumps(body).encode()), Prompt)
