"""The life of a pod's process: bind, serve until SIGTERM or SIGINT, drain, end."""

import asyncio
import signal

from aiohttp import web
from aiohttp.typedefs import Handler

from multipick_sim.pod import dev, generate, info, runtime_loras
from multipick_sim.pod.pod import Pod
from multipick_sim.pod.settings import Settings

MAX_BODY_BYTES = 32_000_000
LAST_BYTES_S = 2.0  # for handlers to send what is left when all requests have ended


async def serve(settings: Settings) -> None:
    """Serve until told to stop; see `Settings.shutdown_timeout_s` for what becomes of requests in flight.

    Event sockets are bound before the HTTP port, as vLLM does. Raises OSError, ValueError or zmq.ZMQError.
    """
    pod = Pod(settings)
    pod.start()
    runner = web.AppRunner(
        application(pod),
        handler_cancellation=True,  # a client that leaves cancels its handler, which aborts its request
        access_log=None,
        auto_decompress=False,  # vLLM doesn't: a body that is compressed is no JSON
        shutdown_timeout=LAST_BYTES_S,
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        stop = _stop_signal()
        await site.start()
        _announce(pod, runner)
        await pod.run_until(stop)
        await pod.drain(settings.shutdown_timeout_s)
    finally:
        await runner.cleanup()
        await pod.close()


def application(pod: Pod) -> web.Application:
    """All endpoints of one pod."""
    wards = [pod.ward.treat] if pod.settings.dev else []
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_as_fastapi, *wards])
    app.add_routes([*generate.routes(pod), *info.routes(pod), *runtime_loras.routes(pod), *dev.routes(pod)])
    return app


@web.middleware
async def _as_fastapi(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What no endpoint answers (unknown paths, other methods) in the words of vLLM's framework."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        allowed = {"allow": error.headers["allow"]} if "allow" in error.headers else None
        return web.json_response({"detail": error.reason}, status=error.status, headers=allowed)


def _stop_signal() -> asyncio.Future[None]:
    """Done at the first SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def set_once() -> None:
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, set_once)
    return stop


def _announce(pod: Pod, runner: web.AppRunner) -> None:
    """One line on stdout, with the port that was bound where any would do."""
    host, port = runner.addresses[0][:2]
    host = f"[{host}]" if ":" in host else host
    sources = [rank.publisher.endpoint for rank in pod.ranks if rank.publisher is not None]
    events = f", KV events on {', '.join(sources)}" if sources else ""
    print(f"serving {pod.settings.models[0]} on http://{host}:{port}{events}", flush=True)
