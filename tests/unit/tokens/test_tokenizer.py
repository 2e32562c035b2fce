"""Prompts become ids without holding the event loop, without doing work twice, and within bounds."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import pytest
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Chat, Prompt, Text, TokenIds, TokenSource
from multipick_epp.tokens import EngineSettings, Tokenizer, Untokenised, chat_text
from multipick_epp.tokens import tokenizer as tokenizer_module
from multipick_epp.tokens.files import read_model
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import Ids, Segment, Segmenter

from .backends import byte_level, metaspace, with_bos

LONG = " ".join(f"line {index}: the quick brown fox" for index in range(2_000))  # 60 kB: too much to do at once
MANY = [{"role": "user", "content": f"message {index}"} for index in range(300)]  # too many to render at once


def chat(*contents: str, **fields: Any) -> Chat:
    return Chat([{"role": "user", "content": content} for content in contents], **fields)


def ids_of(outcome: Sequence[int] | Untokenised) -> list[int]:
    assert not isinstance(outcome, Untokenised)
    return list(outcome)


class Slow:
    """Stands in the way of a tokenizer's threads until `go` is set, and counts what they do."""

    def __init__(self, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = Event()
        self.calls: list[list[Segment]] = []
        self._tokenise = Segmenter.tokenise
        monkeypatch.setattr(Segmenter, "tokenise", lambda segmenter, segments: self._slow(segmenter, segments))

    def _slow(self, segmenter: Segmenter, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        self.calls.append([*segments])
        assert self.go.wait(30)
        return self._tokenise(segmenter, segments)


@pytest.fixture
def slow(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow(tokenizer, monkeypatch)
    yield slow
    slow.go.set()


@pytest.mark.parametrize(
    "source",
    [
        chat("hello"),
        chat(LONG),
        chat("hello", LONG, "hello", "x" * 3_000),
        Chat(MANY),  # type: ignore[arg-type]
        Text("plain <|im_end|> text"),
        Text(LONG * 5),
        Text(""),
    ],
    ids=["short", "long", "mixed", "many", "text", "long text", "empty"],
)
async def test_inline_and_in_threads_the_ids_are_the_same_cold_and_warm(
    tokenizer: Tokenizer, tiny_model: Path, source: TokenSource
) -> None:
    other = Tokenizer.load(tiny_model)
    expected = ids_of(other.encode_now(source))
    other.close()
    assert ids_of(await tokenizer.encode(source)) == expected
    assert ids_of(await tokenizer.encode(source)) == expected
    assert ids_of(tokenizer.encode_now(source)) == expected


async def test_token_ids_are_passed_on(tokenizer: Tokenizer) -> None:
    source = TokenIds([1, 2, 3])
    assert await tokenizer.encode(source) is source.ids
    assert tokenizer.encode_now(source) is source.ids


async def test_a_text_is_tokenised_once_for_all_that_wait_for_it(tokenizer: Tokenizer, slow: Slow) -> None:
    waiting = [asyncio.ensure_future(tokenizer.encode(chat(LONG, f"own {index} " * 200))) for index in range(20)]
    await asyncio.sleep(0)
    slow.go.set()
    results = [ids_of(outcome) for outcome in await asyncio.gather(*waiting)]
    asked = [segment for call in slow.calls for segment in call]
    assert len(asked) == len(set(asked))
    assert sum("line 1000:" in segment for segment in asked) == 1
    assert len({tuple(ids) for ids in results}) == 20


async def test_what_was_tokenised_is_kept(tokenizer: Tokenizer, slow: Slow) -> None:
    slow.go.set()
    first = ids_of(await tokenizer.encode(chat(LONG)))
    longer = ids_of(await tokenizer.encode(chat(LONG, "and one more")))
    assert first[:10_000] == longer[:10_000]
    assert slow.calls[1:] == [["user\nand one more"]]


async def test_a_text_that_grew_is_tokenised_only_where_it_grew(
    tokenizer: Tokenizer, slow: Slow, tiny_model: Path
) -> None:
    slow.go.set()
    backend = read_model(tiny_model).backend
    for text in (LONG, LONG + " and more", LONG + " and more" * 300):
        assert ids_of(await tokenizer.encode(Text(text))) == backend.encode(text).ids
    asked = [segment for call in slow.calls for segment in call]
    assert len(asked) == len(set(asked))
    assert sum(map(len, asked)) < len(LONG) + 5_000


async def test_a_request_that_leaves_takes_nothing_from_the_others(tokenizer: Tokenizer, slow: Slow) -> None:
    leaving = asyncio.ensure_future(tokenizer.encode(chat(LONG)))
    await asyncio.sleep(0)
    staying = asyncio.ensure_future(tokenizer.encode(chat(LONG)))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    slow.go.set()
    assert len(ids_of(await staying)) > 10_000
    assert len(slow.calls) == 1


async def test_work_begun_for_a_request_that_left_is_kept(tokenizer: Tokenizer, slow: Slow) -> None:
    leaving = asyncio.ensure_future(tokenizer.encode(chat(LONG)))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    slow.go.set()
    assert len(ids_of(await tokenizer.encode(chat(LONG)))) > 10_000
    assert len(slow.calls) == 1


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}
PLAIN = {"role": "user", "content": "word " * 4_000}


@pytest.mark.parametrize(
    ("at_once", "body"),
    [
        (True, {"messages": [PLAIN]}),
        (True, {"messages": [PLAIN], "tools": [TOOL]}),
        (False, {"messages": [PLAIN], "tools": [TOOL] * 2_000}),
        (False, {"messages": [PLAIN], "chat_template_kwargs": {"a": [0] * 5_000}}),
        (False, {"messages": [PLAIN], "documents": [{}] * 5_000}),
        (False, {"messages": [PLAIN, {"role": "assistant", "content": "", "tool_calls": [CALL] * 1_000}]}),
        (False, {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 5_000}]}),
    ],
    ids=["text", "a tool", "tools", "variables", "documents", "calls", "parts"],
)
async def test_a_chat_of_few_messages_and_many_values_is_written_in_a_thread(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, at_once: bool, body: dict[str, Any]
) -> None:
    render, threads = chat_text.ChatText.render, set[int]()

    def watched(texts: chat_text.ChatText, chat: Chat) -> str:
        threads.add(get_ident())
        return render(texts, chat)

    monkeypatch.setattr(chat_text.ChatText, "render", watched)
    prompt = parse("/v1/chat/completions", {}, json.dumps(body, separators=(",", ":")).encode())
    assert isinstance(prompt, Prompt)
    assert ids_of(await tokenizer.encode(prompt.source))
    assert (threads == {get_ident()}) is at_once


