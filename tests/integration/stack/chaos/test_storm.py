"""Ten thousand requests, at least, while pickers, owners of the ingest and the store are killed and come back.

A run by default sends fewer, to be quick; MULTIPICK_STORM_REQUESTS says how many.
"""

import asyncio
import itertools
import os
import shutil
import signal
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multipick_sim.texts import fixed_text
from multipick_sim.traffic.sse import Answer, AnswerError

if TYPE_CHECKING:
    from stacks.process import Picker
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

REQUESTS = int(os.environ.get("MULTIPICK_STORM_REQUESTS", "4000"))
AT_ONCE = 48
PODS, PICKERS = 16, 4
SMALL_CACHE = ("--speed", 50, "--num-gpu-blocks", 600, "--max-model-len", 4096, "--stream-interval", 16)
PREFIXES = [fixed_text(-number, 120) for number in range(1, 41)]


@dataclass
class Traffic:
    """Requests, so many at once, whose clients sometimes leave; what became of each."""

    stack: "Stack"
    rng: Random
    ended: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)  # by how far the predicted hit was from the real one

    async def goes_on(self, meanwhile: Coroutine[Any, Any, None]) -> None:
        """Till REQUESTS have ended, and `meanwhile`."""
        numbers, hurting = itertools.count(), asyncio.create_task(meanwhile)

        async def client() -> None:
            while self.ended < REQUESTS or not hurting.done():
                await self._one(next(numbers))
                self.ended += 1

        await asyncio.gather(hurting, *(client() for _ in range(AT_ONCE)))

    async def another(self, share: float) -> None:
        """So many more of REQUESTS have ended: however fast they go, what is away then is away for so many."""
        until = self.ended + share * REQUESTS
        while self.ended < until:
            await asyncio.sleep(0.01)

    async def _one(self, number: int) -> None:
        text = self.rng.choice(PREFIXES) + fixed_text(number, self.rng.randint(10, 200))
        stays, patience_s = self.rng.random() < 0.85, self.rng.random() * 0.05
        body = {
            "model": "demo",
            "prompt": text,
            "max_tokens": self.rng.randint(1, 40) if stays else 1000,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if stays:
            self.outcomes[await self._whole(body)] += 1
        else:
            with_patience = asyncio.wait_for(self._whole(body), patience_s)
            (outcome,) = await asyncio.gather(with_patience, return_exceptions=True)
            self.outcomes["left" if isinstance(outcome, TimeoutError) else str(outcome)] += 1

    async def _whole(self, body: object) -> str:
        answer = Answer()
        try:
            async with self.stack.http.post("/v1/completions", json=body) as response:
                async for chunk in response.content.iter_any():
                    answer.feed(chunk, 0.0)
                if response.status != 200:
                    return f"{response.status} {bytes(answer._data[:300])!r}"
                usage = answer.finish()
        except (aiohttp.ClientError, AnswerError) as error:
            return repr(error)
        hit = response.headers.get("x-multipick-hit-tokens", "")
        self.predicted["without" if not hit else "right" if hit == str(usage.cached_tokens) else "wrong"] += 1
        return "whole"


async def hurt(stack: "Stack", traffic: Traffic) -> None:
    """One thing after the other, in the middle of the traffic."""
    store, (victim, owner, *_) = stack.store, stack.pickers
    await traffic.another(0.1)
    await victim.kill()
    await traffic.another(0.1)
    os.kill(await ingest_of(owner), signal.SIGKILL)
    await traffic.another(0.1)
    await victim.serve()
    await traffic.another(0.15)
    await store.kill()
    await traffic.another(0.1)
    await store.start()
    await traffic.another(0.15)
    await reaped(stack)
    await store.kill()
    await traffic.another(0.05)
    shutil.rmtree(store.folder / "appendonlydir")
    await store.start()
    await traffic.another(0.05)


async def reaped(stack: "Stack") -> None:
    """The other pickers have released what the killed one had reserved."""
    async with asyncio.timeout(300):
        while not await stack.total("multipick_reaped_total"):
            await asyncio.sleep(0.1)


async def ingest_of(picker: "Picker") -> int:
    while (pid := picker.ingest_pid) is None:
        await asyncio.sleep(0.05)
    return pid


@pytest.mark.timeout(900)
async def test_no_failure_of_ours_costs_a_request(start_stack: "StartStack") -> None:
    stack = await start_stack(
        pods=PODS, pickers=PICKERS, flags=SMALL_CACHE, store={"appendonly": "yes", "appendfsync": "everysec"}
    )
    traffic = Traffic(stack, Random(1))
    await traffic.goes_on(hurt(stack, traffic))
    print(f"outcomes {dict(traffic.outcomes)}, predicted hits {dict(traffic.predicted)}")
    assert traffic.outcomes.keys() == {"whole", "left"}
    await stack.idle()
    await stack.settled()
    await stack.known()
    assert await stack.total("multipick_reserved_locally_total") > 0, "requests went on while the store was away"
    assert not [pod.endpoint for pod in stack.pods if "Traceback" in pod.said()]
    assert not [picker.port for picker in stack.pickers if "Traceback" in picker.said()]
