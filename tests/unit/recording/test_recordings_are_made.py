"""A recording of an engine that answers oddly: what it said is kept, or told in one line, and nothing else is lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multipick_epp.recording.cli import command
from multipick_epp.recording.make import NoRecording, Target, record

LONG = "x" * (1 << 20)  # of one event: log probabilities of many tokens


async def models(_: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "m"}]})


async def metrics(_: web.Request) -> web.Response:
    return web.Response(text='vllm:num_requests_running{model_name="é"} 0\n')


async def version(_: web.Request) -> web.Response:
    return web.json_response({"version": "1.2.3"})


async def events(request: web.Request) -> web.StreamResponse:
    stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await stream.prepare(request)
    for piece in ("data: a\n\nda", f"ta: {LONG}", "\n\n", "data: [DONE]"):
        await stream.write(piece.encode())
        await asyncio.sleep(0)
    return stream


async def no_text(_: web.Request) -> web.Response:
    return web.Response(body=b'"\xff"', content_type="application/json")


async def nested(_: web.Request) -> web.Response:
    return web.Response(body=b"[" * 100_000, content_type="application/json")


async def gone(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture
async def engine() -> AsyncIterator[TestServer]:
    app = web.Application()
    for path, handler in (("/v1/models", models), ("/metrics", metrics), ("/version", version)):
        app.router.add_get(path, handler)
    app.router.add_post("/events", events)
    for answer in (no_text, nested, gone):
        app.router.add_post(f"/{answer.__name__}", answer)
    app.router.add_get("/sick/v1/models", models)
    app.router.add_get("/sick/metrics", gone)
    server = TestServer(app)
    async with server:
        yield server


async def test_every_step_is_kept_whatever_one_of_them_answers(engine: TestServer) -> None:
    steps = [{"path": f"/{name}", "request": {}} for name in ("events", "no_text", "nested", "gone", "events")]
    recording, _ = await record("r", Target(str(engine.make_url("")), (), settle_s=0), steps, lambda _: None)
    said, no_text, nested, gone, again = recording.steps
    lines = ["data: a\n", "\n", f"data: {LONG}\n", "\n", "data: [DONE]"]
    assert [line for _, line in said["sse"]] == lines == [line for _, line in again["sse"]]
    assert no_text["response"] == {"__text__": '"\ufffd"'}
    assert nested["response"] == {"__text__": "[" * 100_000}
    assert gone["status"] == 0


async def test_an_engine_that_is_gone_is_told_as_such(engine: TestServer) -> None:
    with pytest.raises(NoRecording, match="/metrics"):
        await record("r", Target(str(engine.make_url("/sick")), (), settle_s=0), [], lambda _: None)


def test_requests_may_hold_any_character(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are read before anything is asked: of an engine that is not there, that is all that is wrong."""
    requests = tmp_path / "requests.jsonl"
    step = {"path": "/v1/completions", "request": {"prompt": "a\u2028b\x85c é"}}
    requests.write_bytes(json.dumps(step, ensure_ascii=False).encode() + b"\n")
    made = ["make", "--url", "http://127.0.0.1:1", "--out", str(tmp_path / "out"), "--requests", str(requests)]
    assert command(made) == 2
    assert "127.0.0.1:1" in capsys.readouterr().err
