"""What reaches the index when a real publisher publishes, loses messages, restarts and goes away."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.ingest import Ingest
from multipick_epp.state.memory import MemoryState
from multipick_epp.types import BlockKey, Endpoint, Mode

POD = Endpoint("127.0.0.1:9")  # nothing listens there: addresses are given
IDS = list(range(1, 10))
SIZE = 2


def root(lora: str | None) -> BlockKey:
    return root_key(b"secret", "model", lora)


def chains(ids: Sequence[int] = IDS) -> Chains:
    return Chains(len(ids), {SIZE: block_keys(root(None), ids, SIZE)})


class Picker:
    """An ingest and the state that it writes."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.ingest = Ingest(self.state, root, Ports())

    def follow(self, publisher: Any, endpoint: Endpoint = POD, **more: Any) -> None:
        self.ingest.follow([FeedSpec(endpoint, publisher.events, publisher.replay, **more)])

    def hit(self, ids: Sequence[int] = IDS, endpoint: Endpoint = POD) -> int:
        return self.state.hits(chains(ids)).get(endpoint, 0)

    def knows(self, tokens: int, mode: Mode = Mode.EXACT, endpoint: Endpoint = POD) -> Callable[[], bool]:
        return lambda: self.hit(endpoint=endpoint) == tokens and self.state.mode(endpoint) is mode

    @property
    def stats(self) -> FeedStats:
        (stats,) = self.ingest.stats()
        return stats

    def connected(self) -> bool:
        return bool(self.ingest.stats()) and self.stats.connected


@pytest.fixture
async def picker() -> AsyncIterator[Picker]:
    picker = Picker()
    await picker.ingest.start()
    yield picker
    await picker.ingest.close()


@pytest.mark.parametrize("topic_in_replay", [True, False], ids=["vLLM >= 0.26", "older"])
async def test_a_late_join_learns_everything_by_replay(
    picker: Picker, publisher: Any, store: Any, remove: Any, eventually: Any, topic_in_replay: bool
) -> None:
    pod = publisher(topic_in_replay=topic_in_replay)
    pod.publish(store([1, 2, 3], None, IDS[:6]))
    pod.publish(remove(3))
    picker.follow(pod)
    await eventually(picker.knows(4))
    pod.publish(store([3, 4], 2, IDS[4:8]))
    await eventually(picker.knows(8))


async def test_an_engine_that_published_nothing_yet_is_known_exactly(
    picker: Picker, publisher: Any, eventually: Any
) -> None:
    picker.follow(publisher())
    await eventually(picker.knows(0))


async def test_lost_messages_are_replayed_in_order(
    picker: Picker, publisher: Any, store: Any, remove: Any, eventually: Any
) -> None:
    pod = publisher()
    picker.follow(pod)
    await eventually(picker.knows(0))
    pod.publish(store([1, 2], None, IDS[:4]))
    pod.publish(store([3], 2, IDS[4:6]), lost=True)
    pod.publish(remove(2), lost=True)
    pod.publish(store([2], 1, IDS[2:4]), store([4], 3, IDS[6:8]))
    await eventually(picker.knows(8))
    assert picker.stats.gaps == 1


