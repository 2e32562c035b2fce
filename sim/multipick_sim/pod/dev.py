"""What vLLM serves in its dev mode only, and `/sim/cache`: what is really cached."""

from aiohttp import web

from multipick_sim.pod.generate import refusal
from multipick_sim.pod.orders import bad_request
from multipick_sim.pod.pod import Pod
from multipick_sim.pod.rank import Rank


def routes(pod: Pod) -> list[web.RouteDef]:
    """None outside dev mode."""
    if not pod.settings.dev:
        return []

    async def reset_prefix_cache(http: web.Request) -> web.Response:
        """Fails while a request holds blocks, unless `?reset_running_requests=true`."""
        preempt = http.query.get("reset_running_requests", "false").lower() == "true"
        done = [rank.reset_prefix_cache(preempt) for rank in pod.ranks]
        return web.json_response({"success": all(done)})

    async def sleep(http: web.Request) -> web.Response:
        """Level 0 pauses; 1 and 2 also end all requests and drop the cache."""
        level = http.query.get("level", "1")
        if level not in ("0", "1", "2"):
            return refusal(bad_request("level must be 0, 1 or 2.", "level"))
        for rank in pod.ranks:
            _sleep(rank, int(level))
        return web.json_response({"status": "sleeping", "level": int(level)})

    async def wake_up(http: web.Request) -> web.Response:
        for rank in pod.ranks:
            rank.sleep_level = None
            rank.resume()
        return web.json_response({"status": "awake", "tags": http.query.getall("tags", None)})

    async def is_sleeping(_: web.Request) -> web.Response:
        return web.json_response({"is_sleeping": any(rank.sleep_level is not None for rank in pod.ranks)})

    async def cache(_: web.Request) -> web.Response:
        """Cached blocks by rank; see `Truth.blocks`. Equal to what the events say when no request is in flight."""
        return web.json_response({str(number): truth.blocks() for number, truth in pod.truths.items()})

    return [
        web.post("/reset_prefix_cache", reset_prefix_cache),
        web.post("/sleep", sleep),
        web.post("/wake_up", wake_up),
        web.get("/is_sleeping", is_sleeping),
        web.get("/sim/cache", cache),
    ]


def _sleep(rank: Rank, level: int) -> None:
    rank.pause()
    rank.sleep_level = level
    if level:
        rank.abort_all()
        rank.reset_prefix_cache(preempt_running=False)
