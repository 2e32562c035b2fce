"""KV events of a simulated pod: framing, replay, and an index built from them that equals the true cache."""

import asyncio
import re
from collections import Counter
from random import Random
from typing import Any

import pytest
import zmq
import zmq.asyncio
from multipick_sim.local.processes import held_port
from multipick_sim.texts import fixed_text

TINY = ("--num-gpu-blocks", "5", "--max-model-len", "64")


async def settled(pod: Any) -> list[dict[str, Any]]:
    """The true cache, when nothing is in flight."""
    assert (await pod.get("/load"))[1] == {"server_load": 0}
    _, ranks = await pod.get("/sim/cache")
    cache = ranks["0"]
    assert isinstance(cache, list)
    return cache


def rebuild(decode: Any, batches: list[tuple[int, bytes]]) -> tuple[Counter[int], dict[int, Any]]:
    """Copies by hash, and what each block holds, from events alone."""
    copies: Counter[int] = Counter()
    contents: dict[int, Any] = {}
    for _, payload in batches:
        for event in decode(payload)[1]:
            match event["type"]:
                case "AllBlocksCleared":
                    copies.clear()
                case "BlockRemoved":
                    copies.subtract(event["block_hashes"])
                case "BlockStored":
                    copies.update(event["block_hashes"])
                    parent, size = event["parent_block_hash"], event["block_size"]
                    assert parent is None or copies[parent] > 0
                    for index, hash_ in enumerate(event["block_hashes"]):
                        ids = event["token_ids"][index * size : (index + 1) * size]
                        contents[hash_] = (parent, ids, event["lora_name"], event["extra_keys"][index])
                        parent = hash_
        assert min(copies.values(), default=0) >= 0
    return +copies, contents


async def test_live_batches_are_numbered_without_gaps_and_replayed_byte_for_byte(
    start: Any, subscribe: Any, tools: Any
) -> None:
    pod = await start()
    source = (await pod.sources())["0"]
    live = subscribe(source["endpoint"])
    await live.join(pod)
    for seed in range(5):
        await pod.complete(fixed_text(seed, 40), max_tokens=20)
    again = await tools.replay(source["replay_endpoint"], 0)
    await live.receive_until(again[-1][0])
    assert [number for number, _ in again] == list(range(len(again)))
    assert live.batches == again[live.batches[0][0] :]
    tail = await tools.replay(source["replay_endpoint"], again[-1][0])
    assert tail == again[-1:]
    assert await tools.replay(source["replay_endpoint"], again[-1][0] + 1) == []


async def test_a_pod_on_an_ipv6_address_publishes_there_too(start: Any) -> None:
    pod = await start("--host", "::1")
    assert re.fullmatch(r"http://\[::1\]:\d+", pod.url)
    await pod.complete([7] * 16)
    [source] = (await pod.sources()).values()
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as dealer, context.socket(zmq.SUB) as sub:
        for socket, address in ((dealer, "replay_endpoint"), (sub, "endpoint")):
            socket.linger = 0
            socket.setsockopt(zmq.IPV6, 1)
            socket.connect(source[address].replace("*", "[::1]"))
        sub.subscribe("")
        await dealer.send_multipart([b"", (0).to_bytes(8, "big")])
        *_, number, _ = await asyncio.wait_for(dealer.recv_multipart(), 10)
        assert number == (0).to_bytes(8, "big")
        live = asyncio.ensure_future(sub.recv_multipart())
        async with asyncio.timeout(10):
            for token in range(100, 10_000):  # a subscription takes a moment to reach the publisher
                await pod.complete([token] * 16)
                if live.done():
                    break
        assert (await live)[0] == b"kv"


