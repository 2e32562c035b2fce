"""A prefix that becomes hot in live traffic through Envoy: the guard acts, and every page that tells of it tells."""

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from multipick_epp.admin import explain
from multipick_sim.texts import fixed_text
from multipick_sim.workloads.generators import hot_prefix
from stacks.process import eventually

if TYPE_CHECKING:
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

PODS = 4
HOT_TOKENS = 1024
SHADOWS = ("least-request", "llm-d")


async def ask(stack: "Stack", name: str, prompt: str) -> str:
    """One request, alone; who served it."""
    body = {"model": "demo", "prompt": prompt, "max_tokens": 1}
    async with stack.http.post("/v1/completions", json=body, headers={"x-request-id": name}) as response:
        assert response.status == 200, await response.text()
        await response.read()
        return response.headers["x-multipick-endpoint"]


def shadow(page: str, sample: str) -> float:
    found = re.search(rf"^multipick_shadow_{re.escape(sample)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_hot_prefix_comes_to_be_held_by_one_endpoint_more_and_is_told_everywhere(
    start_stack: "StartStack", capsys: pytest.CaptureFixture[str]
) -> None:
    stack = await start_stack(pods=PODS, config={"shadow": list(SHADOWS)})
    [picker] = stack.pickers
    workload = hot_prefix(120, 5, tokens=HOT_TOKENS, share=0.6, answer=10)
    first_block = {item.prefixes[0] for item in workload.items[40:]}
    [hot] = [block for block in first_block if sum(item.prefixes[0] == block for item in workload.items) > 20]
    head = fixed_text(1, HOT_TOKENS)
    served: dict[str, str] = {}  # requests of the hot class, in order
    status: dict[str, Any] = {}  # when the first of them was sent elsewhere
    for number, item in enumerate(workload.items):
        is_hot = item.prefixes[0] == hot
        if is_hot and number < 100:  # until the guard looks, there is to be one holder
            await stack.settled()
        name = f"request-{number}"
        endpoint = await ask(stack, name, (head if is_hot else "") + fixed_text(100 + number, 40))
        if is_hot:
            served[name] = endpoint
            if len(set(served.values())) == 2 and not status:
                status = await stack.get(f"{picker.url}/status")

    holder = next(iter(served.values()))
    moved = next(name for name, endpoint in served.items() if endpoint != holder)
    assert status, "no request was kept out"
    told = max(status["hotspots"], key=lambda each: each["tokens"])
    assert 16 <= told["tokens"] <= HOT_TOKENS  # the shortest that is hot: all lengths have one share here
    assert 0.25 < told["share"] < 0.7
    assert holder in told["endpoints"]
    assert re.fullmatch("[0-9a-f]{15}", told["prefix"])
    assert await stack.total("multipick_hotspots_total") >= 1
    kept_out = await stack.total("multipick_hotspot_kept_out_total")
    assert kept_out == len(set(served.values())) - 1 > 0, "each lets one more endpoint hold it"
    assert '"a prefix is hot"' in picker.said()

    page = await stack.get(f"{picker.url}/explain/{moved}")
    assert page["endpoint"] == served[moved]
    assert page["why"] == "kept out of the 1 holders of a hot prefix, so that one more comes to hold it"
    assert page["mode"] == "exact"
    assert page["ended"] in ("whole", "closed")
    assert await asyncio.to_thread(explain.command, [moved, "--picker", picker.url]) == 0
    assert f"sent to {served[moved]}: kept out of the 1 holders" in capsys.readouterr().out

    async def unlooked() -> object:
        """Shadows look at each decision a moment later, or leave it out."""
        metrics = await stack.metrics(picker)
        skipped = await stack.total("multipick_shadow_skipped_total")
        for name in SHADOWS:
            same, other = (f'decisions_total{{choice="{each}",policy="{name}"}}' for each in ("same", "other"))
            looked = shadow(metrics, same) + shadow(metrics, other)
            if looked + skipped != len(workload.items):
                return name, looked, skipped
        return None

    await eventually(unlooked)
    metrics = await stack.metrics(picker)
    own, other = (shadow(metrics, f'{each}_tokens_total{{policy="least-request"}}') for each in ("own_hit", "hit"))
    assert own > other > 0
