"""Where the engine tokenises, its answer counts; whatever else it does, the request goes on without ids."""

import asyncio
import json
import socket
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multipick_epp.engines import EngineClient
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Api, Chat, Prompt, Sent, Text, TokenIds, TokenSource
from multipick_epp.tokens import (
    ALL_PARTS,
    EngineSettings,
    Part,
    RemoteTokenizer,
    Tokenizer,
    Untokenised,
    Verdict,
    compare,
)
from multipick_epp.tokens.parts import CHATS
from multipick_epp.tokens.verify import PROBES
from multipick_epp.types import Endpoint

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Engine:
    """A server with the `/tokenize` that a test gives it."""

    def __init__(self) -> None:
        self.address: Endpoint | None = None
        self.open = False  # its render paths are
        self.status = 200
        self.rendered: list[tuple[str, bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer = self.count

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        return await self.answer(request)

    async def render(self, request: web.Request) -> web.Response:
        self.rendered.append((request.path, await request.read()))
        if not self.open:
            return web.Response(status=403)
        return web.json_response({"request_id": "r", "token_ids": [4, 5], "model": "m"}, status=self.status)

    async def count(self, request: web.Request) -> web.Response:
        return web.json_response({"count": 3, "max_model_len": 100, "tokens": [1, 2, 3], "token_strs": None})


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    app = web.Application(client_max_size=10**9)
    app.router.add_post("/tokenize", engine.handle)
    app.router.add_post("/v1/{api:.*}/render", engine.render)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.address = Endpoint(f"127.0.0.1:{runner.addresses[0][1]}")
    yield engine
    await runner.cleanup()


def remote(engine: Engine, engines: EngineClient, deadline_s: float = 20) -> RemoteTokenizer:
    return RemoteTokenizer(engines, lambda: engine.address, "tiny", deadline_s)


U: Any = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (Text("a"), {"prompt": "a", "add_special_tokens": True}),
        (Text("a", False), {"prompt": "a", "add_special_tokens": False}),
        (
            Chat([U], add_generation_prompt=False, continue_final_message=True, add_special_tokens=True),
            {"add_generation_prompt": False, "continue_final_message": True, "add_special_tokens": True},
        ),
        (Chat([U], tools=[{"a": 1}]), {"tools": [{"a": 1}]}),
        (Chat([U], template_kwargs={"x": 1}), {"chat_template_kwargs": {"x": 1}}),
        (Chat([U], documents=[{"text": "d"}]), {"chat_template_kwargs": {"documents": [{"text": "d"}]}}),
        (
            Chat([U], reasoning_effort="low"),
            {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}},
        ),
        (
            Chat([U], thinking_off=True, template_kwargs={"enable_thinking": True}),
            {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "none"}},
        ),
    ],
)
async def test_the_engine_is_told_all_that_changes_the_ids(
    engine: Engine, engines: EngineClient, source: TokenSource, asked: dict[str, Any]
) -> None:
    assert await remote(engine, engines).encode(source) == array("I", [1, 2, 3])
    assert engine.asked[0].items() >= {"model": "tiny", **asked}.items()


async def test_ids_of_the_request_need_no_engine(engine: Engine, engines: EngineClient) -> None:
    assert await remote(engine, engines).encode(TokenIds([7])) == [7]
    assert engine.asked == []


@pytest.mark.parametrize("source", [Chat([U], multimodal=True), Chat([U], inline_system=True)])
async def test_what_the_engine_could_not_be_told_is_not_asked(
    engine: Engine, engines: EngineClient, source: Chat
) -> None:
    assert isinstance(await remote(engine, engines).encode(source), Untokenised)
    assert engine.asked == []


@pytest.mark.parametrize("name", ["chat_template", "messages", "conversation"])
async def test_what_is_no_variable_of_a_template_is_not_given_to_tokenize(
    engine: Engine, engines: EngineClient, name: str
) -> None:
    chat = Chat([U], template_kwargs={name: "x"})
    assert await remote(engine, engines).encode(chat) == Untokenised("not a template variable")
    assert engine.asked == []


@pytest.mark.parametrize("is_open", [True, False])
async def test_what_is_nested_too_deeply_to_be_sent_is_not_asked(
    engine: Engine, engines: EngineClient, is_open: bool
) -> None:
    engine.open = is_open
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    sent = None if is_open else Sent(Api.CHAT, b"{}")  # the client's own goes to a render path as it is
    found = await remote(engine, engines).encode(Chat([U], template_kwargs=nested, sent=sent))
    assert found == Untokenised("nested too deeply")
    assert engine.asked == []


