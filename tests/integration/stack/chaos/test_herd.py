"""Pickers that decide at the same moment don't all choose the same pods."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

PODS, BURST, TOKENS = 16, 200, 500
STANDING_STILL = ("--speed", 0.0001)  # no prefill ends while the test looks


async def spread(stack: "Stack", seeds: Sequence[int]) -> list[int]:
    """Requests in flight on the pods, fewest first, once a burst of completions of these texts is on them."""
    bodies = [{"model": "demo", "prompt": fixed_text(seed, TOKENS), "max_tokens": 10} for seed in seeds]
    burst = [asyncio.create_task(stack.post("/v1/completions", body)) for body in bodies]
    in_flight: list[int] = []
    try:
        async with asyncio.timeout(240):
            while sum(in_flight) < len(burst):
                in_flight = [row["in_flight"] for row in (await stack.rows(stack.pickers[0])).values()]
                await asyncio.sleep(0.02)
    finally:  # else they would be heard of in tests to come
        for request in burst:
            request.cancel()
        await asyncio.gather(*burst, return_exceptions=True)
    await stack.idle()
    return sorted(in_flight)


@pytest.mark.parametrize(("pickers", "policy"), [(1, "lmetric"), (4, "lmetric"), (4, "marginal")])
async def test_a_burst_spreads_over_idle_pods_however_many_pickers_decide(
    start_stack: "StartStack", pickers: int, policy: str
) -> None:
    stack = await start_stack(pods=PODS, pickers=pickers, flags=STANDING_STILL, config={"policy": policy})
    for seeds in (range(BURST), [BURST] * BURST):  # all different; all the same
        in_flight = await spread(stack, seeds)
        assert sum(in_flight) == BURST
        # A reserve that a busy machine keeps waiting for longer than 50 ms is decided by the local view.
        locally = await stack.total("multipick_reserved_locally_total")
        print(f"in flight {in_flight}, {locally:g} decided locally")
        assert in_flight[-1] - in_flight[0] <= 3 + locally
