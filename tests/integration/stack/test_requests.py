"""Requests through everything that production has: Envoy, a picker, Valkey, pods that publish KV events."""

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multipick_sim.texts import fixed_text

if TYPE_CHECKING:
    from stacks.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("stack requests")]
CHAT = "/v1/chat/completions"
BLOCK = 16
seeds = itertools.count(1)  # each test's texts are new to the caches


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answered(answer: Any) -> dict[str, str]:
    return {"role": "assistant", "content": answer["choices"][0]["message"]["content"]}


def cached(answer: Any) -> int:
    found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return found


def predicted(response: aiohttp.ClientResponse) -> int:
    assert response.headers["x-multipick-mode"] == "exact"
    return int(response.headers["x-multipick-hit-tokens"])


async def test_the_predicted_hit_is_what_the_engine_reports(stack: "Stack") -> None:
    system = {"role": "system", "content": fixed_text(next(seeds), 300)}
    chats = [[system], [system], []]
    hits = []
    for messages in chats * 4:
        messages.append(user(fixed_text(next(seeds), 70)))
        response, answer = await stack.chat(messages)
        assert int(response.headers["x-multipick-prompt-tokens"]) == answer["usage"]["prompt_tokens"]
        assert predicted(response) == cached(answer)
        hits.append(cached(answer))
        messages.append(answered(answer))
    assert hits[0] == hits[2] == 0
    assert hits[1] >= 300 // BLOCK * BLOCK, "the shared system prompt"
    assert all(later > earlier for earlier, later in itertools.pairwise(hits[0::3])), "each turn hits those before"
    await stack.idle()


async def test_adapters_and_salts_have_caches_of_their_own(stack: "Stack") -> None:
    messages = [user(fixed_text(next(seeds), 100))]
    variants: list[dict[str, str]] = [{}, {"model": "tuned"}, {"cache_salt": "a"}, {"cache_salt": "b"}]
    for variant in variants:
        response, answer = await stack.chat(messages, **variant)
        assert (predicted(response), cached(answer)) == (0, 0)
    for variant in variants:
        response, answer = await stack.chat(messages, **variant)
        assert predicted(response) == cached(answer) == 100 // BLOCK * BLOCK
    await stack.idle()


NESTED = b'{"model":"demo","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HUGE = b'{"model":"demo","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"pad":"%b"}' % (b"x" * 20_000_000)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param(CHAT, b"not JSON", 400, id="no JSON"),
        pytest.param(CHAT, b"", 400, id="empty body"),
        pytest.param(CHAT, b"\xff\xfe\x00", 400, id="no text"),
        pytest.param(CHAT, b"[1, 2]", 400, id="no object"),
        pytest.param(CHAT, b'{"messages": []}', 400, id="neither model nor messages"),
        pytest.param(CHAT, b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":1}', 200, id="no model"),
        pytest.param(CHAT, b'{"model":"who","messages":[{"role":"user","content":"hi"}]}', 404, id="unknown model"),
        pytest.param(CHAT, NESTED, 400, id="deeply nested"),
        pytest.param(CHAT, HUGE, 200, id="20 MB"),
        pytest.param("/v1/nothing", b"{}", 404, id="unknown path"),
    ],
)
async def test_bad_input_is_answered(stack: "Stack", path: str, body: bytes, status: int) -> None:
    async with asyncio.timeout(60), stack.http.post(path, data=body) as response:
        said = await response.read()
        assert response.status == status, said[:500]
        if path == CHAT and status != 200:
            assert json.loads(said)["error"]["message"]
    await stack.idle()


async def test_requests_without_a_body_are_routed(stack: "Stack") -> None:
    async with stack.http.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["demo", "tuned"]
    await stack.idle()


async def test_clients_that_leave_leave_no_charge(stack: "Stack") -> None:
    """Some before the answer's headers, some in the middle of it."""

    async def leave_early(body: Any) -> None:
        request = asyncio.create_task(stack.post(CHAT, body | {"stream": False}))
        await charged()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    async def leave_late(body: Any) -> None:
        async with stack.http.post(CHAT, json=body) as response:
            await response.content.readline()
            response.close()

    async def charged() -> None:
        while not await stack.load():
            await asyncio.sleep(0.005)

    messages = [user(fixed_text(next(seeds), 200))]
    body = {"model": "demo", "messages": messages, "max_tokens": 5000, "stream": True}
    await leave_early(body)
    await stack.idle()
    await asyncio.gather(*(leave_late(body) for _ in range(20)))
    await stack.idle()
    await stack.settled()
