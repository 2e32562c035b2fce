"""A worker's connections, where its channel fails."""

import asyncio
import errno
import socket

import pytest
from multipick_epp.workers.shared import GivenConnections


async def test_a_channel_that_failed_can_still_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the worker would end without giving back what it has reserved."""
    failed = asyncio.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(socket, "recv_fds", fail)
    front, channel = socket.socketpair()
    given = GivenConnections(channel, lambda _: None)
    given.begin()
    front.send(b"c")
    await failed.wait()
    given.end()
    given.end()
    front.close()
    assert channel.fileno() == -1
