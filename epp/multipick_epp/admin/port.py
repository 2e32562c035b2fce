"""The HTTP port that the pages are on."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]


class AdminPort:
    """Pages by their paths, as aiohttp writes these."""

    def __init__(self, pages: Mapping[str, Handler]) -> None:
        self._pages = pages
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError where it is taken."""
        app = web.Application()
        for path, handler in self._pages.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()


async def healthy(_: web.Request) -> web.Response:
    """The process answers."""
    return web.Response(text="ok\n")


def metrics_page(page: bytes) -> web.Response:
    """As Prometheus reads it."""
    return web.Response(body=page, headers={"content-type": "text/plain; version=0.0.4"})


def json_page(body: bytes) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=body, content_type="application/json")