async def test_a_request_that_leaves_while_it_is_rendered_leaves_nothing_behind(tokenizer: Tokenizer) -> None:
    source = Chat(MANY)  # type: ignore[arg-type]
    for _ in range(20):
        leaving = asyncio.ensure_future(tokenizer.encode(source))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert ids_of(await tokenizer.encode(source))


async def test_a_text_that_can_not_be_tokenised_costs_only_the_request_that_has_it(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenise = Segmenter.tokenise

    def refusing(segmenter: Segmenter, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        if any("no text" in segment for segment in segments):
            raise NoText("not a text")
        return tokenise(segmenter, segments)

    monkeypatch.setattr(Segmenter, "tokenise", refusing)
    sources = [chat(LONG, "no text"), chat(LONG), chat(LONG, "other"), chat("no text", LONG)]
    refused, one, other, again = await asyncio.gather(*map(tokenizer.encode, sources))
    assert refused == again == Untokenised("not a text")
    assert ids_of(one) == ids_of(tokenizer.encode_now(chat(LONG)))
    assert ids_of(other) == ids_of(tokenizer.encode_now(chat(LONG, "other")))


async def test_beyond_what_may_wait_requests_are_told_at_once(
    tokenizer: Tokenizer, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = []
    for index in range(tokenizer_module.MAX_NEW_CHARS // 190_000):
        waiting.append(asyncio.ensure_future(tokenizer.encode(chat(f"{index}" + "x" * 189_000))))
        await asyncio.sleep(0)
    assert await tokenizer.encode(chat("y" * 189_000)) == Untokenised("tokenizer is busy")
    assert ids_of(tokenizer.encode_now(TokenIds([1])))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("source", [Text("x" * (tokenizer_module.MAX_CHARS + 1)), chat("x" * 8_000_001)])
async def test_a_text_beyond_the_bound_is_not_tokenised(tokenizer: Tokenizer, source: TokenSource) -> None:
    assert isinstance(await tokenizer.encode(source), Untokenised)
    assert tokenizer.encode_now(source) == Untokenised("too long")


@pytest.mark.parametrize("source", [chat("half \ud800 a character"), chat("\udfff" + LONG), Text("\ud800")])
async def test_a_text_that_is_no_unicode_is_untokenised(tokenizer: Tokenizer, source: TokenSource) -> None:
    assert await tokenizer.encode(source) == Untokenised("not a text")
    assert tokenizer.encode_now(source) == Untokenised("not a text")


async def test_a_half_character_in_the_arguments_of_a_tool_call_is_untokenised(tiny_model: Path) -> None:
    template = "{% for m in messages %}{{ m.tool_calls }}{{ m.content }}{% for c in m.tool_calls or [] %}"
    tokenizer = Tokenizer.load(
        tiny_model, chat_template=template + "{{ c.function.arguments.a }}{% endfor %}{% endfor %}"
    )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}
    body = {"messages": [{"role": "assistant", "content": "x", "tool_calls": [call]}]}
    prompt = parse("/v1/chat/completions", {}, json.dumps(body).encode())
    assert isinstance(prompt, Prompt)
    assert await tokenizer.encode(prompt.source) == Untokenised("not a text")
    tokenizer.close()


@pytest.mark.parametrize(
    "arguments", ["[" * 100_000, '{"a":' * 100_000, "9" * 5_000], ids=["lists", "objects", "digits"]
)
async def test_arguments_of_a_tool_call_that_python_refuses_are_untokenised(
    tokenizer: Tokenizer, arguments: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    source = Chat([{"role": "assistant", "content": "x", "tool_calls": [call]}])
    assert await tokenizer.encode(source) == Untokenised("arguments of a tool call")


async def test_after_closing_only_small_prompts_have_ids(tokenizer: Tokenizer) -> None:
    tokenizer.close()
    assert ids_of(await tokenizer.encode(chat("hello")))
    assert await tokenizer.encode(chat(LONG)) == Untokenised("closed")
    assert await tokenizer.encode(Chat(MANY)) == Untokenised("closed")  # type: ignore[arg-type]


async def test_closing_ends_what_waits(tokenizer: Tokenizer, slow: Slow) -> None:
    waiting = [asyncio.ensure_future(tokenizer.encode(chat(f"{index}{LONG}"))) for index in range(10)]
    await asyncio.sleep(0)
    tokenizer.close()
    slow.go.set()
    outcomes = await asyncio.gather(*waiting)
    assert outcomes.count(Untokenised("closed")) >= 10 - 2 - 1
    assert all(isinstance(outcome, Untokenised) or len(outcome) > 10_000 for outcome in outcomes)


def test_a_small_cache_costs_only_time(tiny_model: Path) -> None:
    small = Tokenizer.load(tiny_model, cache_bytes=2_000)
    large = Tokenizer.load(tiny_model)
    for source in (chat("a", "b", LONG), chat("a", "b", LONG, "c"), chat(LONG)):
        assert ids_of(small.encode_now(source)) == ids_of(large.encode_now(source))
    small.close()
    large.close()


def test_the_text_before_media_is_known_as_long_as_it_is_the_same_for_the_engine(tokenizer: Tokenizer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    before: Any = [{"role": "system", "content": "s"}, {"role": "user", "content": "first question"}]
    with_media: Any = {"role": "user", "content": [{"type": "text", "text": "look"}, image]}
    after: Any = {"role": "user", "content": "later"}
    known = ids_of(tokenizer.encode_now(Chat([*before, with_media, after], multimodal=True)))
    opening = ids_of(tokenizer.encode_now(Text("<|im_start|>user\n")))
    assert known == ids_of(tokenizer.encode_now(Chat(before, add_generation_prompt=False))) + opening


@pytest.mark.parametrize("source", [chat("x", chat_template="{{ messages }}")])
def test_a_template_of_the_request_is_never_rendered(tokenizer: Tokenizer, source: Chat) -> None:
    assert tokenizer.encode_now(source) == Untokenised("template in the request")


def folder(tmp_path: Path, backend: Any, **config: Any) -> Path:
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", **config}))
    return tmp_path


TEMPLATE = "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"


def test_special_tokens_stand_around_a_text_where_they_are_wanted(tmp_path: Path) -> None:
    backend = with_bos(byte_level())
    tokenizer = Tokenizer.load(folder(tmp_path, backend, chat_template=TEMPLATE))
    for text in ("the dog", "", "[INST]the dog", "</s> the<s>"):
        assert ids_of(tokenizer.encode_now(Text(text))) == backend.encode(text).ids
        assert ids_of(tokenizer.encode_now(Text(text, False))) == backend.encode(text, add_special_tokens=False).ids
    wrapped = ids_of(tokenizer.encode_now(chat("the dog", add_special_tokens=True)))
    assert wrapped == backend.encode("[INST]the dog[/INST]").ids
    tokenizer.close()


def test_a_tokenizer_that_puts_a_space_first_is_cut_all_the_same(tmp_path: Path) -> None:
    backend = metaspace("first")
    tokenizer = Tokenizer.load(folder(tmp_path, backend, chat_template=TEMPLATE))
    text = "[INST]the dog[/INST][INST]fox[/INST]"
    assert ids_of(tokenizer.encode_now(chat("the dog", "fox"))) == backend.encode(text, add_special_tokens=False).ids
    assert ids_of(tokenizer.encode_now(Text("fox [INST] fox", False))) == backend.encode("fox [INST] fox").ids
    tokenizer.close()


def test_a_tokenizer_that_chance_rules_is_not_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.load(folder(tmp_path, byte_level(dropout=0.9), chat_template=TEMPLATE))
    assert "tokenised whole" in caplog.text
    assert ids_of(tokenizer.encode_now(chat("the dog")))
    tokenizer.close()


def test_without_a_chat_template_texts_are_tokenised_and_chats_are_not(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder(tmp_path, byte_level()))
    assert ids_of(tokenizer.encode_now(Text("the dog")))
    assert tokenizer.encode_now(chat("the dog")) == Untokenised("no chat template")
    tokenizer.close()


def test_the_engines_own_template_can_be_given_by_text_and_by_name(tmp_path: Path) -> None:
    templates = [{"name": "default", "template": "default"}, {"name": "short", "template": "[INST]"}]
    path = folder(tmp_path, byte_level(), chat_template=templates)
    for given in ("short", "[INST]"):
        tokenizer = Tokenizer.load(path, settings=EngineSettings(chat_template=given))
        assert len(ids_of(tokenizer.encode_now(chat("the dog")))) == 1
        tokenizer.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RecursionError(), "nested too deeply"), (AttributeError("text"), "unexpected fields")],
)
async def test_no_error_of_what_writes_chats_leaves_the_tokenizer(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(chat_text, "conversation", fail)
    for source in (chat("a"), chat(*map(str, range(300)))):
        assert await tokenizer.encode(source) == tokenizer.encode_now(source) == Untokenised(reason)
