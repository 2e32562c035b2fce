"""What a picker says of its store and of its engines, each sick in its own way, and how it goes on with them."""

import asyncio
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.processes import held_port
from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from tests.integration.stack.conftest import StartStack

EVENTS = ("--events-port", 0, "--replay-port", 0)


def told(status: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["kind"], one["endpoint"]) for one in status["mismatches"]]


async def test_each_sick_engine_is_named_with_its_cause_until_it_is_well(
    start_stack: "StartStack", other_model: Path, tmp_path: Path
) -> None:
    keepers = [held_port() for _ in range(6)]
    ports = [port for port, _ in keepers]
    sick: list[tuple[object, ...]] = [
        ("--served-model-name", "other", *EVENTS),
        ("--tokenizer", other_model, *EVENTS),
        ("--block-size", 32, *EVENTS),
        (),
        ("--no-enable-prefix-caching", *EVENTS),
        EVENTS,
    ]
    pool = {"name": "demo", "models": ["demo"], "tokenizer": str(MODEL_DIR), "block_size": 16}
    stack = await start_stack(
        each=[("--port", port, *flags) for port, flags in zip(ports, sick, strict=True)], config={"pool": pool}
    )
    [picker] = stack.pickers

    async def ask() -> None:  # all the time: equals are chosen among at random, and what went to an engine that was
        for seed in itertools.count():  # away for a moment may have gone to another one than the one that is there now
            await stack.post("/v1/completions", {"model": "demo", "prompt": fixed_text(seed, 200), "max_tokens": 1})
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    kinds = ["model", "tokenizer", "block-size", "events", "events"]
    wanted = list(zip(kinds, [pod.endpoint for pod in stack.pods[:5]], strict=True))
    try:
        status = await stack.status(lambda found: told(found) == wanted and found["endpoints"]["checked"] == 6)
    finally:
        asking.cancel()
    words = [one["words"] for one in status["mismatches"]]
    words[1] = "; ".join(words[1].split("; ")[:2])  # of several differences the first
    assert words == [
        "it serves other, and not demo, which requests of this pool ask for",
        "a chat has 161 tokens here and 173 in the engine; they differ from token 1 on",
        "it caches blocks of 32 tokens, where the pool names 16",
        "no KV events can be had: the engine has its events off",
        "no KV event ever came, though it was sent prompts: are its events and its prefix caching on?",
    ]
    assert (status["state"], status["ingest"]) == (None, None)
    assert status["tokens"] == "local", "one engine of six differs: it is that engine's fault"
    page = await stack.metrics(picker)
    for one in status["mismatches"]:
        assert f'multipick_endpoint_mismatch{{endpoint="{one["endpoint"]}",kind="{one["kind"]}"}} 1.0' in page
        assert one["words"] in picker.said()
    assert page.count("multipick_endpoint_mismatch{") == 5

    for number, pod in enumerate(stack.pods[:5]):
        await pod.stop()
        await stack.status(lambda found: found["endpoints"]["ready"] == 5)  # one that is back too soon is the old one
        flags = ("--served-model-name", "demo", "--port", ports[number], *EVENTS)
        stack.pods[number] = type(pod)(f"well-{number}", tmp_path, ("sim", "serve", *flags))
        await stack.pods[number].serve()
        await stack.status(lambda found: found["endpoints"]["ready"] == 6)
    await stack.status(lambda found: found["endpoints"]["checked"] == 6 and not told(found))
    assert picker.said().count('"engine mismatch is over"') >= 5
    for _, keeper in keepers:
        keeper.close()


async def test_where_all_engines_make_other_tokens_they_are_asked_and_hits_are_predicted_right(
    start_stack: "StartStack", other_model: Path
) -> None:
    stack = await start_stack(flags=("--tokenizer", other_model))
    [picker] = stack.pickers
    await stack.status(lambda found: told(found) == [("tokenizer", pod.endpoint) for pod in stack.pods])
    await stack.status(lambda found: found["prompts"]["chats"] == "engine")
    assert picker.said().count('"the tokenizer is not the engines\': they are asked instead"') >= 1
    messages = [{"role": "user", "content": fixed_text(1, 300)}]
    for _ in range(2):
        response, answer = await stack.chat(messages)
        assert response.headers["x-multipick-mode"] == "exact"
        usage = answer["usage"]
        assert int(response.headers["x-multipick-prompt-tokens"]) == usage["prompt_tokens"]
        hit = int(response.headers["x-multipick-hit-tokens"])
        assert hit == usage["prompt_tokens_details"]["cached_tokens"]
    assert hit >= 300


async def test_a_store_that_is_gone_is_told_until_it_is_back(start_stack: "StartStack") -> None:
    stack = await start_stack(pods=1)
    await stack.status(lambda found: found["state"] is None and found["ingest"] is None)
    await stack.store.kill()
    away = re.compile(r"\w+: away")
    await stack.status(lambda found: all(away.fullmatch(str(found[link])) for link in ("state", "ingest")))
    await stack.store.start()
    found = await stack.status(lambda found: found["state"] is None and found["ingest"] is None)
    assert found["mismatches"] == []