async def test_events_of_one_request_are_vllms(start: Any, tools: Any) -> None:
    pod = await start("--lora", "ad1", *TINY)
    _, tokens = await pod.post("/tokenize", {"prompt": fixed_text(1, 33)})
    await pod.complete(tokens["tokens"], model="ad1", cache_salt="s")
    await pod.complete(fixed_text(2, 48))
    (first, second) = await tools.replay((await pod.sources())["0"]["replay_endpoint"], 0)
    _, events, rank = tools.decode(first[1])
    hashes = events[0]["block_hashes"]
    assert (events, rank) == (
        [
            {
                "type": "BlockStored",
                "block_hashes": hashes,
                "parent_block_hash": None,
                "token_ids": tokens["tokens"][:32],
                "block_size": 16,
                "lora_id": 1,
                "medium": "GPU",
                "lora_name": "ad1",
                "extra_keys": [["ad1", "s"], ["ad1"]],
                "group_idx": 0,
                "kv_cache_spec_kind": "full_attention",
            }
        ],
        0,
    )
    _, events, _ = tools.decode(second[1])
    assert events[0] == {"type": "BlockRemoved", "block_hashes": [hashes[1]], "medium": "GPU", "group_idx": 0}
    assert events[1]["extra_keys"] == [None, None, None]


async def test_the_array_form_is_that_of_older_releases(start: Any, tools: Any) -> None:
    pod = await start("--event-format", "array", *TINY)
    await pod.complete(fixed_text(1, 33), cache_salt="s")
    assert (await pod.post("/reset_prefix_cache"))[1] == {"success": True}
    await pod.complete(fixed_text(2, 48))
    await pod.complete(fixed_text(3, 48))
    batches = [
        tools.decode(payload)[1] for _, payload in await tools.replay((await pod.sources())["0"]["replay_endpoint"], 0)
    ]
    name, hashes, parent, ids, *rest = batches[0][0]
    assert (name, len(hashes), parent, len(ids)) == ("BlockStored", 2, None, 32)
    assert rest == [16, None, "GPU", None, [["s"], None], 0, "full_attention", None]
    assert batches[1][0] == ["AllBlocksCleared"]
    assert batches[2][0] == ["BlockRemoved", [batches[1][1][1][2]], "GPU", 0]


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_index_built_from_events_equals_the_true_cache(start: Any, tools: Any, seed: int) -> None:
    """Shared prefixes, evictions, duplicates and clients that leave, all at once."""
    pod = await start(*tools.small, "--lora", "ad1")
    random = Random(seed)

    async def client() -> None:
        for _ in range(6):
            shared, own = random.choice([0, 32, 64, 96]), random.choice([0, 5, 40])
            prompt = fixed_text(random.randrange(3), shared) + fixed_text(random.randrange(1000), own) + " go"
            body = {"prompt": prompt, "max_tokens": random.randint(1, 80), "model": random.choice(["sim", "ad1"])}
            request = asyncio.create_task(pod.post("/v1/completions", body))
            if random.random() < 0.2:
                done, _ = await asyncio.wait([request], timeout=random.random() / 20)
                if not done:
                    request.cancel()
            await asyncio.wait([request])

    await asyncio.gather(*(client() for _ in range(12)))
    while (await pod.get("/load"))[1] != {"server_load": 0}:
        await asyncio.sleep(0.01)
    # One more: what an aborted request's last step did goes out at that step's end.
    await pod.complete("the last one")
    truth = await settled(pod)
    batches = await tools.replay((await pod.sources())["0"]["replay_endpoint"], 0)
    copies, contents = rebuild(tools.decode, batches)
    assert copies == {block["hash"]: block["copies"] for block in truth}
    for block in truth:
        assert contents[block["hash"]] == (
            block["parent"],
            block["token_ids"],
            block["lora_name"],
            block["extra_keys"],
        )
    assert len(truth) > 40
    assert any(event["type"] == "BlockRemoved" for _, payload in batches for event in tools.decode(payload)[1])


async def test_a_reset_is_told_with_the_next_requests_events(start: Any, tools: Any) -> None:
    pod = await start()
    replay_endpoint = (await pod.sources())["0"]["replay_endpoint"]
    await pod.complete(fixed_text(1, 40))
    assert (await pod.post("/reset_prefix_cache"))[1] == {"success": True}
    assert await settled(pod) == []
    assert len(await tools.replay(replay_endpoint, 0)) == 1
    again = await pod.complete(fixed_text(1, 40))
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    _, (_, payload) = await tools.replay(replay_endpoint, 0)
    assert [event["type"] for event in tools.decode(payload)[1]] == ["AllBlocksCleared", "BlockStored"]


async def test_a_full_report_makes_a_late_index_complete(start: Any, tools: Any) -> None:
    pod = await start()
    replay_endpoint = (await pod.sources())["0"]["replay_endpoint"]
    await pod.complete(fixed_text(1, 40))
    await pod.complete(fixed_text(1, 40), vllm_xargs={"kv_cache_report_mode": "full"})
    (_, first), (_, second) = await tools.replay(replay_endpoint, 0)
    assert tools.decode(first)[1] == tools.decode(second)[1]


