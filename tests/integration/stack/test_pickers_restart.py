"""Pickers that are restarted one after the other, as in an upgrade, forget nothing, though no pod tells it again."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from multipick_sim.local.bootstrap import Style
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

CHAT = "/v1/chat/completions"
KEPT = 60
"""Batches that can be replayed: more than pass while an endpoint changes hands, also where a machine is busy with other
things. Real engines keep 10,000.
"""
FLAGS = ("--speed", 50, "--num-gpu-blocks", 600)
SYSTEM = fixed_text(1, 1600)


async def ask(stack: "Stack", number: int, tokens: int) -> tuple[str, int, int] | None:
    """The mode of the decision, and what it predicted and the engine reported; None where no picker decided.

    A batch is told of the prompt, and one of every 16 `tokens` of the answer.
    """
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": fixed_text(100 + number, 60)}]
    response, answer = await stack.post(CHAT, {"model": "demo", "messages": messages, "max_tokens": tokens})
    assert response.status == 200, answer
    if "x-multipick-mode" not in response.headers:
        return None
    cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return response.headers["x-multipick-mode"], int(response.headers["x-multipick-hit-tokens"]), cached


@pytest.mark.parametrize(("style", "workers"), [("standalone", 1), ("gateway", 1), ("gateway", 2)])
async def test_every_picker_is_restarted(style: "Style", workers: int, start_stack: "StartStack") -> None:
    stack = await start_stack(
        style, pickers=2, flags=FLAGS, config={"hotspot_guard": False, "workers": workers}
    )  # one prefix is all there is
    for pod in stack.pods:
        async with stack.admin.post(f"http://{pod.endpoint}/sim/sick", json={"replay_batches": KEPT}) as response:
            assert response.status == 200
    number = 0
    while max([await stack.batches(pod.endpoint) for pod in stack.pods]) <= 1.5 * KEPT:  # nobody can replay the first
        number += 1
        assert number < 5 * KEPT, "requests tell no batches"
        await ask(stack, number, 30)
    await stack.settled()
    begun = await stack.records(b"begin")
    decided: list[tuple[str, int, int]] = []
    ended = asyncio.Event()

    async def traffic() -> None:
        number = 1000
        while not ended.is_set():
            number += 1
            if decision := await ask(stack, number, 1):
                decided.append(decision)
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(traffic())
    for picker in stack.pickers:
        before = len(decided)
        picker.terminate()
        assert await picker.ended() == 0
        await picker.stop()
        await picker.serve()
        await stack.known()
        await stack.seen_healthy()  # as a rollout waits for what has come before it ends the next
        while len(decided) < before + 40 and not asking.done():
            await asyncio.sleep(0.02)
    ended.set()
    await asking
    await stack.settled()
    assert [each for each in decided if each[0] != "exact" or each[1] != each[2]] == []
    assert all(cached >= 1500 for _, _, cached in decided)
    assert await stack.records(b"begin") == begun, "nothing was told anew"
