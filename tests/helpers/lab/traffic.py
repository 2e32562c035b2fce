"""Requests all the time: growing chats, completions, clients that leave; and a sequence of probes beside them."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final, Literal

import aiohttp
from multipick_sim.texts import fixed_text
from multipick_sim.traffic.sse import Answer, AnswerError
from stacks.process import Json
from stacks.truth import MODEL

CHAT: Final = "/v1/chat/completions"
COMPLETION: Final = "/v1/completions"
CLIENTS: Final = 6
REST_S: Final = 0.1  # between two requests of a client
PATIENCE_S: Final = 10.0  # then a request counts as lost
TURNS: Final = 6  # of a chat
PROBE_CHATS: Final = 20
PROBE_REST_S: Final = 0.05
SETTLED_S: Final = 2.0
"""A probe's chat goes on so long after its last answer. The events of that have come by then, or somebody has noticed
that they don't: a silent publisher is asked after a second, and an owner that renews nothing is missed a little later.
"""
SYSTEM_TOKENS: Final = 400  # of a prompt that half of the probes' chats begin with

Outcome = Literal["whole", "left", "lost"]


@dataclass(frozen=True, slots=True)
class Sent:
    """One request, and what became of it. Times are the loop's, in seconds."""

    probe: bool
    sent_s: float
    ended_s: float
    outcome: Outcome
    why: str = ""  # it was lost
    status: int = 0  # 0: no answer began
    endpoint: str | None = None  # where the picker sent it
    mode: str | None = None  # how well the picker said it knew that endpoint; None: Envoy chose by itself
    predicted: int | None = None  # tokens
    cached: int | None = None  # tokens, by the engine


@dataclass(slots=True)
class Chat:
    """A conversation as it grows."""

    messages: list[Json]
    turns: int = 0
    answered_s: float = 0.0

    def ask(self, text: str) -> list[Json]:
        self.turns += 1
        self.messages.append({"role": "user", "content": text})
        return self.messages

    def answered(self, text: str, now_s: float) -> None:
        self.messages.append({"role": "assistant", "content": text})
        self.answered_s = now_s


