"""A real server for each test, to be hurt, and replicas of one pool on it."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio
from multipick_epp.state.redis import RedisState, calls, loads, parse_url
from multipick_epp.state.redis.connection import Connection
from multipick_epp.state.redis.server import open_connection
from multipick_epp.types import ReplicaId
from multipick_sim.local.valkey import Valkey, valkey

POOL = "pool"
STALL_S = loads.STALL_S


@pytest.fixture(autouse=True)
def epochs_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests can name them."""
    monkeypatch.setattr(calls, "now_ms", lambda: 0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine breaks no link: what is decided without the store then is for tests that are `hasty`."""
    monkeypatch.setattr(loads, "STALL_S", 10.0)


@pytest.fixture
def hasty(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is slow is waited for no longer than by a picker."""
    monkeypatch.setattr(loads, "STALL_S", STALL_S)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Valkey]:
    async with valkey() as running:
        yield running


@pytest_asyncio.fixture
async def replica() -> AsyncIterator[Callable[..., Awaitable[RedisState]]]:
    """Starts a replica at a URL."""
    names = itertools.count()
    async with AsyncExitStack() as stack:

        async def start(
            url: str, pool: str = POOL, prepare: Callable[[RedisState], None] = lambda state: None, **options: Any
        ) -> RedisState:
            state = RedisState(parse_url(url), pool, ReplicaId(f"replica-{next(names)}"), **options)
            stack.push_async_callback(state.close)
            prepare(state)
            await state.start()
            return state

        yield start


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Callable[[str], Awaitable[Connection]]]:
    """Opens a connection for a test's own commands."""
    opened: list[Connection] = []

    async def connect(url: str) -> Connection:
        opened.append(await open_connection(parse_url(url), "", 10.0))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    async def wait(condition: Callable[[], object], within_s: float = 120.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


class Proxy:
    """Between a client and a server: can hold what the server says back, or delay it. Its own side may speak TLS."""

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._upstream_port = upstream_port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        there = asyncio.create_task(self._pump(reader, upstream_writer, held=False))
        try:
            await self._pump(upstream_reader, writer, held=True)
        finally:
            there.cancel()
            writer.close()
            upstream_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if held:
                    await asyncio.sleep(self.delay_s)
                    await self.flowing.wait()
                writer.write(data)
            writer.write_eof() if writer.can_write_eof() else writer.close()


@asynccontextmanager
async def proxied(upstream_port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream_port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Callable[..., Awaitable[Proxy]]]:
    async with AsyncExitStack() as stack:

        async def start(upstream_port: int, tls: ssl.SSLContext | None = None) -> Proxy:
            return await stack.enter_async_context(proxied(upstream_port, tls))

        yield start
