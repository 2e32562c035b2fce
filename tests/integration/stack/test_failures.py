"""Parts that end under requests in flight, and come back."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from multipick_sim.local.bootstrap import Style
from multipick_sim.texts import fixed_text
from multipick_sim.traffic.sse import Answer

if TYPE_CHECKING:
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

CHAT = "/v1/chat/completions"
STREAM = {"max_tokens": 200, "stream": True, "stream_options": {"include_usage": True}}
both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])


def chat(seed: int, tokens: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": fixed_text(seed, tokens)}]
    return {"model": "demo", "messages": messages, "max_tokens": 20, **fields}


async def stream(stack: "Stack", seed: int, begun: asyncio.Semaphore) -> int:
    """The tokens of an answer that came whole; releases `begun` at its first byte."""
    answer = Answer()
    async with stack.http.post(CHAT, json=chat(seed, 50, **STREAM)) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            if answer.first_token_at is None:
                answer.feed(chunk, 1.0)
                begun.release()
            else:
                answer.feed(chunk, 1.0)
    return answer.finish().output_tokens


@both_styles
async def test_a_drained_picker_ends_its_streams_whole_and_finds_its_index_again(
    start_stack: "StartStack", style: Style
) -> None:
    stack = await start_stack(style, flags=("--speed", 0.5))
    [picker] = stack.pickers
    _, answer = await stack.post(CHAT, chat(7, 100))
    begun = asyncio.Semaphore(0)
    streams = [asyncio.create_task(stream(stack, seed, begun)) for seed in range(10)]
    for _ in streams:
        await begun.acquire()
    picker.terminate()
    assert await asyncio.gather(*streams) == [200] * 10
    assert await picker.ended() == 0
    assert await stack.load() == {}
    await picker.stop()
    await picker.serve()
    await stack.known()
    response, answer = await again(stack, chat(7, 100))
    assert response.headers["x-multipick-mode"] == "exact"
    hit = int(response.headers["x-multipick-hit-tokens"])
    assert hit == answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 96
    await stack.idle()


async def again(stack: "Stack", body: Any) -> Any:
    """The first answer with a picker's word on it: a gateway needs a moment to see that the picker is back."""
    async with asyncio.timeout(30):
        while True:
            async with stack.http.post(CHAT, json=body | {"model": "demo"}) as response:
                said = await response.read()
            if "x-multipick-mode" in response.headers:
                return response, json.loads(said)
            await asyncio.sleep(0.1)


async def test_a_pool_without_pods_says_so_in_the_clients_own_api(start_stack: "StartStack") -> None:
    stack = await start_stack(pods=1)
    await stack.pods[0].kill()

    async def ready() -> object:
        return any(row["ready"] for row in (await stack.rows(stack.pickers[0])).values())

    async with asyncio.timeout(30):
        while await ready():
            await asyncio.sleep(0.02)
    for path, kind in ((CHAT, None), ("/v1/messages", "error")):
        response, answer = await stack.post(path, chat(1, 10))
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["x-multipick-drop-reason"] == "no-ready-endpoint"
        assert answer.get("type") == kind
        assert answer["error"]["message"] == "No endpoint of the pool is ready."
