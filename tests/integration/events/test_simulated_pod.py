"""Against a whole simulated pod: the index ends up with the pod's true cache, and a recording of it checks out."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from multipick_epp.blocks import child_key, encode_extra, root_key, token_bytes
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.ingest import Ingest
from multipick_epp.recording.cli import command
from multipick_epp.state.memory import MemoryState
from multipick_epp.types import BlockKey, Endpoint, Mode
from multipick_sim.assets import MODEL_DIR

COMMAND = (str(Path(sys.executable).with_name("multipick")), "sim", "serve", "--port", "0")
SMALL = ("--num-gpu-blocks", "65", "--max-model-len", "512", "--speed", "50", "--block-size", "16")
EVENTS = ("--events-port", "0", "--replay-port", "0")


@pytest.fixture
async def pod(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a pod; the parameter has further flags."""
    flags = getattr(request, "param", ())
    process = await asyncio.create_subprocess_exec(*COMMAND, *EVENTS, "--dev", *flags, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        address = re.search(r"http://\S+:\d+", line)
        assert address, line
        yield address[0]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def root(lora: str | None) -> BlockKey:
    return root_key(b"", "sim", lora)


async def true_keys(session: aiohttp.ClientSession, url: str) -> set[BlockKey]:
    """What the pod holds, as our keys: from tokens, parents, adapters and extras, without any event."""
    async with session.get(f"{url}/sim/cache") as response:
        ranks = await response.json()
    blocks = {block["hash"]: block for rank in ranks.values() for block in rank}
    return {key for block in blocks.values() if (key := _key(block, blocks)) is not None}


def _key(block: dict[str, Any], blocks: dict[int, dict[str, Any]]) -> BlockKey | None:
    lora = block["lora_name"]
    if block["parent"] is None:
        parent: BlockKey | None = root(lora)
    else:
        parent = _key(blocks[block["parent"]], blocks) if block["parent"] in blocks else None
    if parent is None:
        return None  # the block before it was evicted: nothing can hit it, and its key can't be told from here
    values = [value for value in block["extra_keys"] or () if value != lora]
    return child_key(parent, token_bytes(block["token_ids"]), encode_extra(values))


def indexed_keys(ingest: Ingest, endpoint: Endpoint) -> set[BlockKey]:
    incarnation = ingest._feeds[endpoint].incarnation
    assert incarnation is not None
    return {key for contents in incarnation.tracker._contents.values() for key in contents.copies}


@pytest.mark.parametrize("pod", [(*SMALL, "--lora", "ad1"), (*SMALL, "--event-format", "array")], indirect=True)
async def test_the_index_ends_up_with_what_the_pod_holds(pod: str, eventually: Any) -> None:
    """Overlapping chats on a pool of 64 blocks: hits, copies, evictions, preemptions, salts, adapters, resets."""
    rng = Random(3)
    endpoint = Endpoint(pod.removeprefix("http://"))
    ingest = Ingest(MemoryState(), root, Ports())
    await ingest.start()
    ingest.follow([FeedSpec(endpoint)])
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{pod}/v1/models") as response:
                models = [model["id"] for model in (await response.json())["data"]]

            async def complete() -> None:
                ids = [rng.randrange(2) + 300 for _ in range(rng.choice([1, 2, 3, 5]))] * 16
                body = {"model": rng.choice(models), "prompt": sorted(ids), "max_tokens": rng.choice([1, 1, 40])}
                if rng.random() < 0.2:
                    body["cache_salt"] = rng.choice(["a", "b"])
                async with session.post(f"{pod}/v1/completions", json=body) as response:
                    assert response.status == 200, await response.text()

            for _ in range(12):
                await asyncio.gather(*(complete() for _ in range(12)))
                if rng.random() < 0.15:
                    await session.post(f"{pod}/reset_prefix_cache")
            await complete()
            truth = await true_keys(session, pod)
            async with session.get(f"{pod}/sim/cache") as response:
                held = sum(len(rank) for rank in (await response.json()).values())
        assert len(truth) > 5
        await eventually(lambda: truth <= indexed_keys(ingest, endpoint) and ingest.stats()[0].blocks == held)
        assert ingest.stats()[0].mode is Mode.EXACT
    finally:
        await ingest.close()


@pytest.mark.parametrize("pod", [("--num-gpu-blocks", "400", "--speed", "50")], indirect=True)
async def test_a_recording_of_it_is_predicted_exactly(
    pod: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recorded"
    make = ["make", "--url", pod, "--out", str(folder), "--settle", "0.5"]
    assert await asyncio.to_thread(command, make) == 0
    rows = tmp_path / "rows.json"
    check = ["check", str(folder), "--tokenizer", str(MODEL_DIR), "--json", str(rows)]
    assert await asyncio.to_thread(command, check) == 0, capsys.readouterr().out
    (result,) = json.loads(rows.read_text())
    assert (result["different"], result["exempt"]) == (0, 0)
    hits = {row["step"]: row["predicted"] for row in result["requests"]}
    assert hits["repeat"] > 600
    assert hits["salted again"] > 600
    assert hits["salted"] == hits["cold"] == hits["whole blocks"] == 0
    assert 300 < hits["other end"] <= 400
    assert hits["next turn"] > hits["chat"]
    assert (folder / "metrics_00_start.txt").read_text().startswith("vllm:")


@pytest.mark.parametrize(
    "pod", [("--speed", "50", "--data-parallel-size", "2", "--data-parallel-rank", "8")], indirect=True
)
async def test_a_recording_of_two_ranks_is_predicted_by_rank(pod: str, tmp_path: Path) -> None:
    def step(name: str, seed: int, rank: str | None) -> dict[str, object]:
        request = {"model": "sim", "prompt": [seed] * 100, "max_tokens": 1}
        return {
            "step": name,
            "path": "/v1/completions",
            "request": request,
            "req_headers": {} if rank is None else {"X-data-parallel-rank": rank},
        }

    steps = [
        step("new to the second", 5, "1"),
        step("held by the second", 5, "1"),
        step("new to the first", 5, "0"),
        step("held by both, and one is chosen", 5, None),
        step("new to both, and one is chosen", 6, None),
        step("held by one, and one is chosen", 6, None),
        step("held by the first", 5, "0"),
    ]
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps(each) + "\n" for each in steps))
    folder, rows = tmp_path / "recorded", tmp_path / "rows.json"
    make = ["make", "--url", pod, "--out", str(folder), "--requests", str(requests), "--settle", "0.5"]
    assert await asyncio.to_thread(command, make) == 0
    assert json.loads((folder / "manifest.json").read_text())["ranks"] == [8, 9]
    assert await asyncio.to_thread(command, ["check", str(folder), "--json", str(rows)]) == 0
    (result,) = json.loads(rows.read_text())
    assert (result["equal"], result["different"], result["exempt"]) == (6, 0, 1)
    found = {row["step"]: (row["predicted"], row["reported"]) for row in result["requests"]}
    assert found["held by the second"] == found["held by both, and one is chosen"] == (96, 96)
    assert found["new to the first"] == (0, 0)
    (exempt,) = [row for row in result["requests"] if row["exempt"]]
    assert exempt["step"] == "held by one, and one is chosen"


@pytest.mark.parametrize("pod", [("--speed", "50")], indirect=True)
async def test_a_users_own_requests_are_recorded_without_their_secrets(pod: str, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    step = {
        "step": "mine",
        "path": "/v1/completions",
        "request": {"model": "sim", "prompt": [5] * 40, "max_tokens": 1},
        "req_headers": {"Authorization": "Bearer hush", "x-trace": "7"},
    }
    requests.write_text(json.dumps(step) + "\n")
    folder = tmp_path / "recorded"
    make = ["make", "--url", pod, "--out", str(folder), "--requests", str(requests), "--settle", "0.5"]
    assert await asyncio.to_thread(command, make) == 0
    (recorded,) = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert recorded["req_headers"] == {"x-trace": "7"}
    assert recorded["status"] == 200
    assert recorded["msg_range"][1] > 0
    assert "hush" not in "".join(file.read_text(errors="replace") for file in folder.iterdir())
    assert await asyncio.to_thread(command, make) == 2  # the folder exists


async def test_nothing_to_record_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = ["make", "--url", "http://127.0.0.1:9", "--out", str(tmp_path / "out")]
    assert await asyncio.to_thread(command, make) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
