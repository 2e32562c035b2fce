"""Clients that say no more before they are answered: picked by their headers, through the real Envoy."""

import asyncio
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest

if TYPE_CHECKING:
    from tests.protocol.conftest import Gateway, Received, StartGateway

both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCHING)
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


def address(gateway: "Gateway") -> tuple[str, int]:
    host, _, port = gateway.envoy.url.removeprefix("http://").partition(":")
    return host, int(port)


def manager(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@both_styles
@pytest.mark.requirement("gateways: An upgrade is picked at its headers (WebSocket, /v1/realtime).")
async def test_a_websocket_goes_to_the_picked_endpoint(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    for upstream in gateway.upstreams:
        upstream.upgrade = echo
    reader, writer = await asyncio.open_connection(*address(gateway))
    writer.write(b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 101")
    for words in (b"ping", b"x" * 100_000):
        writer.write(words)
        assert await asyncio.wait_for(reader.readexactly(len(words)), 60) == words
    assert not gateway.picker.named("release")  # charged for as long as it is open
    writer.close()
    await gateway.settled()
    [request] = gateway.picker.requests
    assert (request.method, request.path, request.body) == ("GET", "/v1/realtime?model=m", None)
    [received] = gateway.upstreams[-1].received
    assert received.headers["x-gateway-destination-endpoint"] == gateway.picker.endpoints[-1]
    assert gateway.picker.named("release") == [("r1",)]


@both_styles
@pytest.mark.requirement("gateways: HTTP/2's extended CONNECT is picked at its headers.")
async def test_a_websocket_over_http2_goes_there_too(style: Any, start_gateway: "StartGateway") -> None:
    """RFC 8441: extended CONNECT."""
    gateway = await start_gateway(style)
    for upstream in gateway.upstreams:
        upstream.upgrade = echo
    reader, writer = await asyncio.open_connection(*address(gateway))
    client = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
    client.initiate_connection()
    connect = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/v1/realtime"}
    client.send_headers(1, [*{**connect, ":authority": "m", "sec-websocket-version": "13"}.items()])
    client.send_data(1, b"ping")
    status, heard = b"", b""
    async with asyncio.timeout(60):
        while heard != b"ping":
            writer.write(client.data_to_send())
            for event in client.receive_data(await reader.read(1 << 16)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers or ())[b":status"]
                elif isinstance(event, h2.events.DataReceived):
                    heard += event.data or b""
    assert status == b"200"
    writer.close()
    await gateway.settled()
    assert len(gateway.upstreams[-1].received) == 1


@both_styles
async def test_upgrades_elsewhere_are_refused_by_our_own_bootstrap(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    headers = {"connection": "Upgrade", "upgrade": "websocket"}
    async with gateway.http.get("/v1/models", headers=headers) as response:
        assert response.status == 403
    assert not gateway.received


@pytest.mark.requirement("gateways: Expect: 100-continue is picked at its headers.")
async def test_a_client_that_waits_for_100_gets_it_from_the_endpoint(start_gateway: "StartGateway") -> None:
    """Istio leaves the 100 to the endpoint, and sends its client's headers on in full duplex."""

    def leave_100(config: dict[str, Any]) -> None:
        manager(config)["proxy_100_continue"] = True

    gateway = await start_gateway("gateway", change=leave_100)

    async def continue_first(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await gateway.upstreams[-1].say_ok(request, writer)

    for upstream in gateway.upstreams:
        upstream.read_body = False
        upstream.answer = continue_first
    reader, writer = await asyncio.open_connection(*address(gateway))
    body = b'{"prompt":"' + b"x" * 2_000_000 + b'"}'
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 100")
    writer.write(body)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 200")
    writer.close()
    await gateway.settled()
    [request] = gateway.picker.requests
    assert (request.body, request.body_bytes) == (None, len(body))
    assert gateway.upstreams[-1].received[0].headers["x-gateway-destination-endpoint"] == gateway.picker.endpoints[-1]


@pytest.mark.requirement("gateways: A body that was waited for is looked through like any other.")
async def test_no_client_gets_reserved_fields_through_by_waiting(start_gateway: "StartGateway") -> None:
    def leave_100(config: dict[str, Any]) -> None:
        manager(config)["proxy_100_continue"] = True

    gateway = await start_gateway("gateway", change=leave_100)
    body = b'{"prompt":"hi","kv_transfer_params":{"remote_host":"10.9.9.9"}}'
    reader, writer = await asyncio.open_connection(*address(gateway))
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)  # one that waits less than it says
    )
    assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert [received.body for received in gateway.upstreams[-1].received] == [b'{"prompt":"hi"}']


@both_styles
@pytest.mark.requirement("gateways: Expect: 100-continue is picked at its headers.")
async def test_a_gateway_that_says_100_itself_still_shows_the_body(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    body = b'{"prompt":"' + b"x" * 2_000_000 + b'"}'
    async with gateway.http.post("/v1/completions", data=body, expect100=True) as response:
        assert response.status == 200
    assert [received.body for received in gateway.upstreams[-1].received] == [body]