async def test_each_rank_has_its_own_engine_and_events(start: Any, subscribe: Any, tools: Any) -> None:
    pod = await start("--data-parallel-size", "2")
    sources = await pod.sources()
    assert list(sources) == ["0", "1"]
    rank_0, rank_1 = [{"X-data-parallel-rank": rank} for rank in sources]
    body = {"prompt": fixed_text(1, 40), "max_tokens": 1}
    hits = []
    for headers in (rank_0, rank_1, rank_0, rank_1):
        _, answer = await pod.post("/v1/completions", body, **headers)
        hits.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert hits == [0, 0, 32, 32]
    for rank, source in sources.items():
        ((number, payload),) = await tools.replay(source["replay_endpoint"], 0)
        assert (number, tools.decode(payload)[2]) == (0, int(rank))
    live = subscribe(sources["1"]["endpoint"])
    await live.join(pod, **rank_1)
    assert tools.decode(live.batches[0][1])[2] == 1


@pytest.mark.parametrize("number", ["2", "-1", "99999999999"])
async def test_a_rank_that_is_not_there_is_refused_in_vllms_words(start: Any, number: str) -> None:
    pod = await start("--data-parallel-size", "2", "--data-parallel-rank", "8")
    body = {"prompt": "x", "max_tokens": 1}
    status, answer = await pod.post("/v1/completions", body, **{"X-data-parallel-rank": number})
    assert (status, answer["error"]["type"]) == (400, "BadRequestError")
    assert answer["error"]["message"] == f"data_parallel_rank {number} is out of range [0, 2)."


async def test_ranks_of_a_later_pod_of_a_group_are_numbered_over_all_but_asked_for_by_its_own_count(start: Any) -> None:
    pod = await start("--data-parallel-size", "2", "--data-parallel-rank", "8")
    assert list(await pod.sources()) == ["8", "9"]
    _, metrics = await pod.get("/metrics")
    assert {*re.findall(r'vllm:num_requests_running\{engine="(\d)"', metrics)} == {"8", "9"}
    body = {"prompt": fixed_text(1, 40), "max_tokens": 1}
    await pod.post("/v1/completions", body, **{"X-data-parallel-rank": "1"})
    _, cached = await pod.get("/sim/cache")
    assert {rank: bool(blocks) for rank, blocks in cached.items()} == {"8": False, "9": True}


async def test_a_rank_publishes_at_the_ports_of_rank_0_and_its_number(start: Any) -> None:
    (events, events_keeper), (replay, replay_keeper) = held_port(), held_port()
    with events_keeper, replay_keeper:
        ports = ("--events-port", str(events - 3), "--replay-port", str(replay - 3))
        pod = await start("--data-parallel-rank", "3", *ports)
        (source,) = (await pod.sources()).values()
        assert source["endpoint"].endswith(f":{events}")
        assert source["replay_endpoint"].endswith(f":{replay}")


@pytest.mark.parametrize("number", [None, "", "one", "1.0"])
async def test_without_a_number_the_least_loaded_rank_serves(start: Any, number: str | None) -> None:
    pod = await start("--data-parallel-size", "2", "--speed", "1")
    headers = {} if number is None else {"X-data-parallel-rank": number}
    long = {"prompt": fixed_text(1, 40), "max_tokens": 5000, "ignore_eos": True}
    held = asyncio.create_task(pod.post("/v1/completions", long, **{"X-data-parallel-rank": "0"}))
    try:
        while 'vllm:num_requests_running{engine="0",model_name="sim"} 1.0' not in (await pod.get("/metrics"))[1]:
            assert not held.done(), held.result()
        for seed in range(2, 6):
            body = {"prompt": fixed_text(seed, 40), "max_tokens": 1}
            assert (await pod.post("/v1/completions", body, **headers))[0] == 200
        _, cached = await pod.get("/sim/cache")
        assert len(cached["1"]) == 4 * 2, "all four went to the idle one"
    finally:
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)


async def test_a_pod_without_events_says_so(plain_pod: Any) -> None:
    assert await plain_pod.sources() == {}
