"""What an engine serves is known, and known anew when it changes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from aiohttp import web
from multipick_epp.engines import EngineClient
from multipick_epp.pods import models as models_module
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.models import ModelWatch
from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint


class Engine:
    def __init__(self) -> None:
        self.adapters: Sequence[str] = ()
        self.refuses = False
        self.asked = 0

    async def models(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.refuses:
            return web.Response(status=503)
        cards = [{"id": "m"}, *({"id": name, "parent": "m"} for name in self.adapters)]
        return web.json_response({"data": cards})


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def endpoint(engine: Engine) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.router.add_get("/v1/models", engine.models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Endpoint(f"127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@pytest.fixture
async def registry(endpoint: Endpoint) -> Registry:
    registry = Registry()
    registry.set([PodEndpoint(endpoint)])
    return registry


@pytest.fixture
async def watch(
    registry: Registry, engines: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ModelWatch]:
    monkeypatch.setattr(models_module, "FIRST_LOOK_S", 0.005)
    watch = ModelWatch(registry, engines, Supervisor())
    watch.start()
    yield watch
    await watch.close()


def adapters(registry: Registry, endpoint: Endpoint) -> frozenset[str] | None:
    state = registry.state(endpoint)
    assert state is not None
    return state.served.adapters if state.served else None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_adapters_that_come_and_go_are_followed(
    engine: Engine, registry: Registry, endpoint: Endpoint, watch: ModelWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "LOOK_S", 0.01)
    await until(lambda: adapters(registry, endpoint) == frozenset())
    engine.adapters = ["a", "b"]
    await until(lambda: adapters(registry, endpoint) == frozenset({"a", "b"}))
    engine.adapters = ["b"]
    await until(lambda: adapters(registry, endpoint) == frozenset({"b"}))


async def test_in_doubt_an_engine_is_asked_at_once(
    engine: Engine, registry: Registry, endpoint: Endpoint, watch: ModelWatch
) -> None:
    await until(lambda: adapters(registry, endpoint) == frozenset())
    engine.adapters = ["a"]
    watch.doubt(endpoint)
    watch.doubt(Endpoint("10.0.0.9:1"))
    await until(lambda: adapters(registry, endpoint) == frozenset({"a"}))


async def test_what_is_known_holds_while_the_engine_does_not_answer(
    engine: Engine, registry: Registry, endpoint: Endpoint, watch: ModelWatch
) -> None:
    engine.adapters = ["a"]
    await until(lambda: adapters(registry, endpoint) == frozenset({"a"}))
    engine.refuses, asked = True, engine.asked
    watch.doubt(endpoint)
    await until(lambda: engine.asked > asked)
    assert adapters(registry, endpoint) == frozenset({"a"})


async def test_another_incarnation_is_asked_soon(
    engine: Engine, registry: Registry, endpoint: Endpoint, watch: ModelWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "LOOK_S", 0.05)
    engine.adapters = ["a"]
    await until(lambda: adapters(registry, endpoint) == frozenset({"a"}))
    engine.refuses = True
    registry.set([PodEndpoint(endpoint, started_ms=7)])
    assert adapters(registry, endpoint) is None
    engine.adapters, engine.refuses = [], False
    await until(lambda: adapters(registry, endpoint) == frozenset())
