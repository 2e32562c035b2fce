"""The port of the pages, before those who misuse it."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from multipick_epp.admin import port as admin_port
from multipick_epp.admin.port import AdminPort, healthy

PAGE = b"x" * (64 << 20)  # more than the system's buffers take


async def large(_: web.Request) -> web.Response:
    return web.Response(body=PAGE)


@pytest.fixture
async def pages() -> AsyncIterator[AdminPort]:
    pages = AdminPort({"/healthz": healthy, "/large": large})
    yield pages
    await pages.close()


async def answer(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    try:
        return await reader.readline()
    finally:
        writer.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
async def test_all_of_ipv6_is_ipv4_too_as_on_the_other_ports(pages: AdminPort) -> None:
    port = await pages.start("::", 0)
    for host in ("::1", "127.0.0.1"):
        assert await answer(host, port) == b"HTTP/1.1 200 OK\r\n", host


async def test_a_port_that_is_taken_is_told_with_its_number(pages: AdminPort) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RuntimeError, match="in use"):
        await pages.start("127.0.0.1", taken.getsockname()[1])


async def test_connections_that_rest_make_room_for_others_oldest_first(
    pages: AdminPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_port, "CONNECTIONS", 3)
    port = await pages.start("127.0.0.1", 0)
    resting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    assert await answer("127.0.0.1", port) == b"HTTP/1.1 200 OK\r\n"
    assert not await ends(resting[0][0])
    youngest_reader, youngest_writer = resting[-1]
    youngest_writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await youngest_reader.readline() == b"HTTP/1.1 200 OK\r\n"
    for _, writer in resting:
        writer.close()


async def ends(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_reader_that_stands_still_is_not_waited_for_at_the_end(
    pages: AdminPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_port, "_END_S", 0.05)
    port = await pages.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await reader.read(1) == b"H"  # its page is on the way, and it reads no more
    async with asyncio.timeout(50):  # what the library would wait by itself is a minute
        await pages.close()
    writer.close()
