"""Every picker is restarted, one after the other, on caches as large and as old as those of a real pod after a day.

28,000 blocks a pod, all of them taken, and far more event batches than a publisher can replay: what pickers know of the
oldest blocks stands in the store alone.
"""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio
from lab.lab import Lab
from multipick_sim.pod.publisher import BUFFER_STEPS
from multipick_sim.texts import fixed_text
from stacks.truth import MODEL

from tests.faults.conftest import ROWS

if TYPE_CHECKING:
    from stacks.process import Json, Pod
    from stacks.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]
BLOCKS = 28_000
PODS = 2
FLAGS = ("--speed", 200, "--num-gpu-blocks", BLOCKS, "--max-model-len", 16_384, "--stream-interval", 64)
WARM: "Json" = {"model": MODEL, "prompt": fixed_text(-1, 8000), "max_tokens": 1}
AT_ONCE = 8
PROMPT, ANSWER = 2000, 4000  # tokens
RESTARTS_S = 120.0
COMPARED_IN_S = 90.0  # block for block, of every pod with every picker
BETWEEN_S = 5.0  # of traffic, after each picker that came back


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["standalone", "gateway"])
async def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    rows = request.config.stash.setdefault(ROWS, [])
    made = Lab(request.param, tmp_path_factory.mktemp(request.param), rows, PODS, FLAGS, COMPARED_IN_S)
    yield made
    await made.close()


async def ask(stack: "Stack", pod: "Pod", body: "Json") -> None:
    patience = aiohttp.ClientTimeout(total=60)
    async with stack.admin.post(f"http://{pod.endpoint}/v1/completions", json=body, timeout=patience) as response:
        assert response.status == 200, await response.text()


async def grow_old(stack: "Stack", pod: "Pod") -> None:
    """A warm prompt, and then others until all of the cache is taken and no replay knows of the warm one."""
    await ask(stack, pod, WARM)
    numbers = count(1_000_000)
    while await stack.batches(pod.endpoint) < 2 * BUFFER_STEPS or len(await cached(stack, pod)) < BLOCKS - 500:
        # Prompts of different lengths: their answers' blocks end at different steps, and each such step is a batch.
        texts = (fixed_text(next(numbers), PROMPT + 2 * number) for number in range(AT_ONCE))
        bodies = [{"model": MODEL, "prompt": text, "max_tokens": ANSWER, "ignore_eos": True} for text in texts]
        await asyncio.gather(*(ask(stack, pod, body) for body in bodies))
        await ask(stack, pod, WARM)  # nothing is stored by it, and nothing told


async def cached(stack: "Stack", pod: "Pod") -> set[int]:
    return set((await stack.cached(pod))[pod.endpoint])


async def test_every_picker_is_restarted(large: Lab) -> None:
    stack = await large.stack()
    await asyncio.gather(*(grow_old(stack, pod) for pod in stack.pods))
    await stack.settled()
    async with large.fault("every picker restarted, pods of 28,000 blocks and a day's events", RESTARTS_S) as trial:
        for picker in stack.pickers:
            picker.terminate()
            trial.expect(await picker.ended() == 0, "a picker's exit status is not 0")
            await picker.stop()
            await picker.serve()
            await stack.known()
            await stack.seen_healthy()
            await trial.lasts(BETWEEN_S)
            for pod in stack.pods:
                await ask(stack, pod, WARM)  # it stays warm, as what many prompts begin with
        response, answer = await stack.post("/v1/completions", WARM)
        hit = response.headers.get("x-multipick-hit-tokens")
        known = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        trial.expect(known > 7000, f"of the warm prompt only {known} tokens were cached")
        trial.expect(hit == str(known), f"of the warm prompt {hit} tokens were predicted, {known} were cached")
        below = [each for each in trial.traffic.sent if each.mode not in ("exact", None)]
        trial.expect(not below, f"{len(below)} decisions below exact, such as {below[:1]}")
        for picker in stack.pickers:
            told = [line for line in (await stack.metrics(picker)).splitlines() if "_events_uploads_total{" in line]
            trial.expect(all(line.endswith(" 0.0") for line in told), f"something was told anew: {told}")
