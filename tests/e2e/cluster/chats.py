"""Constant load on a gateway: chats, streamed, each a promise that is kept whole or counted as lost.

    python3 chats.py URL MODEL

runs in a pod (`load.py` puts it there), so that it reaches every gateway as any client of the cluster does. Port 8000
tells what came of the requests: `/` so far, `/end` of all, after the last running one has ended.
"""

import asyncio
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

WORKERS = 6
TOKENS = 40  # of the shortest answers; the longest have WORKERS times as many
TIMEOUT_S = 300.0
PAUSE_S = 0.1  # after a loss: a gateway that refuses is not to be flooded
PORT = 8000
ENDPOINT = "x-multipick-endpoint"  # the pool explains itself


@dataclass(frozen=True, slots=True)
class Loss:
    """A request that was not answered whole."""

    why: str
    endpoint: str  # that it was sent to; empty where it went without a pick, so that nobody says so
    begun: bool  # an engine had it: its answer had begun, or Envoy says that the connection ended under it

    def may_be_of(self, endpoint: str) -> bool:
        """It was with this endpoint as far as is known, so that it had to break with it."""
        return self.begun and self.endpoint in (endpoint, "")


@dataclass(slots=True)
class Tally:
    """What came of the requests."""

    served: int = 0
    lost: list[Loss] = field(default_factory=list)


async def main(url: str, model: str) -> None:
    """Until killed."""
    tally, stop = Tally(), asyncio.Event()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
        workers = [asyncio.create_task(_worker(http, url, model, number, tally, stop)) for number in range(WORKERS)]

        async def so_far(_: web.Request) -> web.Response:
            return web.json_response(asdict(tally))

        async def end(_: web.Request) -> web.Response:
            stop.set()
            await asyncio.gather(*workers)
            return web.json_response(asdict(tally))

        app = web.Application()
        app.add_routes([web.get("/", so_far), web.get("/end", end)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=PORT).start()
        await asyncio.Event().wait()


async def _worker(
    http: aiohttp.ClientSession, url: str, model: str, number: int, tally: Tally, stop: asyncio.Event
) -> None:
    turn = 0
    while not stop.is_set():
        turn += 1
        body = {
            "model": model,
            "stream": True,
            "max_tokens": TOKENS * (number + 1),
            "messages": [{"role": "user", "content": f"worker {number}, turn {turn}: " + "a question " * 40}],
        }
        loss = await _chat(http, f"{url}/v1/chat/completions", body)
        if loss is None:
            tally.served += 1
        else:
            tally.lost.append(loss)
            await asyncio.sleep(PAUSE_S)


async def _chat(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Loss | None:
    """None: the answer came whole."""
    endpoint, begun = "", False
    try:
        async with http.post(url, json=body) as answer:
            endpoint, begun = answer.headers.get(ENDPOINT, ""), answer.status == 200
            content = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return Loss(f"{type(error).__name__}: {error}", endpoint, begun)
    if answer.status != 200:
        ended = "reset reason: connection termination" in content
        return Loss(f"{answer.status} {content[:300]}", endpoint, ended)
    if "[DONE]" not in content:
        return Loss(f"a stream was cut: {content[-200:]}", endpoint, begun)
    if '"finish_reason":"abort"' in content.replace(" ", ""):
        return Loss("a stream was aborted", endpoint, begun)
    return None


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
