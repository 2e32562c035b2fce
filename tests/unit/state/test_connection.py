"""One connection: replies in order, whatever the pieces they come in; anything odd ends it, and every caller learns."""

import asyncio
from collections.abc import AsyncIterator

import hiredis
import pytest
import pytest_asyncio
from multipick_epp.state.redis import connection as connection_module
from multipick_epp.state.redis.connection import Connection, LostError, TooLongError, WrongTypeError


class FakeServer:
    """Speaks what a test tells it to, on a socket of its own."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._writers: list[asyncio.StreamWriter] = []
        self._news = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while data := await reader.read(65536):
            async with self._news:
                self.received += data
                self._news.notify_all()

    async def got(self, data: bytes) -> None:
        async with self._news:
            await self._news.wait_for(lambda: data in self.received)

    def say(self, data: bytes) -> None:
        self._writers[-1].write(data)

    def hang_up(self) -> None:
        self._writers[-1].close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[tuple[FakeServer, int]]:
    fake = FakeServer()
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    yield fake, listener.sockets[0].getsockname()[1]
    listener.close()
    for writer in fake._writers:
        writer.close()


async def connect(port: int, stall_s: float = 30.0) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(stall_s), "127.0.0.1", port)
    return connection


async def test_calls_of_one_turn_leave_together_and_are_answered_in_order(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port)
    first, second = connection.call("GET", "a"), connection.call("GET", b"\xff\r\n", 7)
    connection.send("DEL", "x")
    third = connection.call("PING")
    await fake.got(b"*1\r\n$4\r\nPING\r\n")
    assert fake.received.startswith(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nGET\r\n$3\r\n\xff\r\n\r\n$1\r\n7\r\n")
    fake.say(b"$1\r\n1\r\n$-1\r\n:1\r\n+PONG\r\n")
    assert [await first, await second, await third] == [b"1", None, b"PONG"]
    connection.close()


async def test_replies_may_be_split_anywhere(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port)
    reply = b"*3\r\n:12\r\n$5\r\nhello\r\n*1\r\n$-1\r\n"
    for at in range(len(reply) + 1):
        answer = connection.call("X")
        await fake.got(b"X\r\n")
        fake.received.clear()
        for piece in (reply[:at], reply[at:]):
            connection.data_received(piece)
        assert await answer == [12, b"hello", [None]]
    connection.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "full"),
        (b"-NOAUTH Authentication required.\r\n", "denied"),
        (b"-WRONGPASS invalid username-password pair\r\n", "denied"),
        (b"-NOPERM no permission\r\n", "denied"),
        (b"-READONLY You can't write against a read only replica.\r\n", "moved"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "moved"),
        (b"-LOADING loading the dataset in memory\r\n", "loading"),
        (b"-NOSCRIPT No matching script.\r\n", "flushed"),
        (b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", "disk"),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", "replicas"),
        (b"-ASK 3999 127.0.0.1:6381\r\n", "moved"),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "moved"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "moved"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "moved"),
        (b"-UNBLOCKED force unblock from blocking operation\r\n", "moved"),
        (b"-BUSY Valkey is busy running a script.\r\n", "slow"),
        (b"-UNKILLABLE Sorry the script already executed write commands\r\n", "slow"),
        (b"-DENIED Valkey is running in protected mode\r\n", "denied"),
        (b"-ERR AUTH <password> called without any password configured for the default user.\r\n", "denied"),
        (b"-ERR max number of clients reached\r\n", "clients"),
        (b"-ERR unknown command 'EVALSHA', with args beginning with: \r\n", "unfit"),
        (b"-ERR DB index is out of range\r\n", "unfit"),
        (b"-ERR SELECT is not allowed in cluster mode\r\n", "unfit"),
        (b"-NOTBUSY No scripts in execution right now.\r\n", "error"),
        (b"-EXECABORT Transaction discarded\r\n", "error"),
        (b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", "error"),
        (b"-ERR something\r\n", "error"),
        (b"-\r\n", "error"),
        (b"*4294967296\r\n", "protocol"),
        (b"*99999999999999999999\r\n", "protocol"),
        (b"$-7\r\n", "protocol"),
        (b"%1\r\n*1\r\n:1\r\n:1\r\n", "protocol"),
        (b"what?\r\n", "protocol"),
        (b"+PONG\r\n+PONG\r\n+unasked\r\n", "protocol"),
    ],
)
async def test_an_error_ends_the_connection_with_a_reason(
    server: tuple[FakeServer, int], reply: bytes, reason: str
) -> None:
    fake, port = server
    connection = await connect(port)
    one, two = connection.call("A"), connection.call("B")
    await fake.got(b"B\r\n")
    fake.say(reply)
    assert (await connection.lost).reason == reason
    outcomes = await asyncio.gather(one, two, connection.call("C"), return_exceptions=True)
    assert isinstance(outcomes[2], LostError)
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, LostError)} == {reason}
    connection.send("D")


async def test_an_error_to_a_call_that_nobody_awaits_ends_it_too(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port)
    connection.send("A")
    await fake.got(b"A\r\n")
    fake.say(b"-ERR no\r\n")
    assert (await connection.lost).reason == "error"


async def test_a_server_that_goes_away_fails_every_call(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port)
    calls = [connection.call("A") for _ in range(3)]
    cancelled = calls.pop()
    cancelled.cancel()
    await fake.got(b"A\r\n")
    fake.hang_up()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["away", "away"]


async def test_a_silent_server_is_given_up(server: tuple[FakeServer, int]) -> None:
    _, port = server
    connection = await connect(port, stall_s=0.02)
    with pytest.raises(LostError, match="slow"):
        await connection.call("A")
    assert (await connection.lost).reason == "slow"


async def test_a_slow_reply_in_time_is_no_stall(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port, stall_s=0.2)
    for _ in range(5):
        answer = connection.call("A")
        await fake.got(b"A\r\n")
        fake.received.clear()
        await asyncio.sleep(0.05)
        fake.say(b":1\r\n")
        assert await answer == 1
    assert not connection.lost.done()
    connection.close()


async def test_a_reply_to_a_cancelled_call_is_its_own(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port)
    one, two = connection.call("A"), connection.call("B")
    one.cancel()
    await fake.got(b"B\r\n")
    fake.say(b":1\r\n:2\r\n")
    assert await two == 2
    connection.close()


async def test_a_key_of_the_wrong_type_costs_a_reader_that_call_alone(server: tuple[FakeServer, int]) -> None:
    fake, port = server
    connection = await connect(port)
    one, two = connection.read("HKEYS", "a"), connection.read("GET", "b")
    await fake.got(b"b\r\n")
    fake.say(b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n$1\r\n2\r\n")
    with pytest.raises(WrongTypeError):
        await one
    assert await two == b"2"
    assert not connection.lost.done()
    connection.close()


async def test_a_reply_without_an_end_is_given_up(
    server: tuple[FakeServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "REPLY_BYTES", 1 << 20)
    fake, port = server
    connection = await connect(port)
    answer = connection.read("GET", "a")
    await fake.got(b"a\r\n")
    fake.say(b"$1000000000\r\n" + bytes(2 << 20))
    with pytest.raises(TooLongError):
        await answer
    assert (await connection.lost).reason == "protocol"


class Picky:
    """Waits for a list."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def done(self) -> bool:
        return False

    def set_result(self, reply: list[int]) -> None:
        list(zip(reply, [1], strict=True))

    def set_exception(self, error: Exception) -> None:
        self.error = error


