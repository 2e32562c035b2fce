"""What vLLM serves in its dev mode only, and what no vLLM has: `/sim/cache`, what is really cached, and `/sim/sick`."""

import msgspec
from aiohttp import web

from multipick_sim.pod.generate import refusal
from multipick_sim.pod.pod import Pod
from multipick_sim.pod.rank import Rank
from multipick_sim.pod.refused import bad_request
from multipick_sim.pod.sickness import Sickness


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

    async def health(_: web.Request) -> web.Response:
        """How it is sick, and how many requests for answers suffered from it."""
        told = {"sickness": pod.ward.sickness, "drawn": pod.ward.drawn}
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    async def fall_sick(http: web.Request) -> web.Response:
        """Be as the body says, and no longer as before; `{}` is well."""
        try:
            sickness = msgspec.json.decode(await http.read(), type=Sickness)
        except msgspec.DecodeError as error:
            return refusal(bad_request(str(error)))
        for rank in pod.ranks:
            if rank.publisher is not None:
                rank.publisher.replays = sickness.replays
                rank.publisher.keep(sickness.replay_batches)
                await rank.publisher.let(sickness.events)
        pod.ward.fall(sickness)
        return await health(http)

    return [
        web.post("/reset_prefix_cache", reset_prefix_cache),
        web.post("/sleep", sleep),
        web.post("/wake_up", wake_up),
        web.get("/is_sleeping", is_sleeping),
        web.get("/sim/cache", cache),
        web.get("/sim/sick", health),
        web.post("/sim/sick", fall_sick),
    ]


def _sleep(rank: Rank, level: int) -> None:
    rank.pause()
    rank.sleep_level = level
    if level:
        rank.abort_all()
        rank.reset_prefix_cache(preempt_running=False)
