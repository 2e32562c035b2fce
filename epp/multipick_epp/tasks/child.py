"""The other side of `process`: how a process that is kept begins."""

import asyncio
import os
import signal
import sys


async def streams(descriptor: int, line_bytes: int) -> tuple[asyncio.StreamReader, asyncio.WriteTransport]:
    """Its input, lines of so many bytes at most, and where its reports go. A SIGTERM is the end of the input."""
    # Ctrl-C and the end of a terminal reach the whole group of processes; who started us decides when to end.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=line_bytes)
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, pipe.close)
    reports, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(descriptor, "wb"))
    return lines, reports
