"""Constant load on a gateway: chats, streamed, each a promise that is kept whole or counted as lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

WORKERS = 6
TOKENS = 40  # of an answer


@dataclass(slots=True)
class Tally:
    """What came of the requests."""

    served: int = 0
    lost: list[str] = field(default_factory=list)


@asynccontextmanager
async def load(url: str, model: str) -> AsyncIterator[Tally]:
    """Requests all the time until the block ends; then the running ones end too."""
    tally, stop = Tally(), asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        workers = [asyncio.create_task(_worker(http, url, model, number, tally, stop)) for number in range(WORKERS)]
        try:
            yield tally
        finally:
            stop.set()
            await asyncio.gather(*workers)


async def _worker(
    http: aiohttp.ClientSession, url: str, model: str, number: int, tally: Tally, stop: asyncio.Event
) -> None:
    turn = 0
    while not stop.is_set():
        turn += 1
        try:
            await _chat(http, url, model, f"worker {number}, turn {turn}: " + "a question " * 40)
        except (aiohttp.ClientError, TimeoutError, AssertionError) as error:
            tally.lost.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.1)  # a gateway that refuses is not to be flooded
        else:
            tally.served += 1


async def _chat(http: aiohttp.ClientSession, url: str, model: str, text: str) -> None:
    body = {
        "model": model,
        "stream": True,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": text}],
    }
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        content = await answer.text()
        assert answer.status == 200, f"{answer.status} {content[:200]}"
        assert "[DONE]" in content, f"a stream was cut: {content[-200:]}"
        assert '"finish_reason":"abort"' not in content.replace(" ", ""), "a stream was aborted"
