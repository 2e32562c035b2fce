"""Whatever one pod publishes, and whatever the index or the system makes of it, the others are known as before."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import pytest
import zmq
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.events import ingest, subscription
from multipick_epp.events.discover import Addresses, FeedSpec, Ports
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.ingest import Ingest
from multipick_epp.events.sequence import MAX_HELD_BYTES
from multipick_epp.events.source import TURN_BYTES
from multipick_epp.events.tracker import Tracker
from multipick_epp.state.cache import Cache
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Applied, Delta
from multipick_epp.types import BlockKey, Endpoint, Mode

GOOD, BAD = Endpoint("127.0.0.1:1"), Endpoint("127.0.0.1:2")
IDS = list(range(1, 10))
SIZE = 2


def root(lora: str | None) -> BlockKey:
    return root_key(b"secret", "model", lora)


def spec(publisher: Any, endpoint: Endpoint) -> FeedSpec:
    return FeedSpec(endpoint, publisher.events, publisher.replay)


class Picker:
    """An ingest and the state that it writes."""

    def __init__(self, state: MemoryState | None = None, media: Mapping[str, float] | None = None) -> None:
        self.state = state or MemoryState(medium_weights=media)
        self.ingest = Ingest(self.state, root, Ports(), tuple(media or ()))

    async def follow(self, *specs: FeedSpec) -> None:
        self.ingest.follow(specs)
        while {stats.endpoint for stats in self.ingest.stats()} != {spec.endpoint for spec in specs}:
            await asyncio.sleep(0.01)

    def hit(self, endpoint: Endpoint, ids: Sequence[int] = IDS) -> int:
        return self.state.hits(Chains(len(ids), {SIZE: block_keys(root(None), ids, SIZE)})).get(endpoint, 0)

    def knows(self, endpoint: Endpoint, tokens: int, mode: Mode = Mode.EXACT) -> Callable[[], bool]:
        return lambda: self.hit(endpoint) == tokens and self.state.mode(endpoint) is mode

    def stats(self, endpoint: Endpoint) -> FeedStats:
        (stats,) = (stats for stats in self.ingest.stats() if stats.endpoint == endpoint)
        return stats


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    pickers: list[Picker] = []

    async def start(*arguments: Any, **options: Any) -> Picker:
        picker = Picker(*arguments, **options)
        await picker.ingest.start()
        pickers.append(picker)
        return picker

    yield start
    for picker in pickers:
        await picker.ingest.close()


class Broken(MemoryState):
    """An index that does with `BAD` what a test says: raises, refuses, or never answers."""

    def __init__(self, how: str, where: str) -> None:
        super().__init__()
        self.how, self.where = how, where
        self.tried = 0

    async def _answer(self, where: str, endpoint: Endpoint) -> Applied | None:
        if endpoint != BAD or where != self.where or self.how == "well":
            return None
        self.tried += 1
        if self.how == "raises":
            raise ValueError("no")
        if self.how == "hangs":
            await asyncio.Event().wait()
        return Applied.REFUSED

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        for delta in deltas:
            if await self._answer("apply", delta.cache.endpoint):
                return [Applied.REFUSED] * len(deltas)
        return await super().apply(deltas)

    async def replace(
        self, endpoint: Endpoint, epoch: int, seq: int, contents: Mapping[Cache, Sequence[BlockKey]]
    ) -> Applied:
        return await self._answer("replace", endpoint) or await super().replace(endpoint, epoch, seq, contents)

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None = None) -> Applied:
        return await self._answer("clear", endpoint) or await super().clear(endpoint, epoch, seq, medium)

    async def set_mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> Applied:
        return await self._answer("set_mode", endpoint) or await super().set_mode(endpoint, epoch, mode)


@pytest.mark.parametrize("where", ["apply", "replace", "clear", "set_mode"])
@pytest.mark.parametrize("how", ["raises", "refuses", "hangs"])
async def test_what_the_index_makes_of_one_endpoint_concerns_no_other(
    start: Any, publisher: Any, store: Any, eventually: Any, how: str, where: str
) -> None:
    state = Broken(how, where)
    picker = await start(state)
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    await eventually(
        lambda: len(picker.ingest.stats()) == 2 and all(stats.connected for stats in picker.ingest.stats())
    )
    await eventually(picker.knows(GOOD, 0))
    for number in range(1, 5):
        bad.publish({"type": "AllBlocksCleared"}, store([number], None, [number, number]))
        good.publish(store([number], number - 1 or None, IDS[2 * number - 2 : 2 * number]))
        await eventually(picker.knows(GOOD, 2 * number))
    if (how, where) != ("refuses", "set_mode"):
        await eventually(lambda: state.tried > 0)
    assert picker.stats(GOOD).uploads == 1
    if how != "hangs":
        state.how = "well"
        bad.publish({"type": "AllBlocksCleared"}, store([11, 12], None, IDS[:4]))
        await eventually(picker.knows(BAD, 4))


async def test_an_endpoint_whose_drop_hangs_delays_nobody(
    start: Any, publisher: Any, store: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    picker = await start()
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    await eventually(picker.knows(BAD, 0))
    monkeypatch.setattr(picker.state, "drop", lambda endpoint: asyncio.Event().wait())
    await picker.follow(spec(good, GOOD))
    good.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(GOOD, 4))


def flood(ours: Connection, payload: bytes) -> None:
    """A publisher's process: one batch after the other, as fast as they go out, until told to end."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 64)
    ours.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    seq = 0
    while not ours.poll(0):
        for _ in range(100):
            socket.send_multipart([b"", seq.to_bytes(8, "big"), payload])
            seq += 1
    context.destroy(linger=0)


