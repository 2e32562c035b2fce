"""The pages of several workers, asked for as one picker's."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multipick_epp.admin.port import AdminPort, json_page, metrics_page
from multipick_epp.workers.admin import FrontAdmin
from yarl import URL


@dataclass
class Pages:
    """A worker, as far as its pages go."""

    number: int
    admin: int | None = None
    serving: bool = True
    restarts: int = 0
    ended_at: float | None = None
    why: str = ""

    @property
    def run(self) -> tuple[int, int] | None:
        return None if self.admin is None else (self.number, self.restarts)


Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """A front of workers that each know one thing; its URL."""
    async with AsyncExitStack() as stack:

        async def front(*known: str, away: int = 0) -> str:
            workers = []
            for number, name in enumerate(known):
                port = AdminPort(pages_of(name))
                stack.push_async_callback(port.close)
                workers.append(Pages(number, await port.start("127.0.0.1", 0)))
            workers += [Pages(len(known) + number) for number in range(away)]
            admin = FrontAdmin(workers, lambda: b"")
            stack.push_async_callback(admin.close)
            return f"http://127.0.0.1:{await admin.start('127.0.0.1', 0)}"

        yield front


def pages_of(known: str) -> Any:
    async def explain(request: web.Request) -> web.Response:
        if request.match_info["name"] != known:
            raise web.HTTPNotFound
        return json_page(b'"%b"' % known.encode())

    async def metrics(_: web.Request) -> web.Response:
        return metrics_page(b"# TYPE multipick_decisions_total counter\nmultipick_decisions_total 2.0\n")

    return {"/explain/{name}": explain, "/index/{name}": explain, "/metrics": metrics}


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(URL(url, encoded=True)) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("path", ["explain", "index"])
async def test_whoever_knows_it_answers(start: Start, path: str) -> None:
    front = await start("one", "two", away=1)
    assert await get(f"{front}/{path}/one") == (200, '"one"')
    assert await get(f"{front}/{path}/two") == (200, '"two"')
    assert (await get(f"{front}/{path}/three"))[0] == 404


@pytest.mark.parametrize("written", ["10.0.0.1:8000%231", "a%2Fb", "a%3Fb%25", "%C3%A4"])
async def test_names_are_asked_for_as_they_are_written(start: Start, written: str) -> None:
    name = {"10.0.0.1:8000%231": "10.0.0.1:8000#1", "a%2Fb": "a/b", "a%3Fb%25": "a?b%", "%C3%A4": "ä"}[written]
    front = await start(name)
    assert await get(f"{front}/explain/{written}") == (200, f'"{name}"')


async def test_a_worker_that_is_away_is_left_out(start: Start) -> None:
    front = await start("one", "two", away=2)
    status, page = await get(f"{front}/metrics")
    assert status == 200
    assert "multipick_decisions_total 4.0" in page


async def test_where_none_answers_there_is_no_status(start: Start) -> None:
    front = await start(away=2)
    assert await get(f"{front}/status") == (503, "no worker answers\n")
    assert await get(f"{front}/endpoints") == (200, "[]")
    assert (await get(f"{front}/healthz"))[0] == 200
