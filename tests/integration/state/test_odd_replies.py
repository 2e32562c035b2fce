"""A server that answers anything at all is a store that is not there: a reason, a growing pause, and no traceback."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Candidates, Delta
from multipick_epp.state.redis import RedisState, parse_url
from multipick_epp.state.redis import link as link_module
from multipick_epp.state.redis.connection import Connection
from multipick_epp.types import BlockKey, Endpoint, ReplicaId, ReservationId
from multipick_sim.local.valkey import Valkey

Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A = Endpoint("10.0.0.1:8000")
CACHE = Cache(A, 16)


def any_reply(rng: Random, depth: int = 0) -> bytes:
    """RESP, or nearly: of any shape, with any bytes in it."""
    kind = rng.choice("+-:$$$*****_#,(%~>=!?" if depth < 3 else "+-:$$$_")
    number = rng.choice((-1, 0, 1, 2, 3, 7, 2**31, 2**63, 10**25))
    match kind:
        case "+" | "(" | ",":
            return kind.encode() + rng.choice((b"OK", b"", b"1", b"nan", b"\xff")) + b"\r\n"
        case "-":
            codes = (b"ERR x", b"OOM x", b"WRONGTYPE x", b"MOVED 1 a:1", b"NOSCRIPT", b"\xff\xfe", b"", b"LOADING x")
            return b"-" + rng.choice(codes) + b"\r\n"
        case ":":
            return b":%d\r\n" % number
        case "$":
            text = rng.choice(
                (b"", b"0", b"0-0", b"1-1", b"delta", b"[", b"\xff" * 9, b"{kv:pool}:log", rng.randbytes(8))
            )
            return b"$%d\r\n%s\r\n" % (len(text), text) if rng.random() < 0.9 else b"$-1\r\n"
        case "*" | "~" | ">":
            length = rng.choice((0, 1, 2, 2, 3, 4, 4, 5))
            return kind.encode() + b"%d\r\n" % length + b"".join(any_reply(rng, depth + 1) for _ in range(length))
        case "%":
            return b"%1\r\n" + any_reply(rng, depth + 1) + any_reply(rng, depth + 1)
        case "_":
            return b"_\r\n"
        case "#":
            return b"#t\r\n"
        case _:
            return kind.encode() + rng.randbytes(4) + b"\r\n"


@asynccontextmanager
async def serving(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """A server that answers every command by its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readuntil(b"\r\n"):
                words = []
                for _ in range(int(line[1:])):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                writer.write(answer(words[0]))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()


@pytest.mark.parametrize("seed", range(12))
async def test_any_answers(
    seed: int, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(link_module, "LONGEST_PAUSE_S", 0.001)
    rng = Random(seed)
    answered = 0

    def answer(command: bytes) -> bytes:
        nonlocal answered
        answered += 1
        if command == b"SCRIPT" and rng.random() < 0.9:  # so that sessions go on to what comes after it
            return b"$40\r\n" + b"0" * 40 + b"\r\n"
        return any_reply(rng)

    async with serving(answer) as port:
        state = RedisState(parse_url(f"redis://127.0.0.1:{port}"), "pool", ReplicaId("fuzzed"), picks=False)
        reader = RedisState(parse_url(f"redis://127.0.0.1:{port}"), "pool", ReplicaId("reader"), ingests=False)
        await state.start()
        await reader.start()
        while answered < 600:
            await state.take_over(A)
            outcome = await state.apply([Delta(CACHE, 1, 0, 0, [BlockKey(1)])])
            assert outcome[0] in Applied
            assert await state.clear(A, 1, 1) in Applied
            assert await state.replace(A, 1, 1, {}) in Applied
            await state.drop(A)
            await asyncio.sleep(0.001)
        await state.close()
        await reader.close()
    assert answered >= 600
    assert reader.stats.outages
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_store_that_is_flushed_between_two_commands(
    server: Valkey, client: Client, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """What was there a moment ago is not, at any place: the link begins again."""
    state = RedisState(parse_url(server.url), "pool", ReplicaId("one"))
    await state.start()
    connection = await client(server.url)
    flushed = 0
    while flushed < 300 or not {("writer", "flushed"), ("loads", "flushed")} <= state.stats.outages.keys():
        await connection.call("FLUSHALL")
        await state.take_over(A)
        flushed += 1
    await eventually(lambda: state.degraded is None)
    assert {reason for _, reason in state.stats.outages} == {"flushed"}
    assert (await state.reserve(ReservationId("r"), Candidates([A], [1]))).new_tokens == 1
    assert not [record for record in caplog.records if record.exc_info]
    await state.close()
