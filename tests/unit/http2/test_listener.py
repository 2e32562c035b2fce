"""A port and its connections, on real sockets."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.http2.bounds import Bounds
from multipick_epp.extproc.http2.grpc import CallError, Status
from multipick_epp.extproc.http2.headers import Request
from multipick_epp.extproc.http2.listener import Listener
from multipick_epp.extproc.http2.protocol import Refusal
from multipick_epp.extproc.http2.stream import Call, Stream
from multipick_epp.extproc.tls import Certificate, self_signed

from tests.unit.http2.peer import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Frame,
    Remembered,
    data,
    echo,
    frame,
    frames,
    headers,
    message,
    settings,
    window,
)

CERTIFICATE = Certificate(self_signed())
HELLO = PREFACE + settings(window=1 << 20) + frame(SETTINGS, ACK)


class Refused:
    """Who counts; a test may wait for the first."""

    def __init__(self) -> None:
        self.seen: list[Refusal] = []
        self.any = asyncio.Event()

    def refused(self, why: Refusal) -> None:
        self.seen.append(why)
        self.any.set()


class Served:
    """A listener whose calls echo, and a clock that stands still."""

    def __init__(self, bounds: Bounds, tls: bool, plaintext: bool = False) -> None:
        self.now = 1000.0
        self.calls: list[Remembered] = []
        self.refused = Refused()
        certificate = CERTIFICATE.context if tls else None
        self.listener = Listener(self.serve, self.refused, certificate, bounds, lambda: self.now, plaintext)
        self.port = 0

    def serve(self, request: Request, stream: Stream) -> Call | CallError:
        if request.path != "/test/Echo":
            return CallError(Status.UNIMPLEMENTED, "unknown method")
        self.calls.append(Remembered(request, stream, echo))
        return self.calls[-1]

    async def connect(self, tls: bool = False) -> "Client":
        context = None
        if tls:
            context = ssl.create_default_context(cadata=CERTIFICATE.identity.cert.decode())
            context.set_alpn_protocols(["h2"])
        name = "localhost" if tls else None
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name))


class Client:
    """What a peer does on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.seen: list[Frame] = []

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        async with asyncio.timeout(60):
            while True:
                head = await self.reader.readexactly(9)
                body = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                [found] = frames(head + body)
                self.seen.append(found)
                if wanted(found):
                    return found

    async def closed(self) -> bytes:
        """What still comes until the end."""
        async with asyncio.timeout(60):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(bounds: Bounds | None = None, tls: bool = False, plaintext: bool = False) -> Served:
            served = Served(bounds or Bounds(), tls, plaintext)
            served.port = await served.listener.start("127.0.0.1", 0)
            stack.push_async_callback(served.listener.stop, 0)
            return served

        yield start


def is_pong(each: Frame) -> bool:
    return each.kind == PING and each.flags == ACK


PING_FRAME = frame(PING, 0, 0, b"12345678")


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
async def test_calls_over_a_socket(serve: Serve, tls: bool) -> None:
    served = await serve(tls=tls)
    client = await served.connect(tls)
    if tls:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    client.say(HELLO + window(0, 1 << 20) + headers(1))
    body = b"x" * 300_000
    whole = message(body)
    for at in range(0, len(whole), 16_000):
        client.say(data(1, whole[at : at + 16_000]))
    client.say(data(1, b"", END_STREAM))
    got = b""
    while len(got) < len(whole):
        got += (await client.until(lambda each: each.kind == DATA)).payload
    assert got == whole
    served.calls[0].stream.end()  # from another turn of the loop
    last = await client.until(lambda each: each.kind == HEADERS and each.flags & END_STREAM == END_STREAM)
    assert last.stream == 1
    client.writer.close()


