"""From the client to the endpoint that the picker chose, through the real Envoy, in both styles."""

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.pick import NoPick, Pick, PickRequest
from multipick_epp.types import Endpoint

if TYPE_CHECKING:
    from tests.protocol.conftest import Received, StartGateway

STYLES = ("standalone", "gateway")
both_styles = pytest.mark.parametrize("style", STYLES)


@both_styles
@pytest.mark.requirement("protocol: The EPP tells the endpoint in the request header x-gateway-destination-endpoint.")
@pytest.mark.requirement("ext_proc: A request without a body is picked at its headers.")
async def test_a_get_is_picked_at_once_and_goes_to_the_picked_endpoint(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    async with gateway.http.get("/v1/models?verbose=1") as response:
        assert (response.status, await response.read()) == (200, b'{"ok":true}')
    await gateway.settled()
    [request] = gateway.picker.requests
    assert (request.method, request.path, request.body, request.body_bytes) == ("GET", "/v1/models?verbose=1", None, 0)
    [received] = gateway.upstreams[-1].received
    assert received.headers["x-gateway-destination-endpoint"] == gateway.picker.endpoints[-1]
    assert gateway.picker.named("release") == [("r1",)]


@both_styles
async def test_a_post_without_a_body_and_a_head_are_picked(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    async with gateway.http.post("/v1/load_lora_adapter", headers={"content-length": "0"}) as response:
        assert response.status == 200
    async with gateway.http.head("/v1/models") as response:
        assert response.status == 200
    assert [(request.method, request.body) for request in gateway.picker.requests] == [("POST", None), ("HEAD", None)]
    assert [received.method for received in gateway.upstreams[-1].received] == ["POST", "HEAD"]


@both_styles
@pytest.mark.parametrize("size", [1, 1_000, 62_000, 62_001, 300_000])
@pytest.mark.requirement("protocol: The EPP supports full-duplex streaming of requests and responses.")
@pytest.mark.requirement("suite: Any path and any model is routed.")
async def test_a_body_reaches_picker_and_endpoint_whole(style: Any, size: int, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with gateway.http.post("/v1/chat/completions", data=body, headers={"x-mine": "1"}) as response:
        assert response.status == 200
    [request] = gateway.picker.requests
    assert (request.body, request.body_bytes, request.subset) == (body, size, None)
    assert (request.method, request.path, request.headers["x-mine"]) == ("POST", "/v1/chat/completions", "1")
    [received] = gateway.upstreams[-1].received
    assert received.body == body


@both_styles
@pytest.mark.parametrize("megabytes", [20, 32])
@pytest.mark.requirement("ext_proc: Bodies of 32 MB pass whole; those too large to be read are routed unread.")
async def test_a_large_body_is_routed_unread_and_arrives_whole(
    style: Any, megabytes: int, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    body = b"0123456789abcdef" * (megabytes * 1_000_000 // 16)
    async with gateway.http.post("/v1/chat/completions", data=body) as response:
        assert response.status == 200
    [request] = gateway.picker.requests
    assert request.body is None
    assert request.body_bytes > 4 << 20
    [received] = gateway.upstreams[-1].received
    assert len(received.body) == len(body)
    assert hashlib.sha256(received.body).digest() == hashlib.sha256(body).digest()


@both_styles
@pytest.mark.requirement("ext_proc: A body sent in chunks is routed by what it says.")
async def test_a_body_sent_without_its_length_is_routed_by_what_it_says(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)

    async def pieces() -> Any:
        for piece in (b'{"model":', b'"m"', b"}"):
            yield piece

    async with gateway.http.post("/v1/completions", data=pieces()) as response:
        assert response.status == 200
    assert gateway.picker.requests[0].body == b'{"model":"m"}'
    assert gateway.upstreams[-1].received[0].body == b'{"model":"m"}'


@both_styles
@pytest.mark.requirement("ext_proc: Headers may be set both ways, and the body be replaced by one of another length.")
async def test_the_pick_sets_headers_both_ways_and_may_replace_the_body(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    longer = b'{"model":"other","padding":"' + b"p" * 100_000 + b'"}'

    async def decide(request: PickRequest) -> Pick:
        endpoint = gateway.picker.endpoints[0]
        return Pick((endpoint,), gateway.picker.reservation(), {"x-to-pod": "a"}, {"x-to-client": "ü"}, longer)

    gateway.picker.decide = decide
    async with gateway.http.post("/v1/completions", data=b'{"model":"m"}') as response:
        assert response.status == 200
        assert response.headers["x-to-client"].encode("utf-8", "surrogateescape").decode() == "ü"
    [received] = gateway.upstreams[0].received
    assert received.headers["x-to-pod"] == "a"
    assert received.body == longer


@both_styles
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.requirement("protocol: A request that is to be dropped is an ImmediateResponse 429.")
@pytest.mark.requirement("protocol: No ready endpoint is an ImmediateResponse 503.")
async def test_a_refusal_reaches_the_client_as_the_picker_worded_it(
    style: Any, status: int, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    body = b'{"error":{"message":"no endpoint is ready"}}'

    async def decide(request: PickRequest) -> NoPick:
        return NoPick(status, body, "no_endpoint", {"retry-after": "5"})

    gateway.picker.decide = decide
    for method, data in (("POST", b'{"model":"m"}'), ("GET", None)):
        async with gateway.http.request(method, "/v1/completions", data=data) as response:
            assert (response.status, await response.read()) == (status, body)
            assert response.headers["content-type"] == "application/json"
            assert response.headers["retry-after"] == "5"
            assert response.headers["x-multipick-drop-reason"] == "no_endpoint"
    await gateway.settled()
    assert not gateway.received
    assert not gateway.picker.calls


@both_styles
@pytest.mark.requirement("gateways: What a client says in the protocol's own headers reaches nobody.")
async def test_destinations_that_a_client_names_are_removed(style: Any, start_gateway: "StartGateway") -> None:
    def keep_client_headers(config: dict[str, Any]) -> None:
        filters(config)[:] = [each for each in filters(config) if each["name"] != "envoy.filters.http.strip"]

    gateway = await start_gateway(style, change=keep_client_headers)
    mine = {
        "x-gateway-destination-endpoint": gateway.picker.endpoints[0],
        "x-gateway-destination-endpoint-subset": "a",
        "x-gateway-destination-endpoint-served": "b",
    }

    async def fail(request: PickRequest) -> Pick:
        raise RuntimeError("no idea")

    for _ in range(2):  # with a pick, then without
        async with gateway.http.post("/v1/completions", data=b"{}", headers=mine) as response:
            assert response.status == 200
        async with gateway.http.get("/v1/models", headers=mine) as response:
            assert response.status == 200
        gateway.picker.decide = fail
    ours = [received.headers.get("x-gateway-destination-endpoint") for received in gateway.received]
    assert sorted(ours, key=str) == [gateway.picker.endpoints[-1]] * 2 + [None, None]
    assert not any(name.startswith("x-gateway-destination-endpoint-") for r in gateway.received for name in r.headers)


@both_styles
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused_in_the_words_of_its_api(
    style: Any, announced: bool, start_gateway: "StartGateway"
) -> None:
    limit = 100_000
    gateway = await start_gateway(style, settings=StreamOptions(Bounds(max_read_bytes=limit, max_body_bytes=limit)))

    async def pieces() -> Any:
        for _ in range(20):
            yield b"x" * 10_000

    data = b"x" * 200_000 if announced else pieces()
    async with gateway.http.post("/v1/messages", data=data) as response:
        assert response.status == 413
        assert response.headers["x-multipick-drop-reason"] == "body_too_large"
        error = await response.json()
    assert error["type"] == "error"
    assert error["error"]["type"] == "request_too_large"
    await gateway.settled()
    assert gateway.observer.answered == ["body_too_large"]
    assert not gateway.received
    assert not gateway.picker.requests


@both_styles
@pytest.mark.requirement("protocol: One endpoint or several, by commas; on retries the gateway walks the list.")
@pytest.mark.requirement("protocol: The endpoint that served is read from the response's metadata.")
async def test_a_list_of_endpoints_is_walked_and_the_one_that_served_is_reported(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style, retries=2, dead_endpoints=1)
    dead, _, alive = gateway.picker.endpoints

    async def decide(request: PickRequest) -> Pick:
        return Pick((dead, alive), gateway.picker.reservation())

    gateway.picker.decide = decide
    async with gateway.http.post("/v1/completions", data=b'{"model":"m"}') as response:
        assert response.status == 200
    await gateway.settled()
    assert [r.body for r in gateway.upstreams[-1].received] == [b'{"model":"m"}']
    assert gateway.picker.named("served") == [("r1", alive)]


@both_styles
@pytest.mark.parametrize("hint", [["10.0.0.1:8000", "10.0.0.2"], []])
@pytest.mark.requirement("protocol: The subset hint is read from the metadata envoy.lb.subset_hint.")
async def test_the_gateways_subset_reaches_the_picker(
    style: Any, hint: list[str], start_gateway: "StartGateway"
) -> None:
    def set_hint(config: dict[str, Any]) -> None:
        metadata = {"metadata_namespace": "envoy.lb.subset_hint", "value": {f"{HINT}-subset": hint}}
        typed = {"@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config"}
        filters(config).insert(
            0, {"name": "envoy.filters.http.set_metadata", "typed_config": typed | {"metadata": [metadata]}}
        )

    gateway = await start_gateway(style, change=set_hint)
    async with gateway.http.post("/v1/completions", data=b'{"model":"m"}') as response:
        assert response.status == 200
    assert gateway.picker.requests[0].subset == tuple(hint)


@both_styles
async def test_aborts_among_many_requests_leave_no_reservation_and_no_error_log(
    style: Any, start_gateway: "StartGateway", caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway(style)
    reserved: list[str] = []

    async def decide(request: PickRequest) -> Pick:
        reservation = gateway.picker.reservation()
        await asyncio.sleep(0)
        reserved.append(reservation)
        return Pick((Endpoint(gateway.picker.endpoints[len(reserved) % 2]),), reservation)

    async def slow(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n" + b"x" * 10)
        await writer.drain()
        await asyncio.sleep(int(request.headers["x-n"]) % 7 / 500)
        writer.write(b"x" * 10)

    async def one(n: int) -> int:
        try:
            async with asyncio.timeout(n % 10 / 100 if n % 2 else None):
                async with gateway.http.post("/v1/completions", data=b"{}", headers={"x-n": str(n)}) as response:
                    return len(await response.read())
        except TimeoutError:
            return -1

    gateway.picker.decide = decide
    gateway.answer_all(slow)
    results = [r for start in range(0, 300, 50) for r in await asyncio.gather(*map(one, range(start, start + 50)))]
    await gateway.settled()
    assert {r for n, r in enumerate(results) if n % 2 == 0} == {20}
    assert -1 in results
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert sorted(r for (r,) in gateway.picker.named("release")) == sorted(reserved)


HINT = "x-gateway-destination-endpoint"


def filters(config: dict[str, Any]) -> list[dict[str, Any]]:
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    found: list[dict[str, Any]] = chain["filters"][0]["typed_config"]["http_filters"]
    return found
