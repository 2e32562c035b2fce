"""How far a prompt is read, whatever its length or number, and that the loop goes on meanwhile."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from multipick_epp.blocks import block_keys, root_key
from multipick_epp.decision import prompts
from multipick_epp.decision.adapters import adapter_of
from multipick_epp.decision.prompts import MAX_KNOWN_PROMPTS, Blind, Known, PromptReader
from multipick_epp.extproc.pick import PickRequest
from multipick_epp.requests.prompt import TokenIds, TokenSource
from multipick_epp.requests.token_ids import MAX_TOKENS
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.tokens import Untokenised

PATH = "/v1/completions"
ROOT = root_key(b"", "m")


class Letters:
    """One token a character."""

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        return source.ids if isinstance(source, TokenIds) else [*map(ord, getattr(source, "text", ""))]


def reader(longest: int | None = None) -> PromptReader:
    return PromptReader(Letters(), ["m"], b"", lambda: [16, 64], Metrics().stage_seconds, lambda: longest)


def asked(prompt: Any, size: int | None = None) -> PickRequest:
    body = json.dumps({"prompt": prompt}).encode()
    return PickRequest("POST", PATH, {}, body, len(body) if size is None else size)


def said(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "a"} for role in roles]


async def known(prompt: Any, longest: int | None = None) -> Known:
    reading = reader(longest)
    found = await reading.read(asked(prompt))
    reading.close()
    assert isinstance(found, Known), found
    return found


@pytest.mark.parametrize("tokens", [5, 100, 32_768, 40_000, 65_537, 200_001])
async def test_keys_are_those_of_one_piece_whatever_the_length(tokens: int) -> None:
    ids = [*range(tokens)]
    [chains] = (await known(ids)).chains
    assert chains.prompt_tokens == tokens
    assert chains.by_size == {size: block_keys(ROOT, ids, size) for size in (16, 64)}


async def test_no_prompt_is_charged_or_hashed_beyond_the_models_length() -> None:
    ids = [*range(5_000)]
    [chains] = (await known(ids, longest=1_000)).chains
    assert chains.prompt_tokens == 1_000
    assert chains.by_size[16] == block_keys(ROOT, ids[:1_000], 16)


@pytest.mark.parametrize(
    ("tokens", "answer", "whole"),
    [
        (999, None, True),
        (1_000, None, False),
        (5_000, None, False),
        (499, 500, True),
        (501, 500, False),
        (983, ..., True),
        (985, ..., False),  # without a word of it, an answer may have 16
        (1, 10**30, False),
        (999, -5, True),
        (999, "many", True),
    ],
)
async def test_a_prompt_of_which_the_engine_keeps_the_end_is_not_known_by_its_beginning(
    tokens: int, answer: Any, whole: bool
) -> None:
    """It keeps as much as leaves room for the longest answer that may come."""
    asked = {} if answer is ... else {"max_tokens": answer}
    body = json.dumps({"prompt": [*range(tokens)], "truncate_prompt_tokens": -1, **asked}).encode()
    reading = reader(1_000)
    found = await reading.read(PickRequest("POST", PATH, {}, body, len(body)))
    reading.close()
    if whole:
        assert isinstance(found, Known)
    else:
        assert isinstance(found, Blind)
        assert found.reason == "truncated prompt"


async def test_without_a_length_of_the_model_a_million_tokens_are_the_most() -> None:
    reading = reader()
    found = await reading.read(PickRequest("POST", PATH, {}, b'{"prompt":[' + b"1," * 2_000_000 + b"1]}", 4_000_000))
    assert isinstance(found, Known)
    assert found.prompt_tokens == MAX_TOKENS
    assert await reading.read(PickRequest("POST", PATH, {}, None, 64 << 20)) == Blind(MAX_TOKENS, "too large to read")
    reading.close()


async def test_a_batch_is_looked_up_in_part_and_charged_in_all() -> None:
    found = await known([[7] * 100] * 1_000)
    assert len(found.chains) == MAX_KNOWN_PROMPTS + 1
    assert found.prompt_tokens == 100_000
    assert all(len(chains.by_size[16]) == 6 for chains in found.chains[:-1])
    assert found.chains[-1].by_size == {}


async def test_of_a_batch_no_more_is_hashed_than_of_one_prompt() -> None:
    found = await known([[7] * 800] * 3, longest=1_000)
    assert [len(chains.by_size[16]) for chains in found.chains] == [50, 12, 0]
    assert [chains.prompt_tokens for chains in found.chains] == [800, 800, 800]


async def test_the_loop_goes_on_while_a_large_prompt_is_read() -> None:
    reading = asyncio.create_task(reader().read(asked([*range(500_000)])))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert isinstance(reading.result(), Known)
    assert turns > 10


async def test_what_is_too_much_for_the_thread_is_routed_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_WAITING_BYTES", 1_000_000)
    reading = reader()
    request = asked([*range(100_000)])  # 700 KB
    found = await asyncio.gather(*(reading.read(request) for _ in range(5)))
    reading.close()
    assert sum(isinstance(each, Known) for each in found) == 1
    assert {each.reason for each in found if isinstance(each, Blind)} == {"too much to read"}


@pytest.mark.requirement("gateways: Without :path the API is inferred from the body.")
async def test_a_request_without_a_path_is_read_as_what_its_body_is() -> None:
    reading = reader()
    body = json.dumps({"model": "m", "prompt": [*range(100)]}).encode()
    found = await reading.read(PickRequest("", "", {}, body, len(body)))
    reading.close()
    assert isinstance(found, Known)
    assert found.chains[0].by_size == {size: block_keys(ROOT, range(100), size) for size in (16, 64)}


@pytest.mark.parametrize(
    ("path", "body", "turn"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, 0),
        ("/v1/chat/completions", {"messages": [{"role": r, "content": "a"} for r in ("user", "assistant") * 3]}, 3),
        (
            "/v1/messages",
            {"max_tokens": 9, "messages": [{"role": r, "content": "a"} for r in ("user", "assistant")]},
            1,
        ),
        ("/v1/completions", {"prompt": "abc"}, None),
    ],
)
async def test_how_many_answers_a_chat_has_in_it_is_counted_for_who_wants_it(
    path: str, body: dict[str, Any], turn: int | None
) -> None:
    data = json.dumps({"model": "m", **body}).encode()
    request = PickRequest("POST", path, {}, data, len(data))
    counting = PromptReader(Letters(), ["m"], b"", lambda: [16], Metrics().stage_seconds, counts_turns=True)
    found, uncounted = await counting.read(request), await reader().read(request)
    assert isinstance(found, Known)
    assert isinstance(uncounted, Known)
    assert (found.turn, uncounted.turn) == (turn, None)


@pytest.mark.parametrize(
    ("sglang", "model", "lora_path", "adapter"),
    [
        (True, "m", "sql", "sql"),
        (True, "m:python", "sql", "python"),
        (True, "m", ["sql", "sql"], "sql"),
        (True, "m", None, None),
        (True, "m", 7, None),
        (False, "m", "sql", None),
        (False, "python", "sql", "python"),
    ],
)
async def test_sglangs_lora_path_has_keys_and_holders_of_its_own(
    sglang: bool, model: str, lora_path: Any, adapter: str | None
) -> None:
    reading = PromptReader(Letters(), ["m"], b"", lambda: [16], Metrics().stage_seconds, lora_paths=lambda: sglang)
    body = json.dumps({"prompt": [*range(64)], "model": model, "lora_path": lora_path}).encode()
    found = await reading.read(PickRequest("POST", PATH, {}, body, len(body)))
    reading.close()
    assert isinstance(found, Known), found
    assert found.chains[0].by_size == {16: block_keys(root_key(b"", "m", adapter), range(64), 16)}
    assert adapter_of(found.model, ["m"]) == adapter


@pytest.mark.parametrize("sglang", [True, False])
async def test_prompts_with_adapters_of_their_own_are_routed_by_load_where_sglang_serves_them(sglang: bool) -> None:
    reading = PromptReader(Letters(), ["m"], b"", lambda: [16], Metrics().stage_seconds, lora_paths=lambda: sglang)
    body = json.dumps({"prompt": ["a", "b"], "lora_path": ["sql", None]}).encode()
    found = await reading.read(PickRequest("POST", PATH, {}, body, len(body)))
    reading.close()
    assert isinstance(found, Blind) == sglang