FLOODS = {
    "large batches": [1.0, [["BlockStored", list(range(4000)), None, [70_000] * 64_000, 16]] * 4, 0],
    "small batches": [1.0, [["BlockRemoved", [1], "GPU"]], 0],
    "many removals": [1.0, [["BlockRemoved", list(range(100)), "GPU"]] * 1000, 0],
    "no batches": {"no": "batch"},
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_pod_that_floods_delays_no_other_and_holds_little(
    start: Any, publisher: Any, flooding: Any, store: Any, eventually: Any, name: str
) -> None:
    picker = await start()
    good = publisher()
    bad = FeedSpec(BAD, await asyncio.to_thread(flooding, flood, msgspec.msgpack.encode(FLOODS[name])))
    await picker.follow(spec(good, GOOD), bad)
    await eventually(picker.knows(GOOD, 0))
    await eventually(lambda: picker.stats(BAD).batches > 0)
    for number in range(1, 5):
        batches = picker.stats(BAD).batches
        good.publish(store([number], number - 1 or None, IDS[2 * number - 2 : 2 * number]))
        await eventually(picker.knows(GOOD, 2 * number))
        await eventually(lambda batches=batches: picker.stats(BAD).batches > batches)  # it goes on
        source = picker.ingest._feeds[BAD].subscription.source
        assert source is not None
        assert source.held_bytes <= MAX_HELD_BYTES + 2 * TURN_BYTES
        assert picker.ingest._feeds[BAD].entries < 100_000
    assert picker.stats(GOOD).gaps == 0


async def test_a_replay_whose_publisher_drops_what_we_lag_is_got_piece_by_piece(
    start: Any, publisher: Any, store: Any, eventually: Any
) -> None:
    """vLLM before 0.33: its replay socket queues 1,000 batches."""
    pod = publisher(kept=20_000, replay_queue=1000)
    for number in range(12_000):
        pod.publish(store([number + 1], number or None, [number, 1]))
    picker = await start()
    await picker.follow(spec(pod, GOOD))
    ids = [token for number in range(12_000) for token in (number, 1)]
    await eventually(lambda: picker.hit(GOOD, [*ids, 0]) == 24_000)
    assert picker.state.mode(GOOD) is Mode.EXACT


async def test_a_pod_that_never_removes_a_block_starts_afresh_beyond_a_bound(
    start: Any, publisher: Any, store: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_ENTRIES", 500)
    picker = await start()
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    good.publish(store([1, 2], None, IDS[:4]))
    bad.publish(store(range(1, 1001), None, range(2000)))
    await eventually(lambda: "500" in picker.stats(BAD).limit and picker.stats(BAD).blocks == 0)
    await eventually(lambda: picker.hit(BAD, range(2001)) == 0)
    bad.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(BAD, 4, Mode.APPROX))
    await eventually(picker.knows(GOOD, 4))
    assert picker.stats(GOOD).limit == ""


async def test_names_that_never_end_are_bounded_as_blocks_are(
    start: Any, publisher: Any, store: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block under ever new hashes: it is resident once, but each hash is kept."""
    monkeypatch.setattr(ingest, "MAX_ENTRIES", 500)
    picker = await start()
    pod = publisher()
    await picker.follow(spec(pod, BAD))
    for number in range(1000):
        pod.publish(store([number], None, IDS[:2]))
    await eventually(lambda: "500" in picker.stats(BAD).limit)
    assert picker.ingest._feeds[BAD].entries <= 2000


async def test_where_all_hold_too_much_together_the_largest_starts_afresh(
    start: Any, publisher: Any, store: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_ALL_ENTRIES", 500)
    picker = await start()
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    good.publish(store([1, 2], None, IDS[:4]))
    bad.publish(store(range(1, 401), None, range(800)))
    await eventually(lambda: "together" in picker.stats(BAD).limit)
    await eventually(picker.knows(GOOD, 4))


async def test_a_subscription_that_fails_is_begun_again(
    start: Any, publisher: Any, store: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything unexpected while events are read, here once."""
    picker = await start()
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    await eventually(picker.knows(GOOD, 0))
    await eventually(picker.knows(BAD, 0))
    apply = Tracker.apply
    failed: list[Any] = []

    def apply_or_fail(tracker: Tracker, batch: Any) -> int:
        if tracker._endpoint == BAD and not failed:
            failed.append(batch)
            raise KeyError("unexpected")
        return apply(tracker, batch)

    monkeypatch.setattr(Tracker, "apply", apply_or_fail)
    bad.publish(store([1, 2], None, IDS[:4]))
    await eventually(lambda: "KeyError" in picker.stats(BAD).why)
    good.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(GOOD, 4))
    await eventually(picker.knows(BAD, 4))
    assert picker.stats(BAD).why == ""


async def test_an_engine_that_cannot_be_asked_is_asked_again(
    start: Any, publisher: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    picker = await start()
    good, bad = publisher(), publisher()
    asked: list[FeedSpec] = []

    async def discover(session: Any, of: FeedSpec, ports: Ports) -> Addresses:
        if of.endpoint == BAD and not asked:
            asked.append(of)
            raise RuntimeError("unexpected")
        assert of.events is not None
        return Addresses(of.events, of.replay)

    monkeypatch.setattr(subscription, "discover", discover)
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    await eventually(lambda: asked and "unexpected" in picker.stats(BAD).why)
    await eventually(picker.knows(GOOD, 0))
    await eventually(picker.knows(BAD, 0))


async def test_an_endpoint_without_a_socket_left_waits_and_the_others_go_on(
    start: Any, publisher: Any, store: Any, eventually: Any
) -> None:
    picker = await start()
    assert picker.ingest._context is not None
    picker.ingest._context.set(zmq.MAX_SOCKETS, 6)  # three for each of a subscription and a replay, with their monitors
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD))
    await eventually(picker.knows(GOOD, 0))
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    await eventually(lambda: "no subscription" in picker.stats(BAD).why)
    good.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(GOOD, 4))
    await picker.follow(spec(bad, BAD))
    await eventually(picker.knows(BAD, 0))


