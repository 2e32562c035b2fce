"""Every test here runs on each `State`; those of Redis share one real Valkey a test session, each with its own pool."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import State
from multipick_epp.state.redis import RedisState, calls, loads, parse_url
from multipick_epp.types import ReplicaId
from multipick_sim.local.valkey import Valkey, valkey

Replica = Callable[[], Awaitable[State]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Valkey]:
    async with valkey() as running:
        yield running


@pytest.fixture
def pool() -> str:
    return uuid.uuid4().hex


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine breaks no link: what is decided without the store is tested elsewhere."""
    monkeypatch.setattr(loads, "STALL_S", 10.0)


@pytest.fixture(autouse=True)
def epochs_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests can name them, in every state."""
    monkeypatch.setattr(calls, "now_ms", lambda: 0)


@pytest_asyncio.fixture
async def replica(server: Valkey, pool: str) -> AsyncIterator[Replica]:
    """Starts further replicas of the pool's `RedisState`."""
    names = itertools.count()
    async with AsyncExitStack() as stack:

        async def start() -> State:
            state = RedisState(parse_url(server.url), pool, ReplicaId(f"replica-{next(names)}"))
            stack.push_async_callback(state.close)
            await state.start()
            assert state.degraded is None
            return state

        yield start


@pytest_asyncio.fixture(params=["memory", "redis", "redis alone"])
async def state(
    request: pytest.FixtureRequest, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[State]:
    """The last knows that there is no other replica, and charges by its own view; the one before asks the store, for
    a second at least.
    """
    if request.param == "redis":
        yield await replica()
        return
    if request.param == "redis alone":
        monkeypatch.setattr(loads, "RENEW_S", 0.02)
        lone = await replica()
        assert isinstance(lone, RedisState)
        async with asyncio.timeout(60):
            while not lone.alone:
                await asyncio.sleep(0.002)
        yield lone
        return
    memory = MemoryState()
    await memory.start()
    yield memory
    await memory.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """What is written comes to the mirror a little later."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.002)

    return wait


@pytest.fixture
def shared() -> dict[str, State]:
    """Lives as long as a test, over all the examples that are tried in it."""
    return {}
