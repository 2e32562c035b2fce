"""The engine model does what a real vLLM 0.32 did: same hits, same events, same order of blocks."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from multipick_sim.engine.costs import Costs
from multipick_sim.engine.engine import Engine
from multipick_sim.engine.values import Cleared, Event, Limits, Removed, Request, Step, Stored

RECORDINGS = Path(__file__).parents[2] / "fixtures"
COSTS = Costs(fixed_s=1.0, weights_s=0.0, token_s=0.0, exchange_s=0.0, pair_s=0.0, context_s=0.0)
Json = dict[str, Any]


def lines(recording: str, name: str) -> list[Json]:
    return [json.loads(line) for line in (RECORDINGS / recording / name).read_text().splitlines()]


def engine(blocks: int, size: int, model_len: int) -> Engine:
    return Engine(Limits(blocks, size, max_num_seqs=128, max_num_batched_tokens=2048, max_model_len=model_len), COSTS)


def chain(tokens: Sequence[object], size: int, root: object) -> list[int]:
    hashes: list[int] = []
    for start in range(0, len(tokens) - size + 1, size):
        root = hash((root, tuple(tokens[start : start + size])))
        hashes.append(root)
    return hashes


def requests(step: Json, size: int) -> list[Request]:
    """The completions of a recorded step. Answer tokens have names of their own: no later prompt repeats them."""
    made = []
    for index, exchange in enumerate(step.get("parallel") or [step]):
        body = exchange["request"]
        answer = [f"{step['step']}/{index}/{place}" for place in range(body["max_tokens"])]
        made.append(
            Request(
                request_id=f"{step['step']}/{index}",
                prompt_tokens=len(body["prompt"]),
                output_tokens=body["max_tokens"],
                block_hashes=chain(body["prompt"] + answer[:-1], size, (body["model"], body.get("cache_salt"))),
                report_hits=body.get("vllm_xargs", {}).get("kv_cache_report_mode") == "full",
            )
        )
    return made


def cached_tokens(step: Json) -> list[int | None]:
    """What the engine reported; None for a stream without usage."""
    reported: list[int | None] = []
    for exchange in step.get("parallel") or [step]:
        bodies = [exchange.get("response")] + [
            json.loads(line[6:]) for _, line in exchange.get("sse", []) if line.startswith("data: {")
        ]
        usages = [body["usage"] for body in bodies if body and body.get("usage")]
        reported.append(usages[-1]["prompt_tokens_details"]["cached_tokens"] if usages else None)
    return reported


def flat(events: Iterator[Event]) -> list[tuple[str, int | None, int | None]]:
    """Events block by block: (what, block, parent)."""
    blocks: list[tuple[str, int | None, int | None]] = []
    for event in events:
        match event:
            case Stored(hashes=hashes, parent=parent):
                blocks += [("stored", new, old) for old, new in zip([parent, *hashes[:-1]], hashes, strict=True)]
            case Removed(hashes=hashes):
                blocks += [("removed", hash_, None) for hash_ in hashes]
            case Cleared():
                blocks.append(("cleared", None, None))
    return blocks


def recorded(messages: Sequence[Json]) -> list[list[tuple[str, int | None, int | None]]]:
    def event(raw: Json) -> Event:
        if raw["type"] == "BlockStored":
            return Stored("", 0, raw["block_hashes"], raw["parent_block_hash"])
        return Removed(raw["block_hashes"]) if raw["type"] == "BlockRemoved" else Cleared()

    return [flat(event(raw) for raw in message["batch"][1]) for message in messages]


class Names:
    """Two engines' hashes stand for the same blocks if one maps onto the other, one to one."""

    def __init__(self) -> None:
        self.theirs: dict[int | None, int | None] = {None: None}
        self.ours: dict[int | None, int | None] = {None: None}

    def same(self, ours: int | None, theirs: int | None) -> bool:
        return self.theirs.setdefault(ours, theirs) == theirs and self.ours.setdefault(theirs, ours) == ours


def play(
    engine: Engine, made: list[Request], groups: Sequence[int], abort_at_tokens: int | None = None
) -> tuple[list[int], list[Step]]:
    """Submit `groups[0]` requests, do a step, submit the next group, …; then run to the end."""
    steps: list[Step] = []
    waiting = iter(made)
    for size in groups:
        for _ in range(size):
            engine.submit(next(waiting), engine.now)
        steps.append(engine.step())
    while engine.busy:
        steps.append(engine.step())
        if abort_at_tokens and (engine.generated(made[0].request_id) or 0) >= abort_at_tokens:
            engine.abort(made[0].request_id)
    engine.pool.check()
    hits = {admission.request_id: admission.hit_tokens for step in steps for admission in step.admitted}
    return [hits[request.request_id] for request in made], steps


def test_recording_a_from_its_first_reset_to_its_abort() -> None:
    """Hit cap, decode-time stores, salts, equal requests at once, eviction, duplicates, preemption, abort."""
    steps = lines("A_sha256_bs32_31blocks", "steps.jsonl")
    messages = lines("A_sha256_bs32_31blocks", "events.jsonl")
    first = next(i for i, step in enumerate(steps) if step["step"] == "reset")
    last = next(i for i, step in enumerate(steps) if step["step"].startswith("15b"))
    # How the requests of a step fell into engine steps, as the recorded batches show.
    arrivals = {"8b parallel distinct x3": [1, 2], "13 preemption 3x(250+150)": [1, 2]}
    model, names, compared = engine(32, 32, 960), Names(), 0
    for step in steps[first : last + 1]:
        if step.get("path", "").startswith("/reset_prefix_cache"):
            assert model.reset_prefix_cache()
            continue
        made = requests(step, 32)
        if step["step"] == "9 n=2":
            made.append(Request("second choice", 100, 2, made[0].block_hashes))
        hits, done = play(
            model, made, arrivals.get(step["step"], [len(made)]), 4 if step["step"].startswith("14") else None
        )
        for ours, theirs in zip(hits, cached_tokens(step), strict=False):
            assert theirs is None or step["step"] == "9 n=2" or ours == theirs, step["step"]
        ours_batches = [batch for done_step in done if (batch := flat(iter(done_step.events)))]
        theirs_batches = recorded(messages[slice(*step["msg_range"])])
        assert [[what for what, *_ in batch] for batch in ours_batches] == [
            [what for what, *_ in batch] for batch in theirs_batches
        ], step["step"]
        for ours_batch, theirs_batch in zip(ours_batches, theirs_batches, strict=True):
            for (_, *our_hashes), (_, *their_hashes) in zip(ours_batch, theirs_batch, strict=True):
                assert all(map(names.same, our_hashes, their_hashes)), step["step"]
                compared += 1
    assert compared == 202


@pytest.mark.parametrize(
    ("recording", "blocks", "size", "model_len"),
    [("C_default_bs128_lora", 2048, 128, 16_384), ("D_xxhash_bs32_seed42", 200, 32, 4096)],
)
def test_cached_tokens_of_sequential_requests(recording: str, blocks: int, size: int, model_len: int) -> None:
    model, checked = engine(blocks, size, model_len), 0
    for step in lines(recording, "steps.jsonl"):
        if step.get("path") == "/reset_prefix_cache":
            assert model.reset_prefix_cache()
        elif step.get("path") == "/v1/completions" and step["status"] == 200:
            hits, _ = play(model, requests(step, size), [1])
            assert hits == cached_tokens(step), step["step"]
            checked += 1
    assert checked >= 5