async def test_without_an_engine_there_are_no_ids(engine: Engine, engines: EngineClient) -> None:
    engine.address = None
    assert await remote(engine, engines).encode(Text("a")) == Untokenised("no engine to ask")


async def test_an_engine_that_is_gone_costs_only_the_ids(engine: Engine, engines: EngineClient) -> None:
    with socket.socket() as deaf:  # bound, but nobody listens
        deaf.bind(("127.0.0.1", 0))
        engine.address = Endpoint(f"127.0.0.1:{deaf.getsockname()[1]}")
        assert await remote(engine, engines).encode(Text("a")) == Untokenised("engine can't be reached")


async def test_a_slow_engine_is_not_waited_for(engine: Engine, engines: EngineClient) -> None:
    hold = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        await hold.wait()
        return web.Response()

    engine.answer = never
    assert await remote(engine, engines, deadline_s=0.05).encode(Text("a")) == Untokenised("engine is slow")
    hold.set()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"{}", "refused by the engine"),
        (500, b"", "refused by the engine"),
        (200, b"", "unknown answer of the engine"),
        (200, b"<html>", "unknown answer of the engine"),
        (200, b'{"tokens": ["a"]}', "unknown answer of the engine"),
        (200, b'{"count": 3}', "unknown answer of the engine"),
        (200, b'{"tokens": ' + b"[" * 100_000, "unknown answer of the engine"),
    ],
)
async def test_an_answer_that_is_none_gives_no_ids(
    engine: Engine, engines: EngineClient, status: int, body: bytes, reason: str
) -> None:
    async def say(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    engine.answer = say
    assert await remote(engine, engines).encode(Text("a")) == Untokenised(reason)


async def test_an_endless_answer_is_cut_off(engine: Engine, engines: EngineClient) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 100_000)

    engine.answer = endless
    assert await remote(engine, engines).encode(Text("a")) == Untokenised("too long")


def answering_as(tokenizer: Tokenizer) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        prompt = parse(path, {}, json.dumps(body).encode())
        assert isinstance(prompt, Prompt)
        ids = tokenizer.encode_now(prompt.source)
        if isinstance(ids, Untokenised):
            return web.Response(status=400)
        return web.json_response({"tokens": list(ids)})

    return answer


async def test_an_engine_with_the_same_tokenizer_does_not_differ(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer
) -> None:
    engine.answer = answering_as(tokenizer)
    assert await compare(tokenizer, remote(engine, engines)) == Verdict(True, f"{len(PROBES)} probes agree")
    assert len(engine.asked) == len(PROBES)


