"""Answers are read whole, or not at all where they are too long."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from multipick_epp.engines.answers import read_at_most

PIECES, PIECE = 50, b"x" * 1000


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that sends its answer in pieces."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PIECE)
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@pytest.mark.parametrize("limit", [PIECES * len(PIECE), 10 * PIECES * len(PIECE)])
async def test_an_answer_that_comes_in_pieces_is_read_whole(url: str, limit: int) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert await read_at_most(response, limit) == PIECES * PIECE


@pytest.mark.parametrize("limit", [0, 1500, PIECES * len(PIECE) - 1])
async def test_of_a_longer_one_there_is_nothing(url: str, limit: int) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert await read_at_most(response, limit) is None