async def test_a_message_of_too_many_frames_ends_that_subscription_alone(
    start: Any, publisher: Any, store: Any, eventually: Any
) -> None:
    picker = await start()
    good, bad = publisher(), publisher()
    await picker.follow(spec(good, GOOD), spec(bad, BAD))
    await eventually(picker.knows(BAD, 0))
    bad._pub.send_multipart([b""] * 1000)
    await eventually(lambda: "frames" in picker.stats(BAD).why)
    good.publish(store([1, 2], None, IDS[:4]))
    await eventually(picker.knows(GOOD, 4))
    await eventually(picker.knows(BAD, 0))


async def test_a_hit_behind_the_gpu_counts_by_its_mediums_weight_and_other_media_not_at_all(
    start: Any, publisher: Any, store: Any, remove: Any, eventually: Any
) -> None:
    picker = await start(media={"CPU": 0.5})
    pod = publisher()
    await picker.follow(spec(pod, GOOD))
    pod.publish(*(store([1, 2, 3, 4], None, []) | {"block_size": 0, "medium": medium} for medium in ("cpu", "DISK")))
    pod.publish(store([1, 2, 3, 4], None, IDS[:8]), remove(4), remove(3), remove(2), remove(1))
    await eventually(picker.knows(GOOD, 4))
    assert (picker.stats(GOOD).blocks, picker.stats(GOOD).skipped_blocks) == (4, 4)
