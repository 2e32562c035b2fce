"""A real Envoy between a client and upstreams that remember what they got, with a picker that does what a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.effects import Undecided
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.interfaces import Failure, Stage
from multipick_epp.extproc.pick import Ended, NoPick, Pick, PickRequest
from multipick_epp.extproc.tls import Certificate
from multipick_epp.extproc.transports import ExtProcServer, Transport, ext_proc_server
from multipick_epp.extproc.usage import Usage
from multipick_epp.types import Endpoint, ReservationId
from multipick_sim.local.bootstrap import Bootstrap, Style, render
from multipick_sim.local.envoy import Envoy, envoy


class Changes:
    """Wait for a condition on something that announces its changes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], object], within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await self._changed.wait()


class ScriptedPicker:
    """Remembers every call; picks by `decide`, which gives all requests the last endpoint unless told otherwise."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self.decide: Callable[[PickRequest], Awaitable[Pick | NoPick]] = self.choose_last
        self.requests: list[PickRequest] = []
        self.calls: list[tuple[str, ...]] = []
        self.abandoned = 0  # picks that were cancelled
        self.changes = Changes()

    async def choose_last(self, request: PickRequest) -> Pick | NoPick:
        return Pick((self.endpoints[-1],), self.reservation())

    def reservation(self) -> ReservationId:
        return ReservationId(f"r{len(self.requests)}")

    def named(self, kind: str) -> list[tuple[str, ...]]:
        return [call[1:] for call in self.calls if call[0] == kind]

    async def pick(self, request: PickRequest) -> Pick | NoPick:
        self.requests.append(request)
        self.changes.announce()
        try:
            return await self.decide(request)
        except asyncio.CancelledError:
            self.abandoned += 1
            self.changes.announce()
            raise

    def served(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        self._note("served", reservation, endpoint)

    def answered(self, reservation: ReservationId, status: int) -> None:
        self._note("answered", reservation, str(status))

    def first_byte(self, reservation: ReservationId) -> None:
        self._note("first_byte", reservation)

    def counted(self, reservation: ReservationId, usage: Usage) -> None:
        self._note("counted", reservation, str(usage.output))

    def release(self, reservation: ReservationId, ended: Ended) -> None:
        self._note("release", reservation)

    def _note(self, *call: str) -> None:
        self.calls.append(call)
        self.changes.announce()


class CountingObserver:
    """Streams open, failures seen."""

    def __init__(self) -> None:
        self.open = 0
        self.failures: list[Failure] = []
        self.missed: list[Undecided] = []
        self.stages: list[Stage] = []
        self.answered: list[str] = []
        self.refusals: list[str] = []  # connections
        self.changes = Changes()

    def opened(self) -> None:
        self.open += 1
        self.changes.announce()

    def closed(self) -> None:
        self.open -= 1
        self.changes.announce()

    def stage(self, stage: Stage, seconds: float) -> None:
        self.stages.append(stage)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def undecided(self, how: Undecided) -> None:
        self.missed.append(how)

    def answered_here(self, reason: str) -> None:
        self.answered.append(reason)

    def refused(self, why: str) -> None:
        self.refusals.append(why)
        self.changes.announce()


@dataclass(slots=True)
class Received:
    """A request as an upstream got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = field(default_factory=dict)


class Upstream:
    """An HTTP/1.1 server that writes exactly the bytes that `answer` says."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received, asyncio.StreamWriter], Awaitable[None]] = self.say_ok
        self.read_body = True
        self.upgrade: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
        self.endpoint = Endpoint("")

    async def say_ok(self, request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}')

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                start, _, fields = head.decode().partition("\r\n")
                method, path, _version = start.split(" ")
                request = Received(method, path, _fields(fields), b"")
                if self.read_body:
                    await _read_body(reader, request)
                self.received.append(request)
                if self.upgrade is not None and "upgrade" in request.headers:
                    await self.upgrade(reader, writer)
                    break
                await self.answer(request, writer)
                await writer.drain()
        writer.close()


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.split("\r\n") if line)
    return {name.lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, request: Received) -> None:
    if request.headers.get("transfer-encoding") != "chunked":
        request.body = await reader.readexactly(int(request.headers.get("content-length", 0)))
        return
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        request.trailers |= _fields(line.decode())
    request.body = b"".join(pieces)


@dataclass(slots=True)
class Gateway:
    """All that a test touches."""

    envoy: Envoy
    http: aiohttp.ClientSession  # against Envoy
    upstreams: list[Upstream]
    picker: ScriptedPicker
    observer: CountingObserver
    health: Health
    server: ExtProcServer
    ext_proc_port: int

    @property
    def received(self) -> list[Received]:
        return [request for upstream in self.upstreams for request in upstream.received]

    def answer_all(self, answer: Callable[[Received, asyncio.StreamWriter], Awaitable[None]]) -> None:
        for upstream in self.upstreams:
            upstream.answer = answer

    async def settled(self) -> None:
        """All streams are over, and every reservation was released exactly once."""
        await self.observer.changes.until(lambda: self.observer.open == 0)
        released = self.picker.named("release")
        assert len(released) == len(set(released))


class Listening(Protocol):
    """Starts an upstream."""

    async def __call__(self) -> Upstream: ...


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    async with AsyncExitStack() as stack:

        async def listen() -> Upstream:
            upstream = Upstream()
            server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=1 << 20)
            stack.callback(server.close)
            upstream.endpoint = Endpoint(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            return upstream

        yield listen


class StartGateway(Protocol):
    """`change` edits Envoy's bootstrap before it starts."""

    async def __call__(
        self,
        style: Style,
        *,
        change: Callable[[dict[str, Any]], None] | None = None,
        settings: StreamOptions | None = None,
        retries: int = 0,
        dead_endpoints: int = 0,
        certificate: Certificate | None = None,
    ) -> Gateway: ...


@pytest.fixture
def picker() -> ScriptedPicker:
    return ScriptedPicker([Endpoint("127.0.0.1:1")])


@pytest.fixture
def observer() -> CountingObserver:
    return CountingObserver()


@pytest.fixture(params=["h2", "grpc"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """All that a gateway sees is the same over both."""
    kind: Transport = request.param
    return kind


@pytest.fixture
async def start_gateway(listening: Listening, tmp_path: Path, transport: Transport) -> AsyncIterator[StartGateway]:
    async with AsyncExitStack() as stack:

        async def start(
            style: Style,
            *,
            change: Callable[[dict[str, Any]], None] | None = None,
            settings: StreamOptions | None = None,
            retries: int = 0,
            dead_endpoints: int = 0,
            certificate: Certificate | None = None,
        ) -> Gateway:
            upstreams = [await listening() for _ in range(2)]
            dead = [Endpoint(f"127.0.0.1:{port}") for port in range(1, 1 + dead_endpoints)]  # ports nobody listens on
            endpoints = dead + [upstream.endpoint for upstream in upstreams]
            picker, observer, health = ScriptedPicker(endpoints), CountingObserver(), Health()
            health.ready(True)
            server = ext_proc_server(transport, picker, health, observer, settings or StreamOptions(), certificate)
            port = await server.start("127.0.0.1", 0)
            stack.push_async_callback(server.drain, 0)
            config = render(Bootstrap(endpoints, [port], style=style, retries=retries))
            if change is not None:
                change(config)
            running = await stack.enter_async_context(envoy(config, log=tmp_path / "envoy.log"))
            http = await stack.enter_async_context(aiohttp.ClientSession(running.url))
            return Gateway(running, http, upstreams, picker, observer, health, server, port)

        yield start
