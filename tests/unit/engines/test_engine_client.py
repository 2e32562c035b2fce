"""An engine is asked with the same care whatever the question, and nothing that it does raises."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from multipick_epp.engines import EngineClient, MetricsLooks, Unanswered, Why, bounds
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.types import Endpoint

Question = Callable[[EngineClient, Endpoint], Awaitable[object]]


async def look(_: EngineClient, endpoint: Endpoint) -> object:
    looks = MetricsLooks(endpoint, "/metrics")
    try:
        return await looks.look()
    finally:
        looks.close()


QUESTIONS: dict[str, Question] = {
    "metrics": lambda engines, endpoint: engines.metrics(endpoint, "/metrics"),
    "metrics again and again": look,
    "models": lambda engines, endpoint: engines.models(endpoint),
    "event sources": lambda engines, endpoint: engines.event_sources(endpoint),
    "version": lambda engines, endpoint: engines.version(endpoint),
    "tokenize": lambda engines, endpoint: engines.tokenize(endpoint, b'{"prompt": "hello"}', 20.0),
}
every_question = pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS.keys())

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def engine(handler: Handler) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Endpoint(f"127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@asynccontextmanager
async def saying(data: bytes, *, then_close: bool = True) -> AsyncIterator[Endpoint]:
    """A peer that answers a connection with these bytes, whatever it is asked."""

    writers = []  # a connection is closed when nobody holds its writer any more

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(data)
        if then_close:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Endpoint(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for writer in writers:  # the server waits for them
            writer.close()


def why(answer: object) -> Why | None:
    return answer.why if isinstance(answer, Unanswered) else None


@every_question
async def test_a_redirect_is_not_followed(engines: EngineClient, ask: Question) -> None:
    """A prompt that an engine redirects would be posted to any host it names."""
    reached: list[bytes] = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(await request.read())
        return web.Response(text="{}")

    async with engine(elsewhere) as other:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"location": f"http://{other}{request.path}"})

        async with engine(redirect) as endpoint:
            answer = await ask(engines, endpoint)
    assert answer == Unanswered(Why.REFUSED, "status 307", 307)
    assert not reached


@every_question
@pytest.mark.parametrize("status", [204, 400, 404, 500, 503])
async def test_any_other_status_is_no_answer(engines: EngineClient, ask: Question, status: int) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with engine(refuse) as endpoint:
        assert await ask(engines, endpoint) == Unanswered(Why.REFUSED, f"status {status}", status)


@every_question
async def test_an_endless_answer_is_cut_off(engines: EngineClient, ask: Question) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 100_000)

    async with engine(endless) as endpoint:
        assert why(await ask(engines, endpoint)) is Why.TOO_LONG


@every_question
async def test_a_compressed_answer_is_not_unpacked(engines: EngineClient, ask: Question) -> None:
    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(50_000_000)), headers={"content-encoding": "gzip"})

    async with engine(bomb) as endpoint:
        assert why(await ask(engines, endpoint)) is Why.UNREADABLE


@every_question
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\xff\xfe",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nset-cookie: \xff\xff=\x00; domain\r\ncontent-encoding: \xff\r\n\r\n",
    ],
)
async def test_a_peer_that_speaks_something_else_is_no_answer(
    engines: EngineClient, ask: Question, data: bytes
) -> None:
    async with saying(data) as endpoint:
        answer = await ask(engines, endpoint)
    assert isinstance(answer, Unanswered | Gauges)  # to a lenient reader, the last of these is an empty page
    assert len(str(answer)) < 500


@every_question
async def test_a_peer_that_says_nothing_is_slow(
    engines: EngineClient, ask: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("METRICS_S", "MODELS_S", "EVENT_SOURCES_S"):
        monkeypatch.setattr(bounds, name, 0.05)
    asking = ask if ask is not QUESTIONS["tokenize"] else lambda e, to: e.tokenize(to, b"{}", 0.05)
    async with saying(b"HTTP/1.1 200 OK\r\n", then_close=False) as endpoint:
        assert why(await asking(engines, endpoint)) is Why.SLOW


@every_question
async def test_nobody_there_is_away(engines: EngineClient, ask: Question) -> None:
    async with saying(b"") as endpoint:
        pass  # closed again
    assert why(await ask(engines, endpoint)) is Why.AWAY
    assert why(await ask(engines, Endpoint("no such host:0"))) is Why.AWAY


async def test_a_client_that_is_closed_asks_nobody(engines: EngineClient) -> None:
    await engines.close()
    assert why(await engines.models(Endpoint("127.0.0.1:1"))) is Why.AWAY


async def test_an_answer_has_no_more_tokens_than_its_question_can_have(engines: EngineClient) -> None:
    """Eight million ids for "hello" would be charged, and hold the loop for seconds."""
    answers = [[1] * 100, [1] * (bounds.TEMPLATE_TOKENS + 20), [1] * 8_000_000]

    async def answer(_: web.Request) -> web.Response:
        ids = answers.pop(0)
        return web.Response(body=b'{"tokens":[%s]}' % b",".join([b"1"] * len(ids)))

    async with engine(answer) as endpoint:
        first = await engines.tokenize(endpoint, b'{"prompt": "hello"}', 20.0)
        assert not isinstance(first, Unanswered)
        assert len(first) == 100
        assert why(await engines.tokenize(endpoint, b'{"prompt": "hello"}', 20.0)) is Why.UNREADABLE
        assert why(await engines.tokenize(endpoint, b'{"prompt": "hello"}', 20.0)) is Why.TOO_LONG
