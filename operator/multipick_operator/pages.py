"""The operator's own pages: `/livez`, `/healthz` and `/metrics`."""

from collections.abc import Callable

from aiohttp import web


async def serve(
    host: str, port: int, inability: Callable[[], str | None], metrics: Callable[[], bytes]
) -> web.AppRunner:
    """Serve them until the runner's `cleanup`.

    `/livez` says that the loop turns: what a restart can mend. `/healthz` says whether the operator can act; where it
    can't, 503 and why: a missing right, an API server that is away. Neither is mended by a restart.
    """

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def healthy(_: web.Request) -> web.Response:
        trouble = inability()
        return web.Response(text=f"{trouble or 'ok'}\n", status=503 if trouble else 200)

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"content-type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/livez", alive)
    app.router.add_get("/healthz", healthy)
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