async def test_a_tls_handshake_may_come_byte_by_byte(serve: Serve) -> None:
    served = await serve(tls=True)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=CERTIFICATE.identity.cert.decode())
    context.set_alpn_protocols(["h2"])
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    client = await served.connect()
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            for byte in outgoing.read():
                client.say(bytes((byte,)))
                await asyncio.sleep(0)
            incoming.write(await client.reader.read(1 << 16))
    tls.write(HELLO + PING_FRAME)
    for byte in outgoing.read():
        client.say(bytes((byte,)))
        await asyncio.sleep(0)
    plain = b""
    async with asyncio.timeout(60):
        while PING_FRAME[:3] + b"\6\1" not in plain:
            try:
                plain += tls.read(1 << 16)
            except ssl.SSLWantReadError:
                incoming.write(await client.reader.read(1 << 16))
    client.writer.close()


async def test_a_port_that_takes_both_tells_them_apart_by_the_first_byte(serve: Serve) -> None:
    served = await serve(tls=True, plaintext=True)
    clients = [await served.connect(tls) for tls in (True, False, True, False)]
    for client in clients:
        client.say(HELLO + PING_FRAME)
        await client.until(is_pong)
    slow = await served.connect()
    for byte in HELLO + PING_FRAME:
        slow.say(bytes((byte,)))
        await asyncio.sleep(0)
    await slow.until(is_pong)
    assert served.refused.seen == []
    for client in (*clients, slow):
        client.writer.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Refusal.NOT_HTTP2),
        (b"\x15\x03\x01\x00\x02\x02\x28", Refusal.NOT_HTTP2),
        (b"\x16\x03\x01\x00\x05hello", Refusal.TLS_FAILED),
    ],
)
async def test_a_port_that_takes_both_refuses_all_else(serve: Serve, said: bytes, why: Refusal) -> None:
    served = await serve(tls=True, plaintext=True)
    client = await served.connect()
    client.say(said)
    await client.closed()
    assert served.refused.seen == [why]
    client.writer.close()


