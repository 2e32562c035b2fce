"""The process that ingests, as it ends."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

from multipick_epp.events.child import _report


async def test_reports_end_where_nobody_is_left_to_read_them() -> None:
    """The end of the picker's lines may be heard of later: to write meanwhile would be an error of its own."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.close()
    assert await reader.read() == b""
    writer.transport.abort()
    index: Any = SimpleNamespace(degraded=None)
    ingest: Any = SimpleNamespace(stats=list)
    async with asyncio.timeout(60):
        await _report(index, ingest, writer.transport)
