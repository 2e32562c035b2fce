"""The load client against a server that answers, refuses, cuts and vanishes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multipick_sim.traffic.client import Target, drive
from multipick_sim.traffic.plan import Message, Session, Turn
from multipick_sim.traffic.records import Record

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[Target]]
HEADERS = {
    "x-multipick-endpoint": "10.0.0.1:8000",
    "x-multipick-hit-tokens": "32",
    "x-multipick-prompt-tokens": "39",
    "x-multipick-mode": "exact",
}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []

    async def start(handler: Handler) -> Target:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", handler)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return Target(str(servers[-1].make_url("")).rstrip("/"), "m", speed=1000.0)

    yield start
    for server in servers:
        await server.close()


def talk(*waits: float, start_s: float = 0.0) -> Session:
    return Session(start_s, tuple(Turn(wait_s, (Message("user", int(wait_s) + 7, 4),), 2) for wait_s in waits))


async def run(target: Target, *sessions: Session) -> list[Record]:
    records: list[Record] = []
    await asyncio.wait_for(drive(sessions, target, records.append), 60)
    return records


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 40, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 16}},
}


async def stream(request: web.Request, *chunks: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS | {"content-type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
    return response


async def whole_answer(request: web.Request) -> web.StreamResponse:
    return await stream(request, sse(delta("")), sse(delta(" bad"), delta(" bak"), USAGE), b"data: [DONE]\n\n")


async def test_an_answer_becomes_a_record_of_what_engine_and_picker_say(serve: Serve) -> None:
    [record] = await run(await serve(whole_answer), talk(0))
    assert record.ok
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (40, 2, 16)
    assert (record.counted_tokens, record.predicted_tokens) == (39, 32)
    assert (record.endpoint, record.mode) == ("10.0.0.1:8000", "exact")
    assert record.first_token_s is not None
    assert 0 <= record.sent_s <= record.first_token_s <= record.end_s


async def test_the_next_turn_carries_the_real_answer(serve: Serve) -> None:
    bodies: list[dict[str, Any]] = []

    async def remember(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await whole_answer(request)

    first, second = await run(await serve(remember), talk(0, 1))
    assert [message["role"] for message in bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert bodies[1]["messages"][1]["content"] == " bad bak"
    assert second.segments[1] == first.answer


async def test_no_turn_is_sent_before_its_time(serve: Serve) -> None:
    first, second, third = await run(await serve(whole_answer), talk(0, 300), talk(0, start_s=450))
    assert second.sent_s >= first.end_s + 300
    assert third.sent_s >= 450


async def test_sessions_do_not_wait_for_each_other(serve: Serve) -> None:
    both = asyncio.Event()
    waiting: list[web.Request] = []

    async def answer_when_both_are_here(request: web.Request) -> web.StreamResponse:
        waiting.append(request)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        return await whole_answer(request)

    assert all(record.ok for record in await run(await serve(answer_when_both_are_here), talk(0), talk(0)))


async def test_a_refusal_is_recorded_with_its_status_and_words(serve: Serve) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no endpoint is ready"}}, status=503)

    [record] = await run(await serve(refuse), talk(0))
    assert (record.status, record.ok, record.predicted_tokens) == (503, False, None)
    assert "no endpoint is ready" in str(record.error)


async def test_a_stream_that_is_cut_is_a_failure_that_keeps_what_came(serve: Serve) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = await stream(request, sse(delta(" bad")))
        assert request.transport is not None
        request.transport.abort()
        return response

    [record] = await run(await serve(cut), talk(0))
    assert not record.ok
    assert record.first_token_s is not None
    assert record.predicted_tokens == 32


async def test_a_session_goes_on_after_a_failure(serve: Serve) -> None:
    turns: list[int] = []

    async def fail_once(request: web.Request) -> web.StreamResponse:
        turns.append(len((await request.json())["messages"]))
        return await whole_answer(request) if len(turns) > 1 else web.Response(status=500)

    records = await run(await serve(fail_once), talk(0, 0, 0))
    assert [record.ok for record in records] == [False, True, True]
    assert turns == [1, 3, 5]


async def test_a_server_that_is_not_there_is_a_failure_of_each_request(serve: Serve) -> None:
    target = await serve(whole_answer)
    gone = Target("http://127.0.0.1:1", target.model, target.speed)
    records = await run(gone, talk(0), talk(0))
    assert [record.status for record in records] == [0, 0]
    assert all("Connect" in str(record.error) for record in records)


@pytest.mark.parametrize("header", ["", "-1", "many", "1.5"])
async def test_a_prediction_that_is_no_number_counts_as_none(serve: Serve, header: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=sse(delta(" bad"), USAGE) + b"data: [DONE]\n\n")
        response.headers["x-multipick-hit-tokens"] = header
        return response

    [record] = await run(await serve(answer), talk(0))
    assert record.ok
    assert record.predicted_tokens is None