@pytest.mark.parametrize(
    ("tls", "said", "why", "remedy"),
    [
        (False, b"\x16\x03\x01\x02\x00\x01", Refusal.TLS_ON_PLAINTEXT, "listen.tls.mode"),
        (False, b"\x16", Refusal.TLS_ON_PLAINTEXT, "listen.tls.mode"),
        (True, PREFACE, Refusal.PLAINTEXT_ON_TLS, "listen.tls.mode"),
        (True, PREFACE[:1], Refusal.PLAINTEXT_ON_TLS, "listen.tls.mode"),
        (True, b"GET / HTTP/1.1\r\n\r\n", Refusal.TLS_FAILED, "listen.tls.client_ca"),
        (True, b"\x16\x03\x01\x00\x05hello", Refusal.TLS_FAILED, "listen.tls.client_ca"),
        (False, b"GET / HTTP/1.1\r\n\r\n", Refusal.NOT_HTTP2, "gRPC"),
        (False, HELLO + frame(SETTINGS, 0, 0, b"1"), Refusal.PROTOCOL, "rules"),
        (False, HELLO + PING_FRAME * 10_001, Refusal.FLOOD, "carries nothing"),
    ],
)
async def test_who_speaks_otherwise_is_recognised_counted_and_logged_once_a_minute(
    serve: Serve, tls: bool, said: bytes, why: Refusal, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(tls=tls)
    for minute in (0.0, 1.0, 61.0):
        served.now = 1000.0 + minute
        client = await served.connect()
        client.say(said)
        await client.closed()
        client.writer.close()
    assert served.refused.seen == [why] * 3
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 2
    assert remedy in lines[0]
    served.now += 299.0
    assert served.listener.refusals.lately == {str(why): "127.0.0.1"}
    served.now += 1.0
    assert served.listener.refusals.lately == {}


async def test_a_client_that_does_not_trust_us_is_told_of_in_its_own_words(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(tls=True)
    client = await served.connect()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def shake_hands() -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                theirs.do_handshake()
            client.say(outgoing.read())
            incoming.write(await client.reader.read(1 << 16))

    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands()
    client.say(outgoing.read())  # the alert
    await client.closed()
    client.writer.close()
    assert served.refused.seen == [Refusal.TLS_FAILED]
    assert [vars(record)["detail"] for record in caplog.records] == ["TLSV1_ALERT_UNKNOWN_CA"]


async def test_a_probe_that_only_connects_is_no_refusal(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    client.writer.close()
    await client.writer.wait_closed()
    other = await served.connect()
    other.say(HELLO + PING_FRAME)
    await other.until(is_pong)
    assert served.refused.seen == []
    assert len(served.listener.peers) == 1
    other.writer.close()


async def test_connections_have_a_bound_and_the_idle_make_room(serve: Serve) -> None:
    served = await serve(Bounds(Connections(most=3)))
    busy, idle = await served.connect(), await served.connect()
    busy.say(HELLO + headers(1) + data(1, message(b"x")) + PING_FRAME)
    await busy.until(is_pong)
    idle.say(HELLO + PING_FRAME)
    await idle.until(is_pong)
    silent = await served.connect()
    served.now += 1
    new = await served.connect()  # takes the place of the one that said nothing
    new.say(HELLO + headers(1) + data(1, message(b"x")) + PING_FRAME)
    await new.until(is_pong)
    assert await silent.closed() == b""
    newer = await served.connect()  # takes the place of the idle one
    newer.say(HELLO + headers(1) + data(1, message(b"x")) + PING_FRAME)
    await newer.until(is_pong)
    await idle.closed()
    newest = await served.connect()
    await newest.closed()
    assert served.refused.seen == [Refusal.TOO_MANY]
    busy.say(PING_FRAME)
    await busy.until(is_pong)
    for client in (busy, new, newer):
        client.writer.close()


async def test_a_peer_that_says_nothing_is_cut_in_time(serve: Serve) -> None:
    served = await serve(Bounds(Connections(handshake_s=10)))
    client = await served.connect()
    while not served.listener.peers:
        await asyncio.sleep(0)
    served.now += 11
    await client.closed()
    assert served.refused.seen == [Refusal.SILENT]


async def test_a_peer_that_is_gone_without_a_word_is_cut_and_its_calls_closed(serve: Serve) -> None:
    served = await serve(Bounds(Connections(ping_s=30, pong_s=20)))
    client = await served.connect()
    client.say(HELLO + headers(1) + data(1, message(b"x")) + PING_FRAME)
    await client.until(is_pong)
    served.now += 31
    question = await client.until(lambda each: each.kind == PING and not each.flags)
    assert (question.payload, served.calls[0].over) == (b"alive?  ", 0)
    served.now += 21
    await client.closed()
    assert (served.refused.seen, served.calls[0].over) == ([Refusal.SILENT], 1)


async def test_a_peer_that_does_not_read_holds_up_only_itself_and_in_bounds(serve: Serve) -> None:
    served = await serve(Bounds(outbox=100_000))
    deaf = await served.connect()
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    deaf.say(PREFACE + settings(window=(1 << 31) - 1) + window(0, 1 << 30) + headers(1))
    for _ in range(3000):
        deaf.say(data(1, message(b"x" * 16_000)))
    while not any(not peer.connection.output.writable for peer in served.listener.peers):
        await asyncio.sleep(0)
    other = await served.connect()
    other.say(HELLO + PING_FRAME)
    await other.until(is_pong)
    assert deaf.writer.transport.get_write_buffer_size() > 20 << 20  # of 48 MB: no more is read
    assert served.listener.shared.held < 1 << 20
    deaf.writer.transport.abort()
    other.writer.close()


async def test_a_peer_that_does_not_read_our_goodbye_is_not_waited_for(serve: Serve) -> None:
    served = await serve()
    deaf = await served.connect()
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    deaf.say(PREFACE + settings(window=(1 << 31) - 1) + frame(SETTINGS, ACK) + window(0, 1 << 30) + headers(1))
    for _ in range(3000):
        deaf.say(data(1, message(b"x" * 16_000)))
    while not any(not peer.connection.output.writable for peer in served.listener.peers):
        await asyncio.sleep(0)
    for peer in served.listener.peers:
        peer.connection.finish()
    async with asyncio.timeout(10):
        while served.listener.peers:
            await asyncio.sleep(0.01)
    deaf.writer.transport.abort()


async def test_a_second_listener_cannot_have_the_port(serve: Serve) -> None:
    served = await serve()
    with pytest.raises(RuntimeError, match=str(served.port)):
        await Served(Bounds(), tls=False).listener.start("127.0.0.1", served.port)


async def test_stopping_says_goodbye_and_ends_what_is_open(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    client.say(HELLO + headers(1) + PING_FRAME)
    await client.until(is_pong)
    await served.listener.stop(5)
    rest = list(frames(await client.closed()))
    assert [each.kind for each in rest if each.kind in (HEADERS, GOAWAY)] == [HEADERS, GOAWAY]
    assert served.calls[0].over == 1
    with pytest.raises(ConnectionError):
        await served.connect()
    client.writer.close()


async def test_draining_lets_open_calls_end_and_closes_behind_them(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    client.say(HELLO + headers(1) + PING_FRAME)
    await client.until(is_pong)
    served.listener.drain()
    first = await client.until(lambda each: each.kind == GOAWAY)
    question = await client.until(lambda each: each.kind == PING and not each.flags)
    client.say(frame(PING, ACK, 0, question.payload))
    last = await client.until(lambda each: each.kind == GOAWAY)
    assert (int.from_bytes(first.payload[:4], "big"), int.from_bytes(last.payload[:4], "big")) == (2**31 - 1, 1)
    newcomer = await served.connect()  # whom nobody told yet
    newcomer.say(HELLO + headers(1) + data(1, message(b"served")))
    assert (await newcomer.until(lambda each: each.kind == DATA)).payload == message(b"served")
    served.calls[0].stream.end()
    assert await client.closed()
    client.writer.close()
    newcomer.writer.close()


async def test_a_connection_that_others_accepted_is_served_without_a_port() -> None:
    served = Served(Bounds(), tls=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served.port = listening.getsockname()[1]
        client = await served.connect()
        accepted, _ = listening.accept()
        await served.listener.adopt(accepted)
        client.say(HELLO + headers(1) + data(1, message(b"hello"), END_STREAM))
        assert (await client.until(lambda each: each.kind == DATA)).payload == message(b"hello")
        await served.listener.stop(0)
    await client.closed()


@pytest.mark.parametrize("end", ["shut", "stop"])
async def test_who_comes_when_all_is_over_is_closed_unread(end: str) -> None:
    served = Served(Bounds(), tls=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served.port = listening.getsockname()[1]
        client = await served.connect()
        client.say(HELLO + headers(1) + data(1, message(b"too late"), END_STREAM))
        accepted, _ = listening.accept()
        if end == "shut":
            served.listener.shut()
        else:
            await served.listener.stop(0)
        await served.listener.adopt(accepted)
        assert await client.closed() == b""
        await served.listener.stop(0)
    assert (served.calls, served.refused.seen, [*served.listener.peers]) == ([], [], [])


async def test_one_that_is_over_when_it_is_taken_costs_nothing() -> None:
    served = Served(Bounds(), tls=False)
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.shutdown(socket.SHUT_RDWR)
    await served.listener.adopt(ours)
    async with asyncio.timeout(10):
        while served.listener.peers:
            await asyncio.sleep(0.01)
    await served.listener.stop(0)


async def test_the_busiest_peer_is_asked_to_come_again_and_the_others_stay(serve: Serve) -> None:
    served = await serve()
    clients = [await served.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        client.say(HELLO + b"".join(headers(1 + 2 * stream) for stream in range(number)) + PING_FRAME)
        await client.until(is_pong)
    assert served.listener.busy == 3, "one that has just come may be about to ask"
    served.now += 10
    assert served.listener.busy == 2
    served.listener.shed()
    await clients[2].until(lambda each: each.kind == GOAWAY)
    ping = await clients[2].until(lambda each: each.kind == PING)
    clients[2].say(frame(PING, ACK, 0, ping.payload) + PING_FRAME)
    await clients[2].until(is_pong)
    assert served.listener.busy == 1, "it takes no more"
    for client in clients[:2]:
        client.say(PING_FRAME)
        await client.until(is_pong)
        assert all(each.kind != GOAWAY for each in client.seen)
