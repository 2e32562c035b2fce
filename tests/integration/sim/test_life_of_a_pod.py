"""Start, drain, abort, sleep: what a picker and a gateway see of a pod's life (recordings A 14 and 18, S1, S2)."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
from multipick_sim.texts import fixed_text

S2 = Path(__file__).parents[2] / "fixtures" / "S2_sigterm_drain15" / "steps.jsonl"


class Stream:
    """An answer on its way."""

    def __init__(self, pod: Any, max_tokens: int, prompt: str = "hello") -> None:
        self._pod = pod
        self._body = {"prompt": prompt, "max_tokens": max_tokens, "stream": True}

    async def __aenter__(self) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._pod.session.post(
            self._pod.url + "/v1/completions", json=self._body
        )
        assert response.status == 200
        self._response = response
        return response

    async def __aexit__(self, *_: object) -> None:
        self._response.close()


async def chunks(response: aiohttp.ClientResponse) -> list[Any]:
    """The rest of a stream; "[DONE]" as it is."""
    lines = [line.removeprefix("data: ") for line in (await response.text()).split("\n") if line]
    return [*map(json.loads, lines[:-1]), *lines[-1:]]


async def until(pod: Any, gauge: str, value: float) -> None:
    while await pod.gauge(gauge) != value:
        await asyncio.sleep(0.01)


async def test_headers_come_before_the_first_token(start: Any) -> None:
    pod = await start()
    await pod.post("/sleep?level=0")
    async with Stream(pod, 2) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        await pod.post("/wake_up")
        assert (await chunks(response))[-1] == "[DONE]"


async def test_a_drain_finishes_what_runs_refuses_what_comes_and_stays_healthy_as_recorded(start: Any) -> None:
    recorded = [json.loads(line) for line in S2.read_text().splitlines()][1]
    _, (health, models, completion) = next(value for value in recorded.values() if isinstance(value, list))[0]
    pod = await start("--shutdown-timeout", "30", "--speed", "1")
    async with Stream(pod, 150) as response:
        await response.content.readline()
        pod.process.send_signal(signal.SIGTERM)
        while (late := await pod.complete("too late"))["choices"][0]["finish_reason"] != "abort":
            pass
        assert late["choices"][0]["text"] == ""
        assert completion[1] == 200
        assert '"text":"","logprobs":null,"finish_reason":"ab' in completion[2]
        assert (await pod.get("/health"))[0] == health[1] == 200
        assert (await pod.get("/v1/models"))[0] == models[1] == 200
        async with Stream(pod, 5) as refused:
            (only, done) = await chunks(refused)
            assert (only["choices"][0]["finish_reason"], done) == ("abort", "[DONE]")
        *_, last, done = await chunks(response)
        assert (last["choices"][0]["finish_reason"], done) == ("length", "[DONE]")
    assert await asyncio.wait_for(pod.process.wait(), 10) == 0


async def test_without_a_shutdown_timeout_streams_end_with_abort(start: Any) -> None:
    pod = await start("--speed", "1")
    async with Stream(pod, 100_000) as response:
        await response.content.readline()
        pod.process.send_signal(signal.SIGTERM)
        *_, last, done = await chunks(response)
        assert (last["choices"][0]["finish_reason"], done) == ("abort", "[DONE]")
    assert await asyncio.wait_for(pod.process.wait(), 60) == 0


async def test_an_idle_pod_ends_at_once(start: Any) -> None:
    pod = await start("--shutdown-timeout", "600")
    pod.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(pod.process.wait(), 60) == 0


async def test_a_client_that_leaves_frees_its_request_and_leaves_its_cache(start: Any) -> None:
    pod = await start("--speed", "1")
    async with Stream(pod, 100_000, fixed_text(1, 40)) as response:
        await response.content.readline()
        await until(pod, "num_requests_running", 1)
        assert await pod.gauge("kv_cache_usage_perc") > 0
    await until(pod, "num_requests_running", 0)
    assert await pod.gauge("kv_cache_usage_perc") == 0
    again = await pod.complete(fixed_text(1, 40))
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 32


async def test_a_client_that_leaves_the_queue_is_forgotten(start: Any) -> None:
    pod = await start()
    await pod.post("/sleep?level=0")
    async with Stream(pod, 5):
        await until(pod, "num_requests_waiting", 1)
    await until(pod, "num_requests_waiting", 0)


async def test_a_sleeping_pod_is_healthy_queues_and_keeps_its_cache_at_level_0_only(start: Any) -> None:
    pod = await start()
    await pod.complete(fixed_text(1, 40))
    for level, hit in (("0", 32), ("1", 0)):
        assert (await pod.post(f"/sleep?level={level}"))[1] == {"status": "sleeping", "level": int(level)}
        assert (await pod.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert (await pod.get("/health"))[0] == 200
        queued = asyncio.create_task(pod.complete(fixed_text(1, 40)))
        await until(pod, "num_requests_waiting", 1)
        assert (await pod.post("/wake_up"))[1] == {"status": "awake", "tags": None}
        assert (await queued)["usage"]["prompt_tokens_details"]["cached_tokens"] == hit
    assert (await pod.get("/is_sleeping"))[1] == {"is_sleeping": False}


async def test_a_reset_waits_for_nobody(start: Any) -> None:
    pod = await start("--speed", "1")
    async with Stream(pod, 100, fixed_text(1, 40)) as response:
        await response.content.readline()
        assert (await pod.post("/reset_prefix_cache"))[1] == {"success": False}
        assert (await pod.post("/reset_prefix_cache?reset_running_requests=true"))[1] == {"success": True}
        *_, last, done = await chunks(response)
        assert (last["choices"][0]["finish_reason"], done) == ("length", "[DONE]")
    assert await pod.gauge("num_preemptions_total") == 1


async def test_outside_dev_mode_nobody_can_reset_or_look_inside(plain_pod: Any) -> None:
    for path in ("/reset_prefix_cache", "/sleep", "/wake_up"):
        assert (await plain_pod.post(path))[0] == 404
    assert (await plain_pod.get("/sim/cache"))[0] == 404
