"""A question that is asked again and again has one connection, and each answer is that to its own question."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from multipick_epp.engines import Unanswered, Why
from multipick_epp.engines.kept import KeptQuestion
from multipick_epp.types import Endpoint

Talk = Callable[["Engine", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Engine:
    """Counts connections, and talks on each as it is told."""

    def __init__(self, talk: Talk) -> None:
        self.connections = 0
        self.asked: list[bytes] = []
        self._talk = talk
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            await self._talk(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def question(self, reader: asyncio.StreamReader) -> bytes:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        return self.asked[-1]

    def drop(self) -> None:
        for writer in self._writers:
            writer.close()


def answer(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)


@asynccontextmanager
async def asking(
    talk: Talk, host: str = "127.0.0.1", timeout_s: float = 10.0
) -> AsyncIterator[tuple[Engine, KeptQuestion]]:
    engine = Engine(talk)
    server = await asyncio.start_server(engine.serve, host, 0)
    port = server.sockets[0].getsockname()[1]
    question = KeptQuestion(Endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), "/m", 1_000, timeout_s)
    try:
        yield engine, question
    finally:
        question.close()
        engine.drop()
        server.close()


async def in_turn(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await engine.question(reader):
        writer.write(answer(b"%d" % len(engine.asked)))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_connection_serves_all_of_them(run: Callable[[Awaitable[None]], None]) -> None:
    async def ask() -> None:
        async with asking(in_turn) as (engine, question):
            assert [await question.ask() for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
            assert engine.connections == 1
            first, *others = engine.asked[0].split(b"\r\n")
            assert first == b"GET /m HTTP/1.1"
            assert b"accept-encoding: identity" in others
            assert any(line.startswith(b"host: 127.0.0.1:") for line in others)

    run(ask())


async def test_an_engine_is_asked_over_ipv6() -> None:
    async with asking(in_turn, "::1") as (_, question):
        assert await question.ask() == b"1"


async def test_a_connection_that_was_closed_while_it_rested_is_replaced() -> None:
    async def once(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await engine.question(reader)
        writer.write(answer(b"page"))

    async with asking(once) as (engine, question):
        assert [await question.ask() for _ in range(3)] == [b"page"] * 3
        assert engine.connections == 3


async def test_a_connection_that_closes_as_it_is_asked_is_replaced_once() -> None:
    async def deaf_after_one(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await engine.question(reader)
        writer.write(answer(b"page"))
        await engine.question(reader)

    async with asking(deaf_after_one) as (engine, question):
        assert [await question.ask() for _ in range(3)] == [b"page"] * 3
        assert engine.connections == 3


async def test_an_engine_that_closes_every_connection_is_away() -> None:
    async def deaf(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await engine.question(reader)

    async with asking(deaf) as (engine, question):
        said = await question.ask()
        assert isinstance(said, Unanswered)
        assert said.why is Why.AWAY
        assert engine.connections == 1


async def test_an_answer_that_comes_late_is_not_taken_for_the_next() -> None:
    late = asyncio.Event()

    async def slow_at_first(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = engine.connections
        await engine.question(reader)
        if number == 1:
            await late.wait()
        writer.write(answer(b"%d" % number))
        await reader.read()

    async with asking(slow_at_first, timeout_s=0.2) as (engine, question):
        said = await question.ask()
        assert isinstance(said, Unanswered)
        assert said.why is Why.SLOW
        question._timeout_s = 60.0
        late.set()
        assert await question.ask() == b"2"
        assert engine.connections == 2


async def test_what_nobody_asked_for_is_no_answer() -> None:
    sent = asyncio.Event()

    async def talkative(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await engine.question(reader)
        writer.write(answer(b"%d" % engine.connections))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(answer(b"unasked"))
        sent.set()
        await engine.question(reader)
        writer.write(answer(b"%d" % engine.connections))

    async with asking(talkative) as (engine, question):
        assert await question.ask() == b"1"
        await sent.wait()
        await asyncio.sleep(0.05)
        assert await question.ask() == b"2"
        assert engine.connections == 2


async def test_half_an_answer_is_none_and_the_next_is_whole() -> None:
    async def half_at_first(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = engine.connections
        await engine.question(reader)
        writer.write(answer(b"page")[: -2 if number == 1 else None])

    async with asking(half_at_first) as (_, question):
        said = await question.ask()
        assert isinstance(said, Unanswered)
        assert said.why is Why.AWAY
        assert await question.ask() == b"page"


async def test_a_question_that_is_closed_ends_the_one_that_waits() -> None:
    asked = asyncio.Event()

    async def silent(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await engine.question(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        asked.set()
        await reader.read()

    async with asking(silent) as (_, question):
        waiting = asyncio.create_task(question.ask())
        await asked.wait()
        question.close()
        assert isinstance(await waiting, Unanswered)


@pytest.mark.parametrize("address", ["no such host:0", "127.0.0.1:99999999", "127.0.0.1:x", "", ":", "a" * 300 + ":80"])
async def test_an_address_that_is_none_is_away(address: str) -> None:
    question = KeptQuestion(Endpoint(address), "/m", 1_000, 10.0)
    said = await question.ask()
    assert isinstance(said, Unanswered)
    assert said.why is Why.AWAY
