"""What is read from the body of each API, beside the messages (those: tests/unit/tokens/recorded)."""

import json
from typing import Any

import pytest
from msgspec.structs import replace
from multipick_epp.requests import parse, responses
from multipick_epp.requests.prompt import Chat, ChatMessage, Prompt, Text, TokenIds

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = "/v1/messages"
GENERATE = "/inference/v1/generate"
SGLANG = "/generate"

HI = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def read(path: str, body: dict[str, Any]) -> Prompt:
    prompt = parse(path, {}, json.dumps(body).encode())
    assert isinstance(prompt, Prompt), prompt
    return prompt


def chat(prompt: Prompt) -> Chat:
    assert isinstance(prompt.source, Chat)
    return prompt.source


SMALLEST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI},
    COMPLETIONS: {"prompt": "hi"},
    RESPONSES: {"input": "hi"},
    EMBEDDINGS: {"input": "hi"},
    MESSAGES: {"messages": HI, "max_tokens": 5},
    GENERATE: {"token_ids": [1, 2], "sampling_params": {}},
    SGLANG: {"text": "hi"},
}
WITH_MODEL = [path for path in SMALLEST if path != SGLANG]
WITH_SALT = WITH_MODEL


@pytest.mark.parametrize("path", SMALLEST)
def test_the_smallest_body_of_each_api_is_read(path: str) -> None:
    prompt = read(path, SMALLEST[path])
    assert (prompt.model, prompt.cache_salt) == (None, None)
    assert (prompt.guessed_tokens, prompt.reads_cache) == (0, True)
    assert list(prompt.batch) == []


@pytest.mark.parametrize("path", SMALLEST)
def test_unknown_fields_change_nothing(path: str) -> None:
    extra = {"vllm_xargs": {"a": 1}, "priority": 3, "user": None, "x": [{"y": [{}]}], "temperature": "warm"}
    assert read(path, SMALLEST[path] | extra) == read(path, SMALLEST[path])


@pytest.mark.parametrize("path", WITH_MODEL)
def test_the_model_is_as_the_client_named_it(path: str) -> None:
    assert read(path, SMALLEST[path] | {"model": "base/adapter:1"}).model == "base/adapter:1"


@pytest.mark.parametrize("path", WITH_SALT)
def test_the_cache_salt_is_read(path: str) -> None:
    assert read(path, SMALLEST[path] | {"cache_salt": "s1"}).cache_salt == "s1"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"prompt_logprobs": 0}),
        (CHAT, {"echo": True}),
        (COMPLETIONS, {"prompt_logprobs": 1}),
        (COMPLETIONS, {"echo": True, "logprobs": 0}),
        (GENERATE, {"sampling_params": {"prompt_logprobs": 1}}),
    ],
)
def test_a_request_for_prompt_logprobs_does_not_read_the_cache(path: str, fields: Any) -> None:
    assert not read(path, SMALLEST[path] | fields).reads_cache


@pytest.mark.parametrize(
    ("params", "reads"),
    [
        ({"skip_reading_prefix_cache": True}, False),
        ({"skip_reading_prefix_cache": False}, True),
        ({"skip_reading_prefix_cache": False, "prompt_logprobs": 1}, True),
        ({"skip_reading_prefix_cache": None, "prompt_logprobs": 1}, False),
    ],
)
def test_a_request_may_say_itself_whether_it_reads_the_cache(params: Any, reads: bool) -> None:
    assert read(GENERATE, {"token_ids": [1], "sampling_params": params}).reads_cache is reads


@pytest.mark.parametrize("prompt", [{"input": "hi"}, {"messages": HI}], ids=["text", "chat"])
@pytest.mark.parametrize(
    ("task", "reads"),
    [("token_embed", False), ("token_classify", False), ("embed", True), ("classify", True), (None, True), ({}, True)],
)
def test_what_is_asked_of_each_token_does_not_read_the_cache(prompt: Any, task: Any, reads: bool) -> None:
    assert read("/pooling", {**prompt, "task": task}).reads_cache is reads


def test_echo_alone_reads_the_cache_in_completions() -> None:
    assert read(COMPLETIONS, {"prompt": "x", "echo": True}).reads_cache


