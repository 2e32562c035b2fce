"""Models with Mistral's own tokenizer: written as `mistral-common` itself does it."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mistral_common
import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from multipick_epp.requests import parse
from multipick_epp.requests.body import MAX_VALUES
from multipick_epp.requests.prompt import Chat, ChatMessage, Prompt, Text
from multipick_epp.tokens import EngineSettings, Tokenizer, Untokenised
from multipick_epp.tokens.families import own_tokenizer
from multipick_epp.tokens.model import OnlyEngines

REAL = Path(mistral_common.__file__).parent / "data" / "tekken_240718.json"
CALL: Any = {"id": "call_1234567890", "type": "function", "function": {"name": "f", "arguments": '{"x": "naïve 東京"}'}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
U: ChatMessage = {"role": "user", "content": "weather?  [INST] </s>"}
CHATS: Sequence[list[ChatMessage]] = (
    [U],
    [{"role": "system", "content": "Be  brief."}, U],
    [U, {"role": "assistant", "content": "  yes "}, {"role": "user", "content": [{"type": "text", "text": "go on"}]}],
    [U, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": CALL["id"], "content": "7"}],
    [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 200}],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mistral")
    (made / "tekken.json").symlink_to(REAL)
    return made


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Iterator[Tokenizer]:
    tokenizer = Tokenizer.load(folder)
    yield tokenizer
    tokenizer.close()


@pytest.fixture(scope="module")
def library() -> Any:
    return MistralTokenizer.from_file(REAL)


def ids(tokenizer: Tokenizer, source: Text | Chat) -> list[int]:
    found = tokenizer.encode_now(source)
    assert not isinstance(found, Untokenised), found.reason
    return list(found)


@pytest.mark.parametrize("messages", CHATS)
def test_a_chat_is_written_as_the_library_writes_it(
    tokenizer: Tokenizer, library: Any, messages: list[ChatMessage]
) -> None:
    short: Any = [dict(message) for message in messages]  # the engine keeps the last 9 characters of an id
    for message in short:
        message["tool_calls"] = [{**call, "id": call["id"][-9:]} for call in message.get("tool_calls", [])]
        message["tool_call_id"] = message.get("tool_call_id", "")[-9:]
    wanted = library.encode_chat_completion(ChatCompletionRequest.from_openai(messages=short, tools=[TOOL])).tokens
    assert ids(tokenizer, Chat(messages, tools=[TOOL])) == wanted


def test_control_tokens_are_never_recognised_in_a_text(tokenizer: Tokenizer, library: Any) -> None:
    text = "a [INST] </s> <s>[TOOL_CALLS] b"
    tekken = library.instruct_tokenizer.tokenizer
    assert ids(tokenizer, Text(text, add_special_tokens=False)) == tekken.encode(text, bos=False, eos=False)
    assert ids(tokenizer, Text(text)) == tekken.encode(text, bos=True, eos=False)


def test_an_answer_to_go_on_with_stays_open(tokenizer: Tokenizer) -> None:
    open_end: list[ChatMessage] = [U, {"role": "assistant", "content": "It is"}]
    ended = ids(tokenizer, Chat(open_end, add_generation_prompt=False))
    assert ids(tokenizer, Chat(open_end, add_generation_prompt=False, continue_final_message=True)) == ended[:-1]


@pytest.mark.parametrize(
    "source",
    [
        Text(" " * 1_000_000),
        Text("half a character: \ud800"),
        Chat([]),
        Chat([{"role": "assistant", "content": "hi"}]),
        Chat([U], continue_final_message=True, add_generation_prompt=False),
        Chat([{"role": "robot", "content": "hi"}]),
        Chat([U], template_kwargs={"tools": []}),
        Chat([U], chat_template="{{ messages }}"),
        Chat([{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]),
        Chat([{"role": "tool", "content": "7"}]),
        Chat([{"role": "user", "content": "\ud800"}]),
        Chat([U], multimodal=True),
    ],
)
def test_what_the_engine_refuses_has_no_ids(tokenizer: Tokenizer, source: Text | Chat) -> None:
    assert isinstance(tokenizer.encode_now(source), Untokenised)


def test_hidden_tools_are_not_written(folder: Path, tokenizer: Tokenizer) -> None:
    chat = Chat([U], tools=[TOOL], tool_choice_none=True)
    hiding = Tokenizer.load(folder, settings=EngineSettings(exclude_tools_when_tool_choice_none=True))
    assert ids(hiding, chat) == ids(tokenizer, Chat([U]))
    assert ids(tokenizer, chat) == ids(tokenizer, Chat([U], tools=[TOOL]))
    hiding.close()


@pytest.mark.parametrize(
    ("files", "mode", "own"),
    [
        (["tekken.json"], "auto", "tekken.json"),
        (["tekken.json", "tokenizer.json"], "auto", "tekken.json"),
        (["tekken.json", "tokenizer.json", "model-1.safetensors"], "auto", None),
        (["tekken.json", "model-1.safetensors", "consolidated.safetensors"], "auto", "tekken.json"),
        (["tekken.json", "consolidated-00001.safetensors"], "hf", None),
        (["tekken.json", "model-1.safetensors"], "mistral", "tekken.json"),
        (["tokenizer.json", "tokenizer.model.v3", "consolidated.safetensors"], "auto", "tokenizer.model.v3"),
        (["tokenizer.json", "tokenizer.model", "consolidated.safetensors"], "auto", None),
        (["tokenizer.json"], "mistral", None),
    ],
)
def test_whose_file_is_read_is_what_the_engine_reads(
    tmp_path: Path, files: list[str], mode: Any, own: str | None
) -> None:
    for file in files:
        (tmp_path / file).touch()
    assert own_tokenizer(tmp_path, mode) == (tmp_path / own if own else None)


def test_without_the_library_only_engines_can_tell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "multipick_epp.tokens.mistral", raising=False)
    monkeypatch.setitem(sys.modules, "mistral_common.protocol.instruct.request", None)
    with pytest.raises(OnlyEngines, match="not installed"):
        Tokenizer.load(folder)


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("turns", [1, 40])
async def test_a_chat_of_any_length_has_the_same_ids_on_the_event_loop(tokenizer: Tokenizer, turns: int) -> None:
    messages: list[ChatMessage] = [U, {"role": "assistant", "content": "yes"}] * turns
    chat = Chat([*messages, U])
    found = await tokenizer.encode(chat)
    assert not isinstance(found, Untokenised)
    assert list(found) == ids(tokenizer, chat)


@pytest.mark.parametrize("parts", [False, True])
def test_the_values_in_the_results_of_tools_are_bounded_together(tokenizer: Tokenizer, parts: bool) -> None:
    def answered(times: int) -> Any:
        many = json.dumps([{}] * (MAX_VALUES // 6))
        content: Any = [{"type": "text", "text": many}] if parts else many
        result = {"role": "tool", "tool_call_id": CALL["id"], "content": content}
        called = {"role": "assistant", "tool_calls": [CALL]}
        prompt = parse("/v1/chat/completions", {}, json.dumps({"messages": [U, *[called, result] * times]}).encode())
        assert isinstance(prompt, Prompt)
        return tokenizer.encode_now(prompt.source)

    assert not isinstance(answered(2), Untokenised)
    assert answered(4) == Untokenised("too many values")