async def test_an_engine_with_another_template_differs_in_chats(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer, tiny_model: Path
) -> None:
    other = Tokenizer.load(tiny_model, chat_template="{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    engine.answer = answering_as(other)
    found = await compare(tokenizer, remote(engine, engines))
    assert found.alike is False
    assert found.words.startswith("a chat has ")
    assert "differ from token 0 on" in found.words
    assert "more" in found.words
    assert found.differing == CHATS
    other.close()


async def test_of_an_engine_that_refuses_the_probes_nothing_is_known(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=400)

    engine.answer = refuse
    assert (await compare(tokenizer, remote(engine, engines))).alike is None
    assert len(engine.asked) == len(PROBES)


async def test_an_engine_that_refuses_chats_is_compared_by_texts(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer
) -> None:
    answer = answering_as(tokenizer)

    async def texts_only(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400) if "messages" in await request.json() else await answer(request)

    engine.answer = texts_only
    assert await compare(tokenizer, remote(engine, engines)) == Verdict(True, "5 probes agree")


async def test_a_probe_that_only_the_engine_can_tokenise_is_a_difference(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer, tmp_path: Path, tiny_model: Path
) -> None:
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    config = json.loads((tiny_model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    bare = Tokenizer.load(tmp_path)
    engine.answer = answering_as(tokenizer)
    found = await compare(bare, remote(engine, engines))
    assert found.alike is False
    assert "can't be tokenised here: no chat template" in found.words
    assert Part.CHAT in found.differing
    assert Part.TEXT not in found.differing
    assert await compare(bare, remote(engine, engines), CHATS) == Verdict(True, "5 probes agree")
    bare.close()


async def test_a_text_that_differs_makes_all_prompts_differ(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer
) -> None:
    answer = answering_as(tokenizer)

    async def other_spaces(request: web.Request) -> web.StreamResponse:
        spaces = (await request.json()).get("prompt") == "  leading"
        return web.json_response({"tokens": [1, 2, 3, 4]}) if spaces else await answer(request)

    engine.answer = other_spaces
    found = await compare(tokenizer, remote(engine, engines))
    assert found.words.startswith("a text with leading spaces has ")
    assert found.differing == ALL_PARTS


async def test_an_engine_whose_tools_are_written_in_another_way_differs_in_those_alone(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer
) -> None:
    answer = answering_as(tokenizer)

    async def one_more(request: web.Request) -> web.StreamResponse:
        if "tools" in await request.json():
            return web.json_response({"tokens": [1]})
        return await answer(request)

    engine.answer = one_more
    assert (await compare(tokenizer, remote(engine, engines))).differing == {Part.TOOLS}


async def test_where_render_paths_are_open_the_engine_gets_the_clients_own_request(
    engine: Engine, engines: EngineClient
) -> None:
    engine.open = True
    body = b'{"model": "alias", "messages": [{"role": "user", "content": "hi"}], "seed":  7}'
    prompt = parse("/v1/messages", {}, body)
    assert isinstance(prompt, Prompt)
    assert await remote(engine, engines).encode(prompt.source) == array("I", [4, 5])
    assert engine.rendered == [("/v1/messages/render", body)]
    assert engine.asked == []


async def test_closed_render_paths_are_tried_once_in_a_while(engine: Engine, engines: EngineClient) -> None:
    tokenizer = remote(engine, engines)
    for _ in range(3):
        assert await tokenizer.encode(Chat([U])) == array("I", [1, 2, 3])
    assert len(engine.rendered) == 1
    assert len(engine.asked) == 3


async def test_a_refusal_by_an_open_render_path_is_the_engines_answer(engine: Engine, engines: EngineClient) -> None:
    engine.open, engine.status = True, 400
    assert await remote(engine, engines).encode(Chat([U])) == Untokenised("refused by the engine")
    assert engine.asked == []


async def test_harmony_is_never_believed_of_tokenize(engine: Engine, engines: EngineClient) -> None:
    async def template(request: web.Request) -> web.Response:
        return web.json_response({"tokens": [200006, 17360, 200008, 3575]})

    engine.answer = template
    assert await remote(engine, engines).encode(Chat([U])) == Untokenised("only the engine writes these chats")
    assert await remote(engine, engines).encode(Text("a")) == array("I", [200006, 17360, 200008, 3575])


async def test_parts_of_responses_are_asked_as_parts_of_a_chat(engine: Engine, engines: EngineClient) -> None:
    parts: Any = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}, "c"]
    await remote(engine, engines).encode(Chat([{"role": "user", "content": parts}]))
    [message] = engine.asked[0]["messages"]
    assert message["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]


async def test_a_template_in_a_request_is_asked_where_engines_take_one(engine: Engine, engines: EngineClient) -> None:
    chat = Chat([U], chat_template="x")
    assert await remote(engine, engines).encode(chat) == Untokenised("template in the request")
    assert engine.asked == []
    assert engine.rendered == []
    settings = EngineSettings(trust_request_chat_template=True)
    await RemoteTokenizer(engines, lambda: engine.address, "tiny", 20, settings).encode(chat)
    assert engine.asked[0]["chat_template"] == "x"


async def test_tools_that_the_engine_hides_are_not_asked_about(engine: Engine, engines: EngineClient) -> None:
    settings = EngineSettings(exclude_tools_when_tool_choice_none=True)
    asks = RemoteTokenizer(engines, lambda: engine.address, "tiny", 20, settings)
    await asks.encode(Chat([U], tools=[{"a": 1}], tool_choice_none=True))
    await asks.encode(Chat([U], tools=[{"a": 1}]))
    assert ["tools" in asked for asked in engine.asked] == [False, True]


async def test_an_engine_that_leaves_after_some_probes_is_not_taken_to_agree(
    engine: Engine, engines: EngineClient, tokenizer: Tokenizer
) -> None:
    answer = answering_as(tokenizer)

    async def twice(request: web.Request) -> web.StreamResponse:
        if len(engine.asked) < 3:
            return await answer(request)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    engine.answer = twice
    assert await compare(tokenizer, remote(engine, engines)) == Verdict(None, "engine can't be reached")