@pytest.mark.parametrize(("path", "field"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input"), (SGLANG, "text")])
@pytest.mark.parametrize(("sent", "sources"), [("a b", [Text("a b")]), (["a", "b"], [Text("a"), Text("b")])])
def test_prompts_come_as_one_text_or_many(path: str, field: str, sent: Any, sources: list[Text]) -> None:
    prompt = read(path, {field: sent})
    assert [prompt.source, *prompt.batch] == sources


@pytest.mark.parametrize(("path", "field"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input"), (SGLANG, "input_ids")])
@pytest.mark.parametrize(
    ("sent", "ids"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([[1], []], [[1], []]),
        ([4294967295], [[4294967295]]),
    ],
)
def test_prompts_come_as_token_ids_once_or_many_times(path: str, field: str, sent: Any, ids: list[list[int]]) -> None:
    prompt = read(path, {field: sent})
    sources = [source for source in (prompt.source, *prompt.batch) if isinstance(source, TokenIds)]
    assert [list(source.ids) for source in sources] == ids


@pytest.mark.parametrize(("path", "field"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
def test_special_tokens_are_added_to_a_text_unless_the_client_says_no(path: str, field: str) -> None:
    assert read(path, {field: "x"}).source == Text("x", True)
    assert read(path, {field: "x", "add_special_tokens": False}).source == Text("x", False)


def test_special_tokens_around_a_chat_are_left_to_the_template_but_in_responses() -> None:
    assert not chat(read(CHAT, {"messages": HI})).add_special_tokens
    assert chat(read(CHAT, {"messages": HI, "add_special_tokens": True})).add_special_tokens
    assert not chat(read(EMBEDDINGS, {"messages": HI})).add_special_tokens
    assert not chat(read(MESSAGES, {"messages": HI})).add_special_tokens
    assert chat(read(RESPONSES, {"input": "hi"})).add_special_tokens


def test_an_embedding_of_a_chat_has_no_generation_prompt() -> None:
    assert not chat(read(EMBEDDINGS, {"messages": HI})).add_generation_prompt


def test_sglangs_adapter_is_the_model() -> None:
    assert read(SGLANG, {"text": "x", "lora_path": "ad1"}).model == "ad1"


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [
        (COMPLETIONS, {}, 16),
        (COMPLETIONS, {"max_tokens": None}, 0),
        (COMPLETIONS, {"max_tokens": 7}, 7),
        (CHAT, {}, 0),
        (CHAT, {"max_tokens": 7}, 7),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": "9"}, 9),
        (RESPONSES, {"max_output_tokens": 7}, 7),
        (EMBEDDINGS, {"max_tokens": 7}, 0),
    ],
)
def test_room_is_left_for_the_answer_that_was_asked_for(path: str, fields: dict[str, Any], tokens: int) -> None:
    assert read(path, SMALLEST[path] | fields).answer_tokens == tokens


def test_cutting_what_is_longer_than_the_context_changes_no_prompt_that_fits() -> None:
    cut = read(CHAT, {"messages": HI, "truncate_prompt_tokens": -1})
    assert cut == replace(read(CHAT, {"messages": HI}), keeps_end=True)


@pytest.mark.parametrize(
    ("path", "fields", "keeps_end"),
    [
        (CHAT, {"truncate_prompt_tokens": "-1"}, True),
        (CHAT, {"truncate_prompt_tokens": -1, "truncation_side": "right"}, False),
        (CHAT, {"truncate_prompt_tokens": 5}, False),
        (COMPLETIONS, {"truncate_prompt_tokens": -1}, True),
        (EMBEDDINGS, {"truncate_prompt_tokens": -1}, False),
        (EMBEDDINGS, {"truncate_prompt_tokens": -1, "truncation_side": "left"}, True),
        (RESPONSES, {"truncation": "auto"}, True),
        (RESPONSES, {"truncation": None}, True),
        (RESPONSES, {"truncation": "disabled"}, False),
        (RESPONSES, {}, False),
    ],
)
def test_a_request_tells_whether_the_end_of_a_prompt_beyond_the_context_is_kept(
    path: str, fields: dict[str, Any], keeps_end: bool
) -> None:
    assert read(path, SMALLEST[path] | fields).keeps_end is keeps_end


@pytest.mark.parametrize(
    "part",
    [
        IMAGE,
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "http://x"}},
        {"image_url": "http://x"},
        {"type": "image_url", "image_url": None, "uuid": "u1"},
        {"type": "image_embeds", "image_embeds": "AA"},
    ],
)
def test_media_are_seen_and_guessed_from_their_message_on(part: dict[str, Any]) -> None:
    before = {"role": "user", "content": "x" * 4_000}
    with_media = {"role": "user", "content": [{"type": "text", "text": "y" * 400}, part]}
    after = {"role": "user", "content": "z" * 4_000}
    prompt = read(CHAT, {"messages": [before, with_media, after]})
    assert chat(prompt).multimodal
    assert prompt.guessed_tokens == 1_000 + (400 + 4_000) // 4


def test_media_in_anthropic_messages_and_tool_results_are_seen() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
    assert read(MESSAGES, {"messages": [{"role": "user", "content": [image]}]}).guessed_tokens
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    assert read(MESSAGES, {"messages": [{"role": "user", "content": [result]}]}).guessed_tokens


def test_media_in_responses_are_seen() -> None:
    item = {"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}
    assert read(RESPONSES, {"input": [item]}).guessed_tokens


def test_ids_with_media_are_known_up_to_the_first_item() -> None:
    places = {"image": [{"offset": 9, "length": 4}], "audio": [{"offset": 5, "length": 2}]}
    features = {"mm_hashes": {"image": ["h1"], "audio": ["h2"]}, "mm_placeholders": places}
    prompt = read(GENERATE, {"token_ids": [*range(20)], "features": features, "sampling_params": {}})
    assert isinstance(prompt.source, TokenIds)
    assert list(prompt.source.ids) == [0, 1, 2, 3, 4]
    assert prompt.guessed_tokens == 15


def test_a_disabled_thinking_of_anthropic_is_left_to_the_template() -> None:
    source = chat(
        read(MESSAGES, {"messages": HI, "thinking": {"type": "disabled"}, "output_config": {"effort": "max"}})
    )
    assert (source.thinking_off, source.reasoning_effort) == (True, "max")


def test_system_messages_in_between_are_marked_in_anthropic_only() -> None:
    late = [*HI, {"role": "system", "content": "s"}]
    assert chat(read(MESSAGES, {"messages": late})).inline_system
    assert not chat(read(MESSAGES, {"messages": HI, "system": "s"})).inline_system
    assert not chat(read(CHAT, {"messages": late})).inline_system


def test_the_calls_of_a_turn_are_kept_in_one_list_however_many_come() -> None:
    call = responses.Item(type="function_call", call_id="c", name="f", arguments="{}")
    messages: list[ChatMessage] = [{"role": "assistant", "content": "a"}]
    responses._append(call, messages, messages[0])
    first = messages[0]["tool_calls"]
    responses._append(call, messages, messages[0])
    assert messages[0]["tool_calls"] is first
    assert len(first or ()) == 2
