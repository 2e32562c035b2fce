"""The process that takes the events in is killed or stands still, or changes on a cache older than what is replayed."""

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from multipick_sim.texts import fixed_text
from stacks.truth import MODEL

if TYPE_CHECKING:
    from lab.lab import Lab
    from stacks.process import Picker

pytestmark = pytest.mark.asyncio(loop_scope="module")
SHORT = 60  # batches that can be replayed; real engines keep 10,000
LONG_TOKENS = 1600  # of a prompt whose batches can't


async def ingest_of(picker: "Picker") -> int:
    while (pid := picker.ingest_pid) is None:
        await asyncio.sleep(0.05)
    return pid


async def test_killed(lab: "Lab") -> None:
    async with lab.fault("ingest killed") as trial:
        os.kill(await ingest_of(trial.stack.pickers[0]), signal.SIGKILL)
        await trial.lasts(4)


async def test_paused(lab: "Lab") -> None:
    async with lab.fault("ingest paused 10 s") as trial:
        pid = await ingest_of(trial.stack.pickers[0])
        os.kill(pid, signal.SIGSTOP)
        await trial.lasts(10)
        os.kill(pid, signal.SIGCONT)


async def test_owners_change_on_a_large_old_cache(lab: "Lab") -> None:
    """More event batches have been than the publishers replay; then every picker is restarted, one after the other."""
    async with lab.fault("owners change on large old caches") as trial:
        stack = trial.stack
        await trial.traffic.calm()
        body = {"model": MODEL, "prompt": fixed_text(-1, LONG_TOKENS), "max_tokens": 1}
        for pod in stack.pods:
            async with stack.admin.post(f"http://{pod.endpoint}/v1/completions", json=body) as response:
                assert response.status == 200
        trial.traffic.start()
        await trial.lasts(SHORT / 5)
        for pod in stack.pods:
            await trial.sick(pod, replay_batches=SHORT)
        for picker in stack.pickers:
            await picker.stop()
            await picker.serve()
        response, answer = await stack.post("/v1/completions", body)
        hit = response.headers.get("x-multipick-hit-tokens")
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        trial.expect(hit == str(cached), f"of the old prompt {hit} tokens were predicted, {cached} were cached")
        below = [each.mode for each in trial.traffic.sent if each.probe and each.mode not in ("exact", None)]
        trial.expect(not below, f"{len(below)} decisions below exact")