async def test_a_message_lost_before_a_silence_is_found(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher()
    picker.follow(pod)
    await eventually(picker.knows(0))
    pod.publish(store([1, 2], None, IDS[:4]), lost=True)
    await eventually(picker.knows(4))
    assert picker.stats.gaps == 0


async def test_a_truncated_replay_is_approximate_until_it_is_known_better(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher(kept=2)
    pod.publish(store([1], None, IDS[:2]))
    pod.publish(store([2], 1, IDS[2:4]))  # from here on it is kept: an orphan
    pod.publish(store([50], None, [77, 78]))
    picker.follow(pod)
    await eventually(lambda: picker.hit([77, 78, 79]) == 2 and picker.state.mode(POD) is Mode.APPROX)
    assert (picker.hit(), picker.stats.waiting_blocks) == (0, 1)
    pod.publish(store([1], None, IDS[:2]))  # its parent comes back
    await eventually(picker.knows(4, Mode.APPROX))
    pod.publish({"type": "AllBlocksCleared"}, store([1], None, IDS[:2]))
    await eventually(picker.knows(2))


async def test_without_a_replay_socket_it_starts_approximate_and_keeps_what_it_knows_over_gaps(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher(replay_port=None)
    pod.publish(store([1], None, IDS[:2]))
    picker.follow(pod)
    await eventually(lambda: picker.state.mode(POD) is Mode.APPROX)
    await eventually(pod.subscribed)
    pod.publish(store([1], None, IDS[:2]))
    await eventually(picker.knows(2, Mode.APPROX))
    pod.publish(lost=True)
    pod.publish(store([2], 1, IDS[2:4]))
    await eventually(picker.knows(4, Mode.APPROX))


@pytest.mark.parametrize("replay", [True, False], ids=["replay", "no replay"])
async def test_a_restart_in_place_voids_what_was_known(
    picker: Picker, publisher: Any, store: Any, eventually: Any, replay: bool
) -> None:
    pod = publisher(replay_port=0 if replay else None)
    picker.follow(pod)
    await eventually(picker.connected)
    await eventually(pod.subscribed)
    pod.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(4))
    pod.stop()
    await eventually(picker.knows(4, Mode.APPROX))
    again = publisher(port=pod.port, replay_port=pod.replay_port if replay else None)
    await eventually(picker.connected)
    await eventually(again.subscribed)
    again.publish(store([8], None, [40, 41]))
    await eventually(lambda: picker.hit([40, 41, 42]) == 2 and picker.hit() == 0)
    assert picker.state.mode(POD) is Mode.EXACT
    assert picker.stats.restarts == 1


async def test_a_restarted_engine_whose_numbers_go_on_by_chance_is_noticed(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher()
    picker.follow(pod)
    pod.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(4))
    pod.stop()
    again = publisher(port=pod.port, replay_port=pod.replay_port)
    again.publish(store([8], None, [40, 41]))
    again.publish(store([9], 8, [42, 43]))
    await eventually(lambda: picker.hit([40, 41, 42, 43, 44]) == 4 and picker.hit() == 0)
    assert picker.state.mode(POD) is Mode.EXACT


async def test_a_disconnection_alone_changes_nothing(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    """The engine goes on behind a broken connection: here the same batches, numbers and bytes on the same ports."""
    pod = publisher()
    picker.follow(pod)
    pod.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(4))
    uploads = picker.stats.uploads
    kept = list(pod._kept)
    pod.stop()
    again = publisher(port=pod.port, replay_port=pod.replay_port)
    with again._lock:
        again._kept.extend(kept)
        again.published = pod.published
    again.publish(store([3], 2, IDS[4:6]))
    await eventually(picker.knows(6))
    assert (picker.stats.restarts, picker.stats.uploads) == (0, uploads)


async def test_a_new_container_is_a_new_engine_whatever_its_batches_say(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher(replay_port=None)
    picker.follow(pod, started_ms=1)
    await eventually(picker.connected)
    await eventually(pod.subscribed)
    pod.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(4))
    picker.follow(pod, started_ms=2)  # long ago: already taken into account
    picker.follow(pod, started_ms=10**15)
    await eventually(picker.knows(0, Mode.APPROX))
    assert picker.stats.restarts == 1


async def test_an_endpoint_that_left_the_pool_is_forgotten(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher()
    pod.publish(store([1, 2], None, IDS[:4]))
    picker.follow(pod)
    await eventually(picker.knows(4))
    picker.ingest.follow([])
    await eventually(picker.knows(0, Mode.BLIND))
    pod.publish(store([3], 2, IDS[4:6]))
    picker.follow(pod)
    await eventually(picker.knows(6))


async def test_an_endpoint_that_another_replica_owns_keeps_its_entries(
    picker: Picker, publisher: Any, store: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = publisher()
    pod.publish(store([1, 2], None, IDS[:4]))
    picker.follow(pod)
    await eventually(picker.knows(4))
    monkeypatch.setattr(picker.state, "owned", lambda endpoints: ())
    assert await picker.state.take_over(POD), "the other one has, too"
    await eventually(lambda: not picker.ingest.stats())
    assert picker.hit() == 4
    pod.publish(store([3], 2, IDS[4:6]))
    monkeypatch.undo()
    await eventually(picker.knows(6))


async def test_what_is_no_event_message_does_no_harm(
    picker: Picker, publisher: Any, store: Any, eventually: Any
) -> None:
    pod = publisher()
    picker.follow(pod)
    await eventually(picker.knows(0))
    for frames in ([b""], [b"t", b"short", b"x"], [bytes(8)]):
        pod._pub.send_multipart(frames)
    pod._pub.send_multipart([b"", (0).to_bytes(8, "big"), b"no msgpack"])
    pod.published = 1
    pod.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(4, Mode.APPROX))
    assert picker.stats.undecodable == 4


async def test_a_burst_arrives_whole(picker: Picker, publisher: Any, store: Any, remove: Any, eventually: Any) -> None:
    pod = publisher()
    picker.follow(pod)
    await eventually(picker.knows(0))
    for number in range(3000):
        pod.publish(store([number + 1], number or None, [number, 1]))
    ids = [token for number in range(3000) for token in (number, 1)]
    await eventually(lambda: picker.hit([*ids, 0]) == 6000)
    assert picker.state.mode(POD) is Mode.EXACT


class TestDiscovery:
    """Over HTTP, from an engine's own answer."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[Callable[..., Any]]:
        runners: list[web.AppRunner] = []

        async def start(answer: Any = None, status: int = 200) -> Endpoint:
            async def sources(_: web.Request) -> web.Response:
                return web.json_response(answer, status=status)

            app = web.Application()
            app.router.add_get("/kv_event_sources", sources)
            runner = web.AppRunner(app)
            await runner.setup()
            runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return Endpoint(f"127.0.0.1:{runner.addresses[0][1]}")

        yield start
        for runner in runners:
            await runner.cleanup()

    async def test_each_rank_is_followed_under_its_own_endpoint(
        self, picker: Picker, publisher: Any, store: Any, eventually: Any, engine: Any
    ) -> None:
        pods = [publisher(), publisher()]
        answer = {
            str(rank): {
                "endpoint": f"tcp://*:{pod.port}",
                "replay_endpoint": f"tcp://*:{pod.replay_port}",
                "buffer_steps": 10000,
                "topic": "kv",
            }
            for rank, pod in enumerate(pods)
        }
        endpoints = [await engine(answer), await engine(answer)]
        for rank, pod in enumerate(pods):
            pod.publish(store([1, 2], None, IDS[:4]), *([store([3], 2, IDS[4:6])] if rank else []))
        picker.ingest.follow([FeedSpec(endpoint, rank=rank) for rank, endpoint in enumerate(endpoints)])
        await eventually(picker.knows(4, endpoint=endpoints[0]))
        await eventually(picker.knows(6, endpoint=endpoints[1]))

    async def test_an_engine_without_an_answer_is_followed_at_the_pools_ports(
        self, publisher: Any, store: Any, eventually: Any, engine: Any
    ) -> None:
        pod = publisher()
        pod.publish(store([1, 2], None, IDS[:4]))
        picker = Picker()
        picker.ingest = Ingest(picker.state, root, Ports(pod.port, pod.replay_port))
        await picker.ingest.start()
        endpoint = await engine({"detail": "Not Found"}, status=404)
        picker.ingest.follow([FeedSpec(endpoint)])
        try:
            await eventually(picker.knows(4, endpoint=endpoint))
        finally:
            await picker.ingest.close()

    async def test_an_engine_with_events_off_stays_blind(self, picker: Picker, eventually: Any, engine: Any) -> None:
        endpoint = await engine({})
        picker.ingest.follow([FeedSpec(endpoint)])
        await eventually(lambda: any("off" in stats.why for stats in picker.ingest.stats()))
        assert picker.state.mode(endpoint) is Mode.BLIND

    async def test_an_engine_that_publishes_elsewhere_after_a_restart_is_found(
        self, picker: Picker, publisher: Any, store: Any, eventually: Any, engine: Any
    ) -> None:
        def source(pod: Any) -> dict[str, Any]:
            return {"endpoint": f"tcp://*:{pod.port}", "replay_endpoint": f"tcp://*:{pod.replay_port}"}

        before = publisher()
        answer = {"0": source(before)}
        endpoint = await engine(answer)
        picker.ingest.follow([FeedSpec(endpoint)])
        await eventually(picker.knows(0, endpoint=endpoint))
        before.stop()
        again = publisher()
        again.publish(store([1, 2], None, IDS[:4]))
        answer["0"] = source(again)
        await eventually(picker.knows(4, endpoint=endpoint))
