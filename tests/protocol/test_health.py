"""Who asks whether to call this picker, and what they hear: a real gRPC client on both ports."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health
from multipick_epp.extproc.transports import Transport, health_server
from multipick_epp.proto.grpc_health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from tests.protocol.conftest import CountingObserver, StartGateway

READINESS = ("", "readiness", "inference-extension", EXT_PROC_SERVICE)
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def channel(health: Health, transport: Transport, observer: "CountingObserver") -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        server = health_server(transport, health, observer)
        port = await server.start("127.0.0.1", 0)
        stack.push_async_callback(server.stop)
        yield await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))


async def check(channel: Any, service: str) -> str:
    reply = await channel.unary_unary(CHECK)(HealthCheckRequest(service=service).SerializeToString())
    return name(reply)


def name(reply: bytes) -> str:
    return HealthCheckResponse.ServingStatus.Name(HealthCheckResponse.FromString(reply).status)


@pytest.mark.requirement("protocol: readiness and the ext_proc service are SERVING while the EPP can decide.")
@pytest.mark.requirement("suite: Probes of the service inference-extension are answered on the health port.")
async def test_readiness_has_many_names_and_follows_the_picker(channel: Any, health: Health) -> None:
    for service in READINESS:
        assert await check(channel, service) == "NOT_SERVING"
    health.ready(True)
    for service in READINESS:
        assert await check(channel, service) == "SERVING"
    health.ready(False)
    assert await check(channel, "readiness") == "NOT_SERVING"


@pytest.mark.requirement("protocol: liveness is SERVING whenever the EPP can answer.")
async def test_liveness_is_true_from_the_start_and_while_draining(channel: Any, health: Health) -> None:
    assert await check(channel, "liveness") == "SERVING"
    health.drain()
    assert await check(channel, "liveness") == "SERVING"


async def test_draining_is_final(channel: Any, health: Health) -> None:
    health.ready(True)
    health.drain()
    health.ready(True)
    assert await check(channel, "readiness") == "NOT_SERVING"


@pytest.mark.requirement("protocol: Health is checked by grpc.health.v1.")
async def test_an_unknown_service_is_not_found(channel: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await check(channel, "something.else")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
async def test_the_port_is_nobody_elses_on_ipv4_and_ipv6(
    host: str, url: str, health: Health, transport: Transport, observer: "CountingObserver"
) -> None:
    if not bindable(host):
        pytest.skip(f"no {host} on this machine")
    server = health_server(transport, health, observer)
    port = await server.start(host, 0)
    async with grpc.aio.insecure_channel(f"{url}{port}") as channel:
        assert await check(channel, "liveness") == "SERVING"
    with pytest.raises(RuntimeError):
        await health_server(transport, health, observer).start(host, port)
    await server.stop()


def bindable(host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


async def test_a_watch_tells_each_change_once(channel: Any, health: Health) -> None:
    watch = channel.unary_stream(WATCH)(HealthCheckRequest(service="readiness").SerializeToString())
    assert name(await watch.read()) == "NOT_SERVING"
    health.ready(False)  # no change
    health.ready(True)
    assert name(await watch.read()) == "SERVING"
    health.drain()
    assert name(await watch.read()) == "NOT_SERVING"


async def test_a_watch_of_an_unknown_service_stays_open(channel: Any) -> None:
    watch = channel.unary_stream(WATCH)(HealthCheckRequest(service="x").SerializeToString())
    assert name(await watch.read()) == "SERVICE_UNKNOWN"
    assert not watch.done()


@pytest.mark.requirement("gateways: Health is served on the ext_proc port, too, where Envoy's health checks ask.")
async def test_the_ext_proc_port_answers_too_and_draining_shows_there(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway("standalone")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ext_proc_port}") as channel:
        assert await check(channel, EXT_PROC_SERVICE) == "SERVING"
        more = asyncio.Event()

        async def answer(request: object, writer: asyncio.StreamWriter) -> None:
            await more.wait()
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        gateway.answer_all(answer)
        asking = asyncio.ensure_future(gateway.http.get("/v1/models"))
        await gateway.observer.changes.until(lambda: gateway.observer.open == 1)
        draining = asyncio.ensure_future(gateway.server.drain(10))
        watch = channel.unary_stream(WATCH)(HealthCheckRequest(service=EXT_PROC_SERVICE).SerializeToString())
        while name(await watch.read()) != "NOT_SERVING":
            pass
        more.set()
        assert (await asking).status == 204
        await draining
