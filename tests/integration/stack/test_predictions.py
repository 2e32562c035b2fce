"""Predicted hits against what engines tell of the very requests, where responses pass the picker."""

from typing import TYPE_CHECKING

from multipick_epp.decision.predictions import EVERY
from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from tests.integration.stack.conftest import StartStack


async def test_of_every_so_many_predictions_one_is_held_against_the_engines_own_figure(
    start_stack: "StartStack",
) -> None:
    stack = await start_stack("gateway", pods=2)
    for number in range(2 * EVERY + 3):
        await stack.settled()
        response, answer = await stack.post(
            "/v1/completions", {"model": "demo", "prompt": fixed_text(number % 3, 300), "max_tokens": 2}
        )
        assert response.status == 200, answer
    await stack.idle()
    page = await stack.metrics(stack.pickers[0])
    compared = [line for line in page.splitlines() if line.startswith("multipick_predictions_compared_total{")]
    assert compared == ['multipick_predictions_compared_total{outcome="equal"} 2.0']
