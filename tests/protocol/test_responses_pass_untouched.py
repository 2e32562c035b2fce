"""What the endpoint answers is what the client gets, byte for byte and as early, in both styles."""

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multipick_epp.extproc.pick import Pick, PickRequest

if TYPE_CHECKING:
    from tests.protocol.conftest import Received, StartGateway

both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@both_styles
@pytest.mark.requirement("protocol: The EPP supports full-duplex streaming of requests and responses.")
async def test_an_sse_answer_arrives_whole_and_event_by_event(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    events = [b'data: {"delta":"%d"}\n\n' % n for n in range(50)] + [b"data: [DONE]\n\n"]
    client_has = asyncio.Event()

    async def stream(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE)
        for event in events:
            client_has.clear()
            writer.write(chunk(event))
            await writer.drain()
            await client_has.wait()  # the next one only when this one came through
        writer.write(b"0\r\n\r\n")

    gateway.answer_all(stream)
    got = b""
    async with gateway.http.post("/v1/chat/completions", data=b'{"stream":true}') as response:
        assert response.headers["content-type"] == "text/event-stream"
        async for piece in response.content.iter_any():
            got += piece
            if got.endswith(b"\n\n"):
                client_has.set()
    assert got == b"".join(events)
    await gateway.settled()
    first_bytes = gateway.picker.named("first_byte")
    assert first_bytes == ([("r1",)] if style == "gateway" else [])  # ours keeps the picker off the tokens


@both_styles
@pytest.mark.requirement("ext_proc: Large answers pass whole.")
async def test_a_large_answer_arrives_whole(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    body = bytes(range(256)) * 20_000  # 5 MB

    async def answer(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    gateway.answer_all(answer)
    async with gateway.http.get("/v1/files/1/content") as response:
        assert await response.read() == body


@both_styles
@pytest.mark.requirement("ext_proc: Answers without a body pass, and errors of the endpoint.")
async def test_empty_answers_and_errors_of_the_endpoint_pass(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)

    async def answer(request: "Received", writer: asyncio.StreamWriter) -> None:
        status = request.path.rpartition("/")[2].encode()
        length = b"" if status == b"204" else b"content-length: 0\r\n"
        writer.write(b"HTTP/1.1 " + status + b" Whatever\r\nx-endpoint: here\r\n" + length + b"\r\n")

    gateway.answer_all(answer)
    for status in (200, 204, 400, 429, 500):
        async with gateway.http.post(f"/status/{status}", data=b"{}") as response:
            assert (response.status, await response.read()) == (status, b"")
            assert response.headers["x-endpoint"] == "here"
    await gateway.settled()
    assert len(gateway.picker.named("release")) == 5


@both_styles
@pytest.mark.requirement("ext_proc: A reset by endpoint or client ends the request and nothing else.")
async def test_an_answer_that_breaks_off_frees_its_reservation(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)

    begun = asyncio.Event()

    async def break_off(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b"data: 1\n\n"))
        await begun.wait()
        writer.transport.abort()

    gateway.answer_all(break_off)
    async with gateway.http.post("/v1/completions", data=b"{}") as response:
        assert await response.content.readany() == b"data: 1\n\n"
        begun.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    await gateway.settled()
    assert gateway.picker.named("release") == [("r1",)]
    gateway.answer_all(gateway.upstreams[0].say_ok)
    async with gateway.http.post("/v1/completions", data=b"{}") as response:
        assert response.status == 200


@both_styles
@pytest.mark.requirement("ext_proc: Trailers pass both ways.")
async def test_trailers_pass_both_ways(style: Any, start_gateway: "StartGateway") -> None:
    def with_trailers(config: dict[str, Any]) -> None:
        options = {"enable_trailers": True}
        listener, pool = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
        listener["filter_chains"][0]["filters"][0]["typed_config"]["http_protocol_options"] = options
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        pool["typed_extension_protocol_options"] = {
            kind: {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http_protocol_options": options}}
        }

    gateway = await start_gateway(style, change=with_trailers)

    async def answer(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b"data: 1\n\n") + b"0\r\nx-after: end\r\n\r\n")

    gateway.answer_all(answer)
    host, _, port = gateway.envoy.url.removeprefix("http://").partition(":")
    for body in (b'{"model":"m"}', b""):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: m\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        writer.write((chunk(body) if body else b"") + b"0\r\nx-before: end\r\n\r\n")
        answered = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"data: 1\n\n" in answered
        assert answered.endswith(b"0\r\nx-after: end\r\n\r\n")
        received = gateway.received[-1]
        assert (received.body, received.trailers) == (body, {"x-before": "end"})
    await gateway.settled()
    assert [request.body for request in gateway.picker.requests] == [b'{"model":"m"}', None]
    assert len(gateway.upstreams[-1].received) == 2  # both went where the picker said
    assert len(gateway.picker.named("release")) == 2


@both_styles
@pytest.mark.requirement("ext_proc: An answer may come before the request is whole.")
async def test_an_answer_before_the_requests_end_arrives(style: Any, start_gateway: "StartGateway") -> None:
    """An engine that refuses a body without reading it."""
    gateway = await start_gateway(style)

    async def refuse(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!")
        await writer.drain()
        raise ConnectionError("closes without reading the body")

    for upstream in gateway.upstreams:
        upstream.read_body = False
        upstream.answer = refuse
    async with gateway.http.post("/v1/completions", data=b"x" * 8_000_000) as response:
        status = response.status
    assert status in (413, 503)  # 503 where Envoy met the closed connection before the answer
    await gateway.settled()
    assert gateway.picker.named("release") == [("r1",)]


@both_styles
async def test_the_reservation_lives_as_long_as_the_answer(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    go_on = asyncio.Event()

    async def stream(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b"data: 1\n\n"))
        await go_on.wait()
        writer.write(b"0\r\n\r\n")

    gateway.answer_all(stream)
    async with gateway.http.post("/v1/completions", data=b"{}") as response:
        await response.content.readany()
        assert gateway.picker.named("served") == [("r1", gateway.picker.endpoints[-1])]
        assert not gateway.picker.named("release")
        go_on.set()
        await response.read()
    await gateway.settled()
    assert gateway.picker.named("release") == [("r1",)]


REQUEST_MODES = ("NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
RESPONSE_MODES = ("NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")


@pytest.mark.parametrize("request_mode", REQUEST_MODES)
@pytest.mark.requirement("ext_proc: Every pair of body modes works, request by response.")
async def test_every_pair_of_body_modes_works(request_mode: str, start_gateway: "StartGateway") -> None:
    def every_response_mode(config: dict[str, Any]) -> None:
        connections = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        [ext_proc] = [each for each in connections["http_filters"] if each["name"] == "envoy.filters.http.ext_proc"]
        mode = ext_proc["typed_config"]["processing_mode"]
        mode |= {"request_body_mode": request_mode, "request_trailer_mode": "SEND"}
        kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
        [virtual_host] = connections["route_config"]["virtual_hosts"]
        *_, route = virtual_host["routes"]
        virtual_host["routes"] = [
            {
                "match": {"prefix": f"/{response_mode}/"},
                "route": route["route"],
                "typed_per_filter_config": {
                    "envoy.filters.http.ext_proc": {
                        "@type": kind,
                        "overrides": {"processing_mode": mode | {"response_body_mode": response_mode}},
                    }
                },
            }
            for response_mode in RESPONSE_MODES
        ]

    gateway = await start_gateway("gateway", change=every_response_mode)
    answer = b"data: " + b"y" * 150_000 + b"\n\n"

    async def stream(request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(answer[:100]))
        await writer.drain()
        writer.write(chunk(answer[100:]) + b"0\r\n\r\n")

    async def decide(request: PickRequest) -> Pick:
        return Pick((gateway.picker.endpoints[0],), gateway.picker.reservation(), {"x-to-pod": "a"}, {"x-back": "b"})

    gateway.answer_all(stream)
    gateway.picker.decide = decide
    body = b'{"prompt":"' + b"z" * 150_000 + b'"}'
    for response_mode in RESPONSE_MODES:
        async with gateway.http.post(f"/{response_mode}/", data=body) as response:
            assert (response.status, await response.read()) == (200, answer), response_mode
            assert response.headers["x-back"] == "b"
        async with gateway.http.get(f"/{response_mode}/") as response:
            assert (response.status, await response.read()) == (200, answer), response_mode
    await gateway.settled()
    bodies_seen = [request.body for request in gateway.picker.requests[::2]]
    assert set(bodies_seen) == {None if request_mode in ("NONE", "STREAMED") else body}
    assert [request.body_bytes for request in gateway.picker.requests] == [len(body), 0] * 5
    assert [r.body for r in gateway.upstreams[0].received] == [body, b""] * 5
    assert {r.headers["x-to-pod"] for r in gateway.upstreams[0].received} == {"a"}
    assert not gateway.upstreams[1].received
    assert len(gateway.picker.named("release")) == len(gateway.picker.named("served")) == 10
