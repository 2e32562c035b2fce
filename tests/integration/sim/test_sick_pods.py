"""A pod in dev mode is as sick as it is told to be, and no longer."""

import asyncio
from typing import Any

import pytest
import zmq

BODY = {"prompt": "hello", "max_tokens": 1}


async def fall(pod: Any, **sickness: object) -> None:
    status, told = await pod.post("/sim/sick", sickness)
    assert status == 200, told


async def drawn(pod: Any) -> int:
    _, told = await pod.get("/sim/sick")
    count = told["drawn"]
    assert isinstance(count, int)
    return count


async def test_it_refuses_everybody_or_posts_alone_until_it_is_well(start: Any) -> None:
    pod = await start()
    await fall(pod, status=500)
    assert (await pod.post("/v1/completions", BODY))[0] == 500
    assert (await pod.get("/health"))[0] == 500
    await fall(pod, status=404, requests="posts")
    assert (await pod.post("/v1/completions", BODY))[0] == 404
    assert (await pod.get("/health"))[0] == 200
    assert await drawn(pod) == 2
    await fall(pod)
    assert (await pod.post("/v1/completions", BODY))[0] == 200
    assert await drawn(pod) == 0


async def test_what_hangs_is_answered_once_it_is_well(start: Any) -> None:
    pod = await start()
    await fall(pod, hang=True)
    hung = asyncio.create_task(pod.post("/v1/completions", BODY))
    while not await drawn(pod):
        await asyncio.sleep(0.01)
    assert not hung.done()
    await fall(pod)
    assert (await hung)[0] == 200


async def test_held_events_come_late_and_in_order(start: Any, subscribe: Any) -> None:
    pod = await start()
    live = subscribe((await pod.sources())["0"]["endpoint"])
    await live.join(pod)
    await fall(pod, events="held")
    before = live.batches[-1][0]
    await pod.complete([1] * 16)
    await pod.complete([2] * 16)
    with pytest.raises(TimeoutError):
        await live.receive(0.3)
    await fall(pod)
    await live.receive_until(before + 2)
    assert [number for number, _ in live.batches[-2:]] == [before + 1, before + 2]


@pytest.mark.parametrize("events", ["dropped", "cut"])
async def test_events_that_never_leave_can_be_replayed(start: Any, subscribe: Any, tools: Any, events: str) -> None:
    pod = await start()
    source = (await pod.sources())["0"]
    live = subscribe(source["endpoint"])
    await live.join(pod)
    await fall(pod, events=events)
    before = live.batches[-1][0]
    await pod.complete([1] * 16)
    await fall(pod)
    number = before
    while number == before:  # a connection that was cut takes a moment to come back
        await pod.complete([2 + number] * 16)
        await asyncio.sleep(0.05)
        try:
            number, _ = await live.receive(0.05)
        except TimeoutError:
            continue
    assert number > before + 1
    assert before + 1 in [each for each, _ in await tools.replay(source["replay_endpoint"], before)]


async def test_replays_are_refused_or_short(start: Any, tools: Any) -> None:
    pod = await start()
    endpoint = (await pod.sources())["0"]["replay_endpoint"]
    for number in range(4):
        await pod.complete([number] * 16)
    await fall(pod, replay_batches=2)
    assert len(await tools.replay(endpoint, 0)) == 2
    await fall(pod, replays=False)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(endpoint.replace("*", "127.0.0.1"))
        dealer.send_multipart([b"", bytes(8)])
        assert not dealer.poll(300)


@pytest.mark.parametrize("sickness", [{"status": 200}, {"events": "lost"}, {"replay_batches": 0}, {"hangs": True}, []])
async def test_a_sickness_that_there_is_not_is_refused(start: Any, sickness: Any) -> None:
    pod = await start()
    assert (await pod.post("/sim/sick", sickness))[0] == 400
    assert (await pod.post("/v1/completions", BODY))[0] == 200


async def test_only_dev_mode_can_be_made_sick(plain_pod: Any) -> None:
    assert (await plain_pod.post("/sim/sick", {"status": 500}))[0] == 404
