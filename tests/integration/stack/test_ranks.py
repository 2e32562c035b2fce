"""Two data-parallel ranks behind one port: each has a cache of its own, and the picker says which of them serves."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from multipick_epp.types import rank_at
from multipick_sim.local.bootstrap import Style
from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from tests.integration.stack.conftest import StartStack

BLOCK = 16


def said(response: Any) -> tuple[str, str, int]:
    """Endpoint, mode and hit of the picker's decision."""
    told = response.headers
    return told["x-multipick-endpoint"], told["x-multipick-mode"], int(told["x-multipick-hit-tokens"])


@pytest.mark.parametrize("style", ["standalone", "gateway"])
async def test_each_rank_is_known_exactly_and_gets_what_it_was_picked_for(
    start_stack: "StartStack", style: Style
) -> None:
    stack = await start_stack(style, pods=1, flags=("--data-parallel-size", 2, "--data-parallel-rank", 8))
    [picker], [pod] = stack.pickers, stack.pods
    ranks = {rank_at(pod.endpoint, rank) for rank in (0, 1)}
    assert (await stack.rows(picker)).keys() == ranks

    chats: list[list[dict[str, str]]] = [[{"role": "user", "content": fixed_text(seed, 300)}] for seed in (1, 2)]
    used = []
    for turn in range(3):
        if turn == 0:  # in one moment: a chat that waited for the index would find the other one's blocks amid it
            body = {"model": "demo", "max_tokens": 300}
            answers = await asyncio.gather(
                *(stack.post("/v1/chat/completions", body | {"messages": chat}) for chat in chats)
            )
        else:
            answers = [await stack.chat(chat) for chat in chats]
        for chat, (response, answer) in zip(chats, answers, strict=True):
            endpoint, mode, hit = said(response)
            assert mode == "exact"
            assert hit == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert (hit > 300 * turn) == (turn > 0), "each turn hits those before it, where they are"
            used.append(endpoint)
            chat += [
                {"role": "assistant", "content": answer["choices"][0]["message"]["content"]},
                {"role": "user", "content": fixed_text(10 * turn + len(chat), 300)},
            ]
    assert set(used[:2]) == ranks, "the first two came at once: one for each"
    assert used == used[:2] * 3, "and each chat stays where it is"
    await stack.idle()

    # Where the engine would not heed it, no rank is named, and nothing is called exact.
    await stack.settled()
    async with stack.http.post("/v1/responses", json={"model": "demo", "input": fixed_text(1, 300)}) as response:
        assert response.status == 404, "the simulator has no such API, as its own answer tells"
        assert said(response)[1] == "approx"
    await stack.idle()

    # A client's own header is not heeded, or this would be out of range.
    body = {"model": "demo", "prompt": "x", "max_tokens": 1}
    async with stack.http.post("/v1/completions", json=body, headers={"x-data-parallel-rank": "7"}) as response:
        assert response.status == 200, await response.text()
    status = await stack.status(lambda found: found["endpoints"]["checked"] == 2)
    assert status["mismatches"] == []
    assert status["endpoints"] == {"ready": 2, "checked": 2, "modes": {"exact": 2}}
    await stack.settled()
