"""A TCP relay before an API server, for what a network does to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster.apiserver import ApiServer


class Relay:
    """A way to an API server that can fall silent, with all its connections open, or be cut."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refuses = False

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Gives the URL."""
        listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        finally:
            listener.close()
            self._open.set()

    def silence(self) -> None:
        """Nothing passes any more."""
        self._open.clear()

    def cut(self) -> None:
        """All connections end, and new ones do at once, until `mend`."""
        self._refuses = True
        for writer in self._writers:
            writer.close()

    def mend(self) -> None:
        """Let connections in again."""
        self._refuses = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.close()
            return
        there = await asyncio.open_connection(self._server.address, self._server.port)
        self._writers |= {writer, there[1]}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)
        self._writers -= {writer, there[1]}
