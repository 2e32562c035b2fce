"""Through the real Envoy, no client's words reach an endpoint that only the pool may say."""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.protocol.conftest import StartGateway

both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])
PLAIN = {"model": "m", "prompt": "Grüße", "seed": 9007199254740993}


@both_styles
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/inference/v1/generate", "/generate", "/x"]
)
async def test_a_made_up_handle_never_reaches_an_endpoint(style: Any, path: str, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    handle = {"kv_transfer_params": {"remote_host": "10.9.9.9"}, "bootstrap_host": "10.9.9.9", "routed_dp_rank": 3}
    nested = {"sampling_params": {"extra_args": handle}}
    sent = [
        json.dumps(handle | PLAIN).encode(),
        json.dumps(PLAIN | handle | nested).replace("kv_transfer", "kv\\u005ftransfer").encode(),
        json.dumps(PLAIN | handle, ensure_ascii=False).encode("utf-16"),
        json.dumps({"prompt": "x" * 500_000} | handle | PLAIN).encode(),
    ]
    for body in sent:
        async with gateway.http.post(path, data=body, headers={"X-Data-Parallel-Rank": "3"}) as response:
            assert response.status == 200
    await gateway.settled()
    for received in gateway.received:
        body = json.loads(received.body)
        assert PLAIN.items() <= body.items()
        assert body.keys() <= PLAIN.keys() | {"sampling_params"}
        assert body.get("sampling_params", {}) in ({}, {"extra_args": {}})
        assert "x-data-parallel-rank" not in received.headers
    assert len(gateway.received) == len(sent)


@both_styles
async def test_a_body_without_one_arrives_byte_for_byte(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style)
    body = b'{ "prompt" : "what is kv_transfer_params?", "seed":1.50 , "a":1,"a":2 }'
    async with gateway.http.post("/v1/completions", data=body) as response:
        assert response.status == 200
    assert gateway.received[0].body == body
