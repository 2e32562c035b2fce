"""What is queued on an endpoint shrinks as its engine computes, chunk by chunk."""

import asyncio
from typing import TYPE_CHECKING

from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from tests.integration.stack.conftest import StartStack

PROMPT = 20_000
CHUNK = 2_048


async def test_queued_tokens_follow_a_long_prefill(start_stack: "StartStack") -> None:
    """The engine's KV events tell of each chunk; no byte of the answer comes before the last one."""
    budget = ("--preset", "a10-qwen2.5-7b", "--max-num-batched-tokens", CHUNK)
    stack = await start_stack(pods=1, flags=budget)
    [picker], [pod] = stack.pickers, stack.pods
    body = {"model": "demo", "prompt": fixed_text(1, PROMPT), "max_tokens": 1}
    request = asyncio.create_task(stack.post("/v1/completions", body))
    seen: list[int] = []
    while not request.done():
        queued = (await stack.rows(picker))[pod.endpoint]["queued_tokens"]
        if [queued] != seen[-1:]:
            seen.append(queued)
        await asyncio.sleep(0.005)
    response, answer = request.result()
    assert response.status == 200, answer
    assert answer["usage"]["prompt_tokens"] == PROMPT
    await stack.idle()
    steps = [PROMPT - done for done in range(0, PROMPT, CHUNK)]
    assert [queued for queued in seen if queued] == [queued for queued in steps if queued in seen], seen
    assert len(set(seen) & set(steps)) >= 5, seen
