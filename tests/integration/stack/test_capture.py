"""Own traffic, captured from real requests through Envoy, and replayed on the simulator: it does there what it did."""

import asyncio
import json
import os
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from multipick_epp.policy.registry import policy
from multipick_sim.assets import MODEL_DIR
from multipick_sim.engine.presets import DEFAULT_PRESET
from multipick_sim.replay.run import Replay
from multipick_sim.replay.setup import Setup
from multipick_sim.texts import fixed_text
from multipick_sim.workloads.formats import read_workload
from multipick_sim.workloads.workload import Workload
from stacks.process import eventually

if TYPE_CHECKING:
    from multipick_sim.local.bootstrap import Style
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

SECRET = "CAPTURE_TEST_SECRET"
PODS = 2


def picker_config(folder: Path, **more: Any) -> dict[str, Any]:
    pool = {"name": "demo", "models": ["demo"], "tokenizer": str(MODEL_DIR), "secret_env": SECRET}
    return {"pool": pool, "capture": {"path": str(folder)}, **more}


async def chats(stack: "Stack") -> float:
    """Twelve chats over three system prompts, some turns each, one request at a time: the engines' own hit rate."""
    rng = Random(7)
    prompt_tokens = cached_tokens = 0
    for chat in range(12):
        messages = [
            {"role": "system", "content": fixed_text(chat % 3, 2000 + 500 * (chat % 3))},
            {"role": "user", "content": fixed_text(100 + chat, rng.randrange(20, 300))},
        ]
        for turn in range(rng.randrange(1, 5)):
            streams = bool((chat + turn) % 2)
            body = {"model": "demo", "messages": messages, "max_tokens": rng.randrange(20, 60), "ignore_eos": True}
            if streams:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            await counted(stack)
            async with stack.http.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200
                text, usage = told(await response.read(), streams)
            prompt_tokens += usage["prompt_tokens"]
            cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": fixed_text(1000 + 10 * chat + turn, rng.randrange(20, 300))},
            ]
    return cached_tokens / prompt_tokens


async def counted(stack: "Stack") -> None:
    """The index has as many blocks as the pods: their keys, under a secret, are not those that `settled` knows."""

    async def differs() -> object:
        for pod in stack.pods:
            [blocks] = (await stack.get(f"http://{pod.endpoint}/sim/cache")).values()
            caches = await stack.get(f"{stack.pickers[0].url}/index/{pod.endpoint}")
            if len(blocks) != sum(cache["blocks"] for cache in caches):
                return pod.endpoint, len(blocks), caches
        return None

    await eventually(differs)


def told(answer: bytes, streams: bool) -> tuple[str, dict[str, Any]]:
    if not streams:
        whole = json.loads(answer)
        return whole["choices"][0]["message"]["content"], whole["usage"]
    events = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: {")]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    return text, events[-1]["usage"]


async def ask(stack: "Stack", seed: int) -> None:
    body = {"model": "demo", "prompt": fixed_text(seed, 50), "max_tokens": 2}
    response, answer = await stack.post("/v1/completions", body)
    assert response.status == 200, answer


def replayed(workload: Workload) -> float:
    """The hit rate of the same requests on as many modelled engines."""
    setup = Setup(pods=PODS, preset=DEFAULT_PRESET)
    flights = Replay(workload, policy("lmetric"), setup, 1.0, 0).run().flights
    return sum(each.cached_tokens for each in flights) / sum(each.item.prompt_tokens for each in flights)


@pytest.mark.parametrize("style", ["standalone", "gateway"])
async def test_captured_traffic_replayed_hits_what_it_hit(
    style: "Style", start_stack: "StartStack", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "s")
    folder = tmp_path / "capture"
    stack = await start_stack(style, pods=PODS, config=picker_config(folder))
    hit_rate = await chats(stack)
    await stack.idle()
    await stack.pickers[0].stop()

    workload = read_workload(folder)
    lines = [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]
    sources = {line["output_from"] for line in lines}
    assert hit_rate > 0.5
    assert replayed(workload) == pytest.approx(hit_rate, abs=0.01)
    assert {line["turn"] for line in lines} == {0, 1, 2, 3}
    if style == "gateway":  # bodies pass the picker
        assert sources == {"usage"}
        assert all(20 <= line["output_length"] < 60 for line in lines)
    else:
        assert sources <= {"steps", "unknown"}


async def test_a_folder_that_cannot_be_written_costs_no_request_and_is_told(
    start_stack: "StartStack", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "s")
    blocker = tmp_path / "capture"
    blocker.write_text("a file where the folder should be")
    stack = await start_stack(pods=1, config=picker_config(blocker))
    for number in range(3):
        await ask(stack, number)
    await stack.status(lambda found: found["capture"] == "File exists")
    await has_line(stack, 'multipick_capture_lost_total{reason="disk"} 3.0')  # all that were answered meanwhile
    blocker.unlink()
    await ask(stack, 9)
    await stack.status(lambda found: found["capture"] is None)
    await has_line(stack, "multipick_captured_total 1.0")
    assert 'multipick_capture_lost_total{reason="disk"} 3.0' in await stack.metrics(stack.pickers[0])
    assert os.listdir(blocker)


async def has_line(stack: "Stack", line: str) -> None:
    """Wait until the picker's metrics have this line."""
    async with asyncio.timeout(30):
        while line not in await stack.metrics(stack.pickers[0]):
            await asyncio.sleep(0.02)
