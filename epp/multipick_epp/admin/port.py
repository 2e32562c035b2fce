"""The HTTP port that the pages are on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from multipick_epp.extproc.listening import BACKLOG, listening

Handler = Callable[[web.Request], Awaitable[web.Response]]

CONNECTIONS: Final = 256
"""Scrapers and people have a few. Whoever opens more, or lets them rest, must not use up what gateways need."""
_END_S: Final = 2.0  # for readers that have not taken their page when the port closes


class AdminPort:
    """Pages by their paths, as aiohttp writes these."""

    def __init__(self, pages: Mapping[str, Handler]) -> None:
        self._pages = pages
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises RuntimeError where it can't be had."""
        app = web.Application()
        for path, handler in self._pages.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_S)
        await self._runner.setup()
        port_socket = listening(host, port)
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=port_socket, backlog=BACKLOG)
        bound: int = port_socket.getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()
        if self._runner:
            await self._runner.cleanup()

    def _accept(self) -> RequestHandler:
        """Of a new connection; where there are too many, the oldest makes room for it."""
        assert self._runner is not None
        assert self._runner.server is not None
        there = self._runner.server.connections
        transports = (each.transport for each in there if each.transport and not each.transport.is_closing())
        if len(there) >= CONNECTIONS and (oldest := next(transports, None)) is not None:
            oldest.abort()
        return self._runner.server()


async def healthy(_: web.Request) -> web.Response:
    """The process answers."""
    return web.Response(text="ok\n")


def metrics_page(page: bytes) -> web.Response:
    """As Prometheus reads it."""
    return web.Response(body=page, headers={"content-type": "text/plain; version=0.0.4"})


def json_page(body: bytes) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=body, content_type="application/json")
