"""Whose token ids count: the tokenizer's here, until most engines make others."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from multipick_epp.config import Config, Limits, Pool
from multipick_epp.decision.encoders import Encoders
from multipick_epp.engines import EngineClient
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.registry import Registry
from multipick_epp.requests.prompt import Chat, Text
from multipick_epp.tokens import ALL_PARTS, Part, Untokenised, Verdict
from multipick_epp.tokens.parts import with_all_of_it
from multipick_epp.types import Endpoint

MODEL = Path(__file__).parents[2] / "fixtures" / "tiny-model"
PATIENT = Limits(decision_s=20)  # whatever else this machine does
GONE = [Endpoint("10.0.0.8:1"), Endpoint("10.0.0.9:1")]


@pytest.fixture
async def engine() -> AsyncIterator[Endpoint]:
    """Tokenises every prompt as 7."""

    async def tokenize(_: web.Request) -> web.Response:
        return web.json_response({"tokens": [7]})

    app = web.Application()
    app.router.add_post("/tokenize", tokenize)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Endpoint(f"127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@pytest.fixture
def registry(engine: Endpoint) -> Registry:
    registry = Registry()
    registry.set([PodEndpoint(engine), *map(PodEndpoint, GONE)])
    registry.mark(engine, True)
    return registry


@pytest.fixture
async def encoders(registry: Registry, engines: EngineClient) -> AsyncIterator[Encoders]:
    encoders = Encoders(Config(Pool("p", ("m",), tokenizer=str(MODEL)), limits=PATIENT), registry, engines)
    await encoders.start()
    yield encoders
    await encoders.close()


async def ids(encoders: Encoders) -> list[int]:
    found = await encoders.encode(Text("some words"))
    assert not isinstance(found, Untokenised)
    return list(found)


async def test_the_tokenizer_is_trusted_while_no_engine_was_compared(encoders: Encoders) -> None:
    assert encoders.local
    assert await ids(encoders) != [7]


async def test_what_cannot_be_written_here_is_asked_of_engines_until_they_were_compared(
    tmp_path: Path, registry: Registry, engines: EngineClient, engine: Endpoint
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((MODEL / "tokenizer.json").read_bytes())  # and no chat template
    encoders = Encoders(Config(Pool("p", ("m",), tokenizer=str(tmp_path)), limits=PATIENT), registry, engines)
    await encoders.start()
    chat = Chat([{"role": "user", "content": "hi"}])
    found = await encoders.encode(chat)
    assert not isinstance(found, Untokenised)
    assert list(found) == [7]
    assert await ids(encoders) != [7]
    encoders.learn({engine: Verdict(None, "engine is slow")})
    assert not isinstance(await encoders.encode(chat), Untokenised)
    encoders.learn(verdicts(1, []))
    assert isinstance(await encoders.encode(chat), Untokenised), "engines can't either"
    await encoders.close()


def verdicts(alike: int, others: Sequence[Endpoint], differing: frozenset[Part] = ALL_PARTS) -> dict[Endpoint, Verdict]:
    agree = {Endpoint(f"10.0.1.{number}:1"): Verdict(True, "") for number in range(alike)}
    return agree | {endpoint: Verdict(False, "", differing) for endpoint in others}


async def test_where_most_engines_make_other_ids_one_of_them_is_asked(encoders: Encoders, engine: Endpoint) -> None:
    encoders.learn(verdicts(1, [engine, GONE[0]]))
    assert not encoders.local
    assert await ids(encoders) == [7]


async def test_only_what_differs_is_asked_of_engines(encoders: Encoders, engine: Endpoint) -> None:
    encoders.learn(verdicts(0, [engine], with_all_of_it(Part.CHAT)))
    assert encoders.local
    assert encoders.paths[Part.TEXT] in ("fastokens", "tokenizers")
    assert encoders.paths[Part.CHAT] == "engine"
    assert await ids(encoders) != [7]
    assert list(await encoders.encode(Chat([{"role": "user", "content": "hi"}]))) == [7]  # type: ignore[arg-type]


async def test_parts_are_counted_each_by_itself(encoders: Encoders, engine: Endpoint) -> None:
    tools = verdicts(1, [engine, GONE[0]], frozenset({Part.TOOLS}))
    encoders.learn(tools | {GONE[1]: Verdict(False, "", ALL_PARTS)})
    assert [part for part, path in encoders.paths.items() if path == "engine"] == [Part.TOOLS, Part.TEMPLATE]


async def test_an_engine_that_was_away_has_no_vote(encoders: Encoders, engine: Endpoint) -> None:
    encoders.learn({engine: Verdict(False, "", ALL_PARTS), **dict.fromkeys(GONE, Verdict(None, "engine is slow"))})
    assert await ids(encoders) == [7]


@pytest.mark.parametrize(("alike", "others"), [(1, 1), (2, 1)])
async def test_engines_that_differ_from_the_rest_change_nothing(encoders: Encoders, alike: int, others: int) -> None:
    encoders.learn(verdicts(alike, GONE[:others]))
    assert encoders.local
    assert await ids(encoders) != [7]


async def test_options_of_the_engines_command_line_are_taken_from_the_pool(
    tmp_path: Path, registry: Registry, engines: EngineClient
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ tools is none }} {{ word }} {{ messages[0].content is string }}")
    pool = Pool(
        "p",
        tokenizer=str(MODEL),
        chat_template=str(template),
        chat_template_content_format="openai",
        default_chat_template_kwargs={"word": "given"},
        exclude_tools_when_tool_choice_none=True,
    )
    encoders = Encoders(Config(pool), registry, engines)
    await encoders.start()
    found = await encoders.encode(Chat([{"role": "user", "content": "hi"}], tools=[{"a": 1}], tool_choice_none=True))
    wanted = await encoders.encode(Text("True given False", add_special_tokens=False))
    assert found == wanted
    await encoders.close()


async def test_a_model_whose_tokenizer_only_engines_have_is_read_by_engines(
    tmp_path: Path, engine: Endpoint, registry: Registry, engines: EngineClient
) -> None:
    (tmp_path / "tokenizer.model.v3").touch()
    patient = Limits(decision_s=20)
    encoders = Encoders(Config(Pool("p", tokenizer=str(tmp_path)), limits=patient), registry, engines)
    await encoders.start()
    assert not encoders.local
    assert await ids(encoders) == [7]
    assert (await encoders.compare(engine, "m")).alike is True
    await encoders.close()


async def test_options_that_are_unknown_here_leave_all_prompts_to_engines(
    registry: Registry, engines: EngineClient
) -> None:
    pool = Pool("p", tokenizer=str(MODEL), unread_options=("--hf-overrides",))
    encoders = Encoders(Config(pool, limits=Limits(decision_s=20)), registry, engines)
    await encoders.start()
    assert not encoders.local
    assert await ids(encoders) == [7]
    await encoders.close()


async def test_a_template_may_be_given_itself_in_place_of_its_file(registry: Registry, engines: EngineClient) -> None:
    pool = Pool("p", tokenizer=str(MODEL), chat_template="{% for m in messages %}<a/b>{{ m.content }}{% endfor %}")
    encoders = Encoders(Config(pool), registry, engines)
    await encoders.start()
    found = await encoders.encode(Chat([{"role": "user", "content": "hi"}]))
    assert found == await encoders.encode(Text("<a/b>hi", add_special_tokens=False))
    await encoders.close()


async def test_a_template_file_that_is_gone_is_an_error(registry: Registry, engines: EngineClient) -> None:
    pool = Pool("p", tokenizer=str(MODEL), chat_template="/nowhere/t.jinja")
    with pytest.raises(OSError, match="nowhere"):
        await Encoders(Config(pool), registry, engines).start()


async def test_trust_comes_back(encoders: Encoders, engine: Endpoint) -> None:
    mine = await ids(encoders)
    encoders.learn(verdicts(0, [engine]))
    assert await ids(encoders) == [7]
    encoders.learn(verdicts(1, []))
    assert await ids(encoders) == mine


async def test_of_the_ready_engines_one_that_differs_is_asked(
    encoders: Encoders, engine: Endpoint, registry: Registry
) -> None:
    registry.mark(GONE[0], True)
    encoders.learn(verdicts(0, [engine]))
    for _ in range(20):
        assert await ids(encoders) == [7]


async def test_chats_without_a_template_are_asked_of_engines(
    tmp_path: Path, engine: Endpoint, registry: Registry, engines: EngineClient
) -> None:
    """A tokenizer_config.json that is gone, and the template with it, must not leave chats unread."""
    (tmp_path / "tokenizer.json").write_bytes((MODEL / "tokenizer.json").read_bytes())
    encoders = Encoders(Config(Pool("p", ("m",), tokenizer=str(tmp_path))), registry, engines)
    await encoders.start()
    chat = Chat([{"role": "user", "content": "hi"}])
    assert list(await encoders.encode(chat)) == [7]  # type: ignore[arg-type]
    verdict = await encoders.compare(engine, "m")
    assert "a chat has 1 tokens in the engine and can't be tokenised here: no chat template" in verdict.words
    assert Part.CHAT in verdict.differing
    encoders.learn({engine: verdict})
    assert list(await encoders.encode(chat)) == [7]  # type: ignore[arg-type]
    await encoders.close()


async def test_an_engine_is_compared_by_itself(encoders: Encoders, engine: Endpoint) -> None:
    verdict = await encoders.compare(engine, "m")
    assert verdict.alike is False
    assert (await encoders.compare(Endpoint("127.0.0.1:1"), "m")).alike is None
