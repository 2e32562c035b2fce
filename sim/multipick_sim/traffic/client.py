"""The load client: sends a plan to one URL at its times and records what came back.

Open loop: a session starts at its time whether or not the ones before it are done. Times are engine seconds, wall
seconds times `speed`, since simulated pods live that much faster; what the machine itself takes (Envoy, the picker,
this client) is stretched by the same factor, so measured times are never better than the engine's own.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import aiohttp

from multipick_sim.traffic.conversation import Conversation, Encode, encoder
from multipick_sim.traffic.plan import Session, Turn
from multipick_sim.traffic.records import Record
from multipick_sim.traffic.sse import Answer, AnswerError, Usage

PATH = "/v1/chat/completions"
IDLE_S = 120.0  # wall seconds without a byte after which an answer counts as lost
CONNECT_S = 10.0
OK = 200
NOTHING = Usage(prompt_tokens=0, output_tokens=0, cached_tokens=None)
MAX_ERROR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and how fast time runs there."""

    url: str  # http://host:port
    model: str
    speed: float = 1.0  # engine seconds a wall second


async def drive(sessions: Sequence[Session], target: Target, on_record: Callable[[Record], None]) -> None:
    """Send all of `sessions`; `on_record` gets each request as it ends, failed or not. Returns after the last one.

    A request that fails is recorded with its error, and its session goes on with what it got.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=IDLE_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(target.url, connector=connector, timeout=timeout) as http:
        run = _Run(http, target, on_record)
        async with asyncio.TaskGroup() as tasks:
            for number, session in enumerate(sessions):
                await run.sleep_until(session.start_s)
                tasks.create_task(run.session(f"s{number}", session))


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came back besides the answer itself."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: Usage = NOTHING
    error: str | None = None


class _Run:
    """One run of a plan, with its clock."""

    def __init__(self, http: aiohttp.ClientSession, target: Target, on_record: Callable[[Record], None]) -> None:
        self._http = http
        self._target = target
        self._on_record = on_record
        self._encode: Encode = encoder()
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()

    def now(self) -> float:
        """Engine seconds since the run began."""
        return (self._loop.time() - self._begin) * self._target.speed

    async def sleep_until(self, engine_s: float) -> None:
        if (left := engine_s - self.now()) > 0:
            await asyncio.sleep(left / self._target.speed)

    async def session(self, name: str, session: Session) -> None:
        conversation = Conversation(name, self._target.model, self._encode)
        for turn in session.turns:
            await self.sleep_until(self.now() + turn.wait_s)
            await self._turn(conversation, turn)

    async def _turn(self, conversation: Conversation, turn: Turn) -> None:
        name, segments, body = conversation.ask(turn)
        sent_s = self.now()
        answer = Answer()
        reply = await self._send(name, body, answer)
        end_s = self.now()
        usage = reply.usage
        self._on_record(
            Record(
                name=name,
                segments=segments,
                answer=conversation.answer(answer.text_json(), usage.output_tokens),
                sent_s=sent_s,
                first_token_s=answer.first_token_at,
                end_s=end_s,
                prompt_tokens=usage.prompt_tokens,
                output_tokens=usage.output_tokens,
                cached_tokens=usage.cached_tokens,
                counted_tokens=_number(reply.headers.get("x-multipick-prompt-tokens")),
                predicted_tokens=_number(reply.headers.get("x-multipick-hit-tokens")),
                endpoint=reply.headers.get("x-multipick-endpoint"),
                mode=reply.headers.get("x-multipick-mode"),
                status=reply.status,
                error=reply.error,
            )
        )

    async def _send(self, name: str, body: bytes, answer: Answer) -> _Reply:
        headers = {"content-type": "application/json", "x-request-id": name}
        reply = _Reply()
        try:
            async with self._http.post(PATH, data=body, headers=headers) as response:
                reply = _Reply(response.status, response.headers)
                if response.status != OK:
                    refusal = await response.content.read(MAX_ERROR_BYTES)
                    return replace(reply, error=f"HTTP {response.status}: {refusal.decode(errors='replace')}")
                async for chunk in response.content.iter_any():
                    answer.feed(chunk, self.now())
                return replace(reply, usage=answer.finish())
        except (AnswerError, aiohttp.ClientError, TimeoutError, OSError) as error:
            return replace(reply, error=f"{type(error).__name__}: {error}")


def _number(header: str | None) -> int | None:
    return int(header) if header is not None and header.isdecimal() else None
