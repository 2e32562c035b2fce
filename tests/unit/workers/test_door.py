"""Connections that are accepted in one place and served in another."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import pytest
from multipick_epp.workers import door
from multipick_epp.workers.door import Door
from multipick_epp.workers.shared import GivenConnections
from multipick_epp.workers.spread import Share


class Taker:
    """A worker in this process: what it is given goes through a channel, as to another."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.serving, self.silent, self.takes = True, False, True
        self.given = self.turn = 0
        self.found: list[socket.socket] = []
        self.ours, theirs = socket.socketpair()
        self.connections = GivenConnections(theirs, self.found.append)
        self.connections.begin()

    @property
    def share(self) -> Share:
        return Share(self.number, self.given, self.given, self.turn)

    def give(self, connection: socket.socket, turn: int) -> bool:
        if self.takes:
            socket.send_fds(self.ours, [b"c"], [connection.fileno()])
            self.given += 1
            self.turn = turn
        return self.takes

    def close(self) -> None:
        self.connections.end()
        self.ours.close()
        for each in self.found:
            each.close()


Open = Callable[[int], tuple[dict[int, Taker], int]]


@pytest.fixture
async def open_door() -> AsyncIterator[Open]:
    with ExitStack() as stack:

        def start(takers: int) -> tuple[dict[int, Taker], int]:
            workers = {number: Taker(number) for number in range(takers)}
            for each in workers.values():
                stack.callback(each.close)
            door = Door(workers)
            stack.callback(door.close)
            return workers, door.open("127.0.0.1", 0)

        yield start


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def served(workers: dict[int, Taker], connections: int) -> list[int]:
    """How many each has, once all are somewhere."""
    async with asyncio.timeout(60):
        while sum(len(each.found) for each in workers.values()) < connections:
            await asyncio.sleep(0.01)
    return [len(each.found) for each in workers.values()]


async def test_connections_are_dealt_out_one_by_one(open_door: Open) -> None:
    workers, port = open_door(3)
    clients = [await connect(port) for _ in range(10)]
    assert sorted(await served(workers, len(clients))) == [3, 3, 4]
    assert [each.connections.taken for each in workers.values()] == [len(each.found) for each in workers.values()]


async def test_what_is_given_is_the_connection_itself(open_door: Open) -> None:
    workers, port = open_door(1)
    reader, writer = await connect(port)
    await served(workers, 1)
    workers[0].found[0].sendall(b"from the worker")
    assert await reader.readexactly(15) == b"from the worker"
    writer.close()


async def test_who_does_not_serve_or_is_silent_or_takes_none_is_passed_over(open_door: Open) -> None:
    workers, port = open_door(4)
    workers[0].serving, workers[1].silent, workers[2].takes = False, True, False
    clients = [await connect(port) for _ in range(4)]
    assert await served(workers, len(clients)) == [0, 0, 0, 4]


async def test_where_all_are_silent_they_get_them_all_the_same(open_door: Open) -> None:
    workers, port = open_door(2)
    for each in workers.values():
        each.silent = True
    clients = [await connect(port) for _ in range(4)]
    assert await served(workers, len(clients)) == [2, 2]


async def test_where_nobody_takes_it_a_connection_ends_at_once(open_door: Open) -> None:
    workers, port = open_door(2)
    for each in workers.values():
        each.serving = False
    reader, writer = await connect(port)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


async def test_where_all_have_their_hands_full_connections_wait(open_door: Open) -> None:
    workers, port = open_door(2)
    for each in workers.values():
        each.takes = False
    clients = [await connect(port) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert await served(workers, 0) == [0, 0]
    for each in workers.values():
        each.takes = True
    assert sorted(await served(workers, len(clients))) == [2, 3]
    workers[0].found[0].sendall(b"hello")
    workers[1].found[0].sendall(b"hello")
    done, _ = await asyncio.wait(
        [asyncio.create_task(reader.readexactly(5)) for reader, _ in clients], return_when=asyncio.FIRST_COMPLETED
    )
    assert done.pop().result() == b"hello"


async def test_one_that_waits_when_nobody_serves_any_more_ends(open_door: Open) -> None:
    workers, port = open_door(1)
    workers[0].takes = False
    reader, writer = await connect(port)
    await asyncio.sleep(0.05)
    workers[0].serving = False
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


async def test_a_port_that_is_taken_is_named(open_door: Open) -> None:
    _, port = open_door(1)
    with pytest.raises(RuntimeError, match=f"port {port}: Address already in use"):
        Door({}).open("127.0.0.1", port)


class Starved(socket.socket):
    """A port of a process that has no descriptors left, for a while."""

    fails = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_where_nobody_can_accept_it_is_tried_again_after_a_pause(
    open_door: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def starved(host: str, port: int) -> Starved:
        made = Starved()
        made.bind((host, port))
        made.listen()
        return made

    monkeypatch.setattr(door, "listening", starved)
    monkeypatch.setattr(door, "_PAUSE_S", 0.05)
    workers, port = open_door(1)
    clients = [await connect(port)]
    assert await served(workers, len(clients)) == [1]
    assert len(caplog.records) == 3, "one a pause, and no turn of the loop in between"
