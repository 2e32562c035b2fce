"""Whose token ids count: the tokenizer's here, until most engines make others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from multipick_epp.config import Config, Pool
from multipick_epp.decision.encoders import Encoders
from multipick_epp.engines import EngineClient
from multipick_epp.pods.registry import PodEndpoint, Registry
from multipick_epp.requests.prompt import Text
from multipick_epp.tokens import Untokenised
from multipick_epp.types import Endpoint

MODEL = Path(__file__).parents[2] / "fixtures" / "tiny-model"
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
    encoders = Encoders(Config(Pool("p", ("m",), tokenizer=str(MODEL))), registry, engines)
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


async def test_where_most_engines_make_other_ids_one_of_them_is_asked(encoders: Encoders, engine: Endpoint) -> None:
    encoders.learn(1, [engine, GONE[0]])
    assert not encoders.local
    assert await ids(encoders) == [7]


@pytest.mark.parametrize(("alike", "others"), [(1, 1), (2, 1)])
async def test_engines_that_differ_from_the_rest_change_nothing(encoders: Encoders, alike: int, others: int) -> None:
    encoders.learn(alike, GONE[:others])
    assert encoders.local
    assert await ids(encoders) != [7]


async def test_trust_comes_back(encoders: Encoders, engine: Endpoint) -> None:
    mine = await ids(encoders)
    encoders.learn(0, [engine])
    assert await ids(encoders) == [7]
    encoders.learn(1, [])
    assert await ids(encoders) == mine


async def test_of_the_ready_engines_one_that_differs_is_asked(
    encoders: Encoders, engine: Endpoint, registry: Registry
) -> None:
    registry.mark(GONE[0], True)
    encoders.learn(0, [engine])
    for _ in range(20):
        assert await ids(encoders) == [7]


async def test_an_engine_is_compared_by_itself(encoders: Encoders, engine: Endpoint) -> None:
    verdict = await encoders.compare(engine, "m")
    assert verdict.alike is False
    assert (await encoders.compare(Endpoint("127.0.0.1:1"), "m")).alike is None
