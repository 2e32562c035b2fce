"""TLS between Envoy and the picker, over both transports."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multipick_epp.extproc.tls import Certificate, Files, read, self_signed
from multipick_epp.extproc.transports import Transport

if TYPE_CHECKING:
    from tests.protocol.conftest import Gateway, StartGateway

both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])
UPSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def speak_tls(config: dict[str, Any], **context: Any) -> None:
    """As gateways have it: whoever the picker is."""
    [pickers] = [each for each in config["static_resources"]["clusters"] if each["name"] == "pickers"]
    common = {"alpn_protocols": ["h2"], **context}
    pickers["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": UPSTREAM_TLS, "common_tls_context": common},
    }


async def picked(gateway: "Gateway") -> str | None:
    """Where the picker sent a request; None where it wasn't asked."""
    async with gateway.http.post("/v1/completions", data=b"{}") as response:
        assert (response.status, await response.read()) == (200, b'{"ok":true}')
    return gateway.received[-1].headers.get("x-gateway-destination-endpoint")


@both_styles
@pytest.mark.requirement("gateways: The ext_proc port speaks TLS with a certificate of its own.")
async def test_a_self_signed_certificate_is_taken(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style, change=speak_tls, certificate=Certificate(self_signed()))
    assert await picked(gateway) == gateway.picker.endpoints[-1]
    await gateway.settled()


@pytest.mark.parametrize("transport", ["h2"])
@both_styles
@pytest.mark.requirement("gateways: Where it is told to, the ext_proc port takes TLS and plaintext.")
async def test_gateways_that_speak_tls_and_others_share_a_port(
    style: Any, start_gateway: "StartGateway", transport: Transport
) -> None:
    """The pool's gateway changes from one to the other, while both ask."""
    certificate = Certificate(self_signed(), plaintext=True)
    secure = await start_gateway(style, change=speak_tls, certificate=certificate)
    port = secure.ext_proc_port

    def ask_the_same(config: dict[str, Any]) -> None:
        [pickers] = [each for each in config["static_resources"]["clusters"] if each["name"] == "pickers"]
        [endpoint] = pickers["load_assignment"]["endpoints"][0]["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port

    plain = await start_gateway(style, change=ask_the_same)
    for _ in range(3):
        for gateway in (secure, plain):
            assert await picked(gateway)
    assert len(secure.picker.requests) == 6
    assert not plain.picker.requests
    assert not secure.observer.refusals


async def test_connections_outlive_a_change_of_the_files_and_new_ones_see_it(
    start_gateway: "StartGateway", tmp_path: Path
) -> None:
    files = Files(tmp_path / "cert", tmp_path / "key")
    first, second = self_signed(), self_signed()
    files.cert.write_bytes(first.cert)
    files.key.write_bytes(first.key)
    certificate = Certificate(read(files))
    following = asyncio.create_task(certificate.follow(files, 0.01))
    gateway = await start_gateway("standalone", change=speak_tls, certificate=certificate)
    assert await picked(gateway)
    files.key.write_bytes(second.key)
    files.cert.write_bytes(second.cert)
    while certificate.identity != second:
        await asyncio.sleep(0.01)
    assert await picked(gateway)
    assert await shown(gateway.ext_proc_port) == second.cert
    following.cancel()


async def shown(port: int) -> bytes:
    """The certificate, as PEM."""
    return (await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))).encode()


async def test_clients_without_the_right_certificate_are_not_let_in(
    start_gateway: "StartGateway", transport: Transport
) -> None:
    ours, client = self_signed(), self_signed()
    mutual = Certificate(replace(ours, client_ca=client.cert))

    def show(config: dict[str, Any]) -> None:
        pair = {
            "certificate_chain": {"inline_string": client.cert.decode()},
            "private_key": {"inline_string": client.key.decode()},
        }
        speak_tls(config, tls_certificates=[pair])

    known = await start_gateway("standalone", change=show, certificate=mutual)
    assert await picked(known) == known.picker.endpoints[-1]
    unknown = await start_gateway("standalone", change=speak_tls, certificate=mutual)
    assert await picked(unknown) is None  # Envoy's own choice
    assert not unknown.picker.requests


@pytest.mark.parametrize("transport", ["h2"])
@pytest.mark.requirement("gateways: A gateway of the wrong protocol is told, counted and logged.")
async def test_a_gateway_that_speaks_tls_to_a_plaintext_port_is_told_why(
    start_gateway: "StartGateway", transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway("gateway", change=speak_tls)
    with pytest.raises((aiohttp.ClientResponseError, AssertionError)):
        await picked(gateway)
    assert set(gateway.observer.refusals) == {"tls_on_plaintext"}
    assert "set listen.tls.mode" in caplog.text


@pytest.mark.parametrize("transport", ["h2"])
@pytest.mark.requirement("gateways: A gateway of the wrong protocol is told, counted and logged.")
async def test_a_gateway_that_speaks_plaintext_to_a_tls_port_is_told_why(
    start_gateway: "StartGateway", transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway("gateway", certificate=Certificate(self_signed()))
    with pytest.raises((aiohttp.ClientResponseError, AssertionError)):
        await picked(gateway)
    assert set(gateway.observer.refusals) == {"plaintext_on_tls"}
    assert "listen.tls.mode to off" in caplog.text
