"""The ids that we make of a request are those that a real engine made of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt
from multipick_epp.tokens import Tokenizer

FIXTURES = Path(__file__).parents[2] / "fixtures"
PROMPT_PATHS = {
    "/v1/chat/completions": "/v1/chat/completions",
    "/v1/completions": "/v1/completions",
    "/v1/chat/completions/render": "/v1/chat/completions",
    "/v1/completions/render": "/v1/completions",
    "/inference/v1/generate": "/inference/v1/generate",
}


def exchanges() -> Iterator[tuple[str, str, dict[str, Any], Any, list[Any]]]:
    """Scenario, path, request, response and server-sent events of each answered request."""
    for scenario in ("A_sha256_bs32_31blocks", "C_default_bs128_lora", "D_xxhash_bs32_seed42", "F_restart"):
        for line in (FIXTURES / scenario / "steps.jsonl").read_text().splitlines():
            step = json.loads(line)
            for one in step.get("parallel") or [step]:
                if one.get("method") == "POST" and one["status"] == 200 and isinstance(one["request"], dict):
                    yield (
                        f"{scenario} {step['step']}",
                        one["path"],
                        one["request"],
                        one.get("response"),
                        one.get("sse") or [],
                    )


def reported_ids(response: Any) -> list[int] | None:
    if isinstance(response, list):
        response = response[0]
    for key in ("tokens", "token_ids", "prompt_token_ids"):
        if isinstance(response, dict) and response.get(key) is not None:
            ids: list[int] = response[key]
            return ids
    return None


def reported_count(response: Any, sse: list[Any]) -> int | None:
    chunks = [json.loads(line[6:]) for _, line in sse if line.startswith("data: {")]
    usages = [chunk.get("usage") for chunk in [response, *chunks] if isinstance(chunk, dict)]
    counts = [usage["prompt_tokens"] for usage in usages if usage]
    return counts[-1] if counts else None


CASES = [
    pytest.param(PROMPT_PATHS[path], request, reported_ids(response), reported_count(response, sse), id=name)
    for name, path, request, response, sse in exchanges()
    if path in PROMPT_PATHS and (reported_ids(response) or reported_count(response, sse))
]
TOKENIZE = [
    pytest.param("/v1/chat/completions" if "messages" in request else "/v1/completions", request, response, id=name)
    for name, path, request, response, _ in exchanges()
    if path == "/tokenize"
]


def test_there_are_enough_recordings() -> None:
    assert len(CASES) > 60
    assert len(TOKENIZE) == 9


@pytest.mark.parametrize(("path", "request_body", "ids", "count"), CASES)
async def test_a_request_becomes_the_ids_that_the_engine_reported(
    tokenizer: Tokenizer, path: str, request_body: dict[str, Any], ids: list[int] | None, count: int | None
) -> None:
    prompt = parse(path, {}, json.dumps(request_body).encode())
    assert isinstance(prompt, Prompt)
    made = await tokenizer.encode(prompt.source)
    assert not hasattr(made, "reason")
    if ids is not None:
        assert list(made) == ids
    if count is not None:
        assert len(made) == count


@pytest.mark.parametrize(("path", "request_body", "response"), TOKENIZE)
async def test_the_engines_tokenize_gives_the_same_ids(
    tokenizer: Tokenizer, path: str, request_body: dict[str, Any], response: dict[str, Any]
) -> None:
    prompt = parse(path, {}, json.dumps(request_body).encode())
    assert isinstance(prompt, Prompt)
    made = await tokenizer.encode(prompt.source)
    assert not hasattr(made, "reason")
    assert list(made) == response["tokens"]
    assert len(made) == response["count"]