class Traffic:
    """Clients, each asking one request after the other, and a prober, whose requests are never two at once.

    Probes share no prefix with the clients' requests: whatever the picker says of their hits can be held against it.
    """

    def __init__(self, http: aiohttp.ClientSession, seed: int) -> None:
        self.sent: list[Sent] = []
        self.between_probes = asyncio.Lock()  # whoever holds it is between two probes
        self._http = http
        self._random = Random(seed)
        self._texts = count(seed << 32)
        self._going = False
        self._clients: list[asyncio.Task[None]] = []
        self._prober: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let the clients ask, and the prober."""
        self._going = True
        self._clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        if self._prober is None:
            self._prober = asyncio.create_task(self._probe_for_ever())

    async def calm(self) -> None:
        """Let the clients ask nothing more, and wait for what they asked. The prober goes on."""
        self._going = False
        clients, self._clients = self._clients, []
        await asyncio.gather(*clients)

    async def stop(self) -> None:
        """Let nobody ask. Raises what the prober died of, if it did."""
        await self.calm()
        if prober := self._prober:
            self._prober = None
            async with self.between_probes:
                prober.cancel()
            with suppress(asyncio.CancelledError):
                await prober

    # --- who asks

    async def _client(self) -> None:
        chat = Chat([])
        while self._going:
            draw = self._random.random()
            if draw < 0.5:
                chat = chat if chat.turns < TURNS else Chat([])
                if not await self._turn(chat):
                    chat = Chat([])
            elif draw < 0.8:
                self.sent.append(await self._complete())
            else:
                self.sent.append(await self._leave())
            await asyncio.sleep(REST_S * self._random.random() * 2)

    async def _turn(self, chat: Chat) -> bool:
        """One turn of a streamed chat; whether it can go on."""
        answer = Answer()
        sent = await self._stream(CHAT, {"messages": chat.ask(self._text(60)), "max_tokens": 40}, answer)
        self.sent.append(sent)
        chat.answered(json.loads(answer.text_json()), sent.ended_s)
        return sent.outcome == "whole"

    async def _complete(self) -> Sent:
        body = {"prompt": self._text(self._random.randint(20, 400)), "max_tokens": 20}
        sent, _ = await self._whole(COMPLETION, body, probe=False)
        return sent

    async def _leave(self) -> Sent:
        """A client that leaves before its answer can have ended."""
        body = {"prompt": self._text(self._random.randint(20, 800)), "max_tokens": 3000}
        started_s = self._now()
        try:
            async with asyncio.timeout(0.2 * self._random.random()):
                return await self._stream(COMPLETION, body, Answer())
        except TimeoutError:
            return Sent(False, started_s, self._now(), "left")

    async def _probe_for_ever(self) -> None:
        systems = [fixed_text(next(self._texts), SYSTEM_TOKENS) for _ in range(2)]
        chats: deque[Chat] = deque()
        for number in count():
            if len(chats) < PROBE_CHATS:
                chats.append(Chat([{"role": "system", "content": systems[number % 2]}] * (number % 4 < 2)))
            chat = chats.popleft()
            await asyncio.sleep(max(PROBE_REST_S, chat.answered_s + SETTLED_S - self._now()))
            async with self.between_probes:
                body = {"messages": chat.ask(self._text(50)), "max_tokens": 24}
                sent, answer = await self._whole(CHAT, body, probe=True)
                self.sent.append(sent)
            if answer is not None and chat.turns < TURNS:
                chat.answered(answer["choices"][0]["message"]["content"], sent.ended_s)
                chats.append(chat)

    # --- how

    async def _stream(self, path: str, body: Json, answer: Answer) -> Sent:
        body = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}, **body}
        started_s, status, headers = self._now(), 0, dict[str, str]()
        try:
            async with asyncio.timeout(PATIENCE_S), self._http.post(path, json=body) as response:
                status, headers = response.status, dict(response.headers)
                async for chunk in response.content.iter_any():
                    answer.feed(chunk, self._now())
            if status != 200:
                return self._lost(False, started_s, f"{status}: {bytes(answer._data[:200])!r}", status, headers)
            answer.finish()
        except TimeoutError:
            return self._lost(False, started_s, "no end", status, headers)
        except (aiohttp.ClientError, AnswerError) as error:
            return self._lost(False, started_s, repr(error), status, headers)
        return Sent(False, started_s, self._now(), "whole", "", status, *_said(headers))

    async def _whole(self, path: str, body: Json, probe: bool) -> tuple[Sent, Any]:
        """Also the answer; None where it isn't whole."""
        started_s, status, headers = self._now(), 0, dict[str, str]()
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                self._http.post(path, json={"model": MODEL, **body}) as response,
            ):
                status, headers = response.status, dict(response.headers)
                text = await response.read()
            if status != 200:
                return self._lost(probe, started_s, f"{status}: {text[:200]!r}", status, headers), None
            answer = json.loads(text)
            if answer["choices"][0]["finish_reason"] == "abort":
                return self._lost(probe, started_s, "aborted", status, headers), None
        except TimeoutError:
            return self._lost(probe, started_s, "no end", status, headers), None
        except (aiohttp.ClientError, ValueError) as error:
            return self._lost(probe, started_s, repr(error), status, headers), None
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return Sent(probe, started_s, self._now(), "whole", "", status, *_said(headers), cached), answer

    def _lost(self, probe: bool, started_s: float, why: str, status: int, headers: Mapping[str, str]) -> Sent:
        return Sent(probe, started_s, self._now(), "lost", why, status, *_said(headers))

    def _text(self, tokens: int) -> str:
        return fixed_text(next(self._texts), tokens)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _said(headers: Mapping[str, str]) -> tuple[str | None, str | None, int | None]:
    """Endpoint, mode and predicted hit, by the picker's headers."""
    lower = {name.lower(): value for name, value in headers.items()}
    hit = lower.get("x-multipick-hit-tokens")
    return lower.get("x-multipick-endpoint"), lower.get("x-multipick-mode"), None if hit is None else int(hit)
