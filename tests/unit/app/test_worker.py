"""A worker's end."""

import asyncio
import socket
from typing import cast

import msgspec
import pytest
import uvloop
from multipick_epp.app.worker import Seat
from multipick_epp.config import Config
from multipick_epp.extproc.http2.headers import Request
from multipick_epp.extproc.http2.stream import Call, Stream
from multipick_epp.workers.messages import Start

from tests.unit.http2.peer import ACK, HEADERS, PREFACE, SETTINGS, frame, frames, headers, settings

HELLO = PREFACE + settings(window=1 << 20) + frame(SETTINGS, ACK)
CONFIG = {
    "pool": {"name": "pool", "models": ["model"]},
    "endpoints": [{"address": "127.0.0.1:1"}],
    "state": "memory",
    "events": {"enabled": False},
    "listen": {"host": "127.0.0.1", "ext_proc": 0, "health": 0, "admin": 0},
}


class Nobody(asyncio.WriteTransport):
    """Who reads no reports."""

    def is_closing(self) -> bool:
        return True


async def given_at_the_end(turns: int) -> None:
    """A worker is given a connection that asks already, and ends so many turns of the loop later."""
    channel, its_channel = socket.socketpair()
    seat = Seat(Start(msgspec.convert(CONFIG, Config)), cast("asyncio.WriteTransport", Nobody()), its_channel)
    await seat.app.start()
    listener, begun = seat._listener, []
    serve = listener._serve

    def noting(request: Request, stream: Stream) -> Call | Exception:
        begun.append(request)
        return serve(request, stream)

    listener._serve = noting  # type: ignore[assignment]
    with channel, socket.create_server(("127.0.0.1", 0)) as port, socket.create_connection(port.getsockname()) as peer:
        peer.sendall(HELLO + headers(1))
        accepted, _ = port.accept()
        with accepted:
            socket.send_fds(channel, [b"x"], [accepted.fileno()])
        seat._given.begin()
        async with asyncio.timeout(60):
            while not seat._given.taken:
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            await listener.stop(0)
            await seat.close()
        peer.settimeout(10)
        said = await asyncio.to_thread(until_closed, peer)
    assert not listener.peers
    answered = any(each.kind == HEADERS for each in frames(said))
    assert answered == bool(begun)


def until_closed(peer: socket.socket) -> bytes:
    said = b""
    try:
        while more := peer.recv(1 << 16):
            said += more
    except ConnectionResetError:
        pass
    return said


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_that_comes_at_the_end_is_answered_or_closed_unread(turns: int) -> None:
    uvloop.run(given_at_the_end(turns))  # the loop that workers have