@pytest.mark.parametrize("reply", [b":1\r\n", b"*2\r\n:1\r\n:2\r\n", b"$-1\r\n"])
async def test_a_reply_that_its_waiter_cannot_take_ends_the_connection(
    server: tuple[FakeServer, int], reply: bytes
) -> None:
    fake, port = server
    connection = await connect(port)
    waiter = Picky()
    connection.ask(waiter, "A")
    await fake.got(b"A\r\n")
    fake.say(reply)
    assert (await connection.lost).reason == "protocol"
    assert isinstance(waiter.error, LostError)


async def test_a_server_that_refuses_at_once_is_told_as_such(server: tuple[FakeServer, int]) -> None:
    _, port = server
    connection = await connect(port)
    connection.data_received(b"-ERR max number of clients reached\r\n")
    assert (await connection.lost).reason == "clients"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"*4294967295\r\n"],
        [b"*1\r\n*", b"2147", b"483647\r", b"\n"],
        [b":1\r\n%10000000\r\n"],
        [b"$1\r\nx\r\n~99999999999999999999\r\n"],
    ],
)
async def test_a_reply_that_announces_more_parts_than_there_is_room_for_makes_none(
    server: tuple[FakeServer, int], monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    fake, port = server
    connection = await connect(port)
    fed = bytearray()
    monkeypatch.setattr(connection, "_reader", Watched(connection._reader, fed))
    replies = [connection.call("GET", "a") for _ in range(2)]
    await fake.got(b"GET")
    for piece in pieces:
        fake.say(piece)
        await asyncio.sleep(0.01)
    with pytest.raises(TooLongError):
        await replies[1]
    assert not connection_module._TOO_MANY.search(b"\r\n" + fed)


class Watched:
    """A reader, and what it was fed."""

    def __init__(self, reader: hiredis.Reader, fed: bytearray) -> None:
        self._reader = reader
        self._fed = fed

    def feed(self, data: bytes) -> None:
        self._fed += data
        self._reader.feed(data)

    def gets(self) -> object:
        return self._reader.gets()
