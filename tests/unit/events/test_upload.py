"""The index never has an endpoint as exact before it has been told what makes it so."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from multipick_epp.blocks import root_key
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.feed import Feed
from multipick_epp.events.sequence import Ask, BatchSequence, Effect
from multipick_epp.events.upload import upload
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Delta, Index
from multipick_epp.types import BlockKey, Endpoint, Mode

if TYPE_CHECKING:
    from multipick_epp.events.source import Source
    from multipick_epp.state.succession import Notes

POD = Endpoint("10.0.0.1:8000")
SIZE = 2


def batch(seq: int) -> tuple[int, bytes]:
    """Stores one block of its own."""
    event = {
        "type": "BlockStored",
        "block_hashes": [seq],
        "parent_block_hash": None,
        "token_ids": [seq] * SIZE,
        "block_size": SIZE,
    }
    return seq, msgspec.msgpack.encode([float(seq), [event], 0])


class Told:
    """An index, and what it has been told in order; `meanwhile` happens while it is told of blocks."""

    def __init__(self) -> None:
        self.said: list[int | Mode] = []  # how many blocks it has, or the mode
        self.meanwhile: Callable[[], None] = lambda: None
        self._blocks = 0

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        self._hold(self._blocks + sum(len(delta.stored) for delta in deltas))
        return [Applied.NEW] * len(deltas)

    async def replace(
        self, endpoint: Endpoint, epoch: int, seq: int, contents: Mapping[Cache, Sequence[BlockKey]]
    ) -> Applied:
        self._hold(sum(map(len, contents.values())))
        return Applied.NEW

    async def note(self, endpoint: Endpoint, epoch: int, notes: "Notes") -> Applied:
        return Applied.NEW

    async def set_mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> Applied:
        self.said.append(mode)
        return Applied.NEW

    def _hold(self, blocks: int) -> None:
        self._blocks = blocks
        self.said.append(blocks)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()


class Pod:
    """An endpoint that is followed, and whose publisher the test is."""

    def __init__(self) -> None:
        self.sequence = BatchSequence(replay=True)
        self.index = Told()
        self.feed = Feed(FeedSpec(POD), lambda lora: root_key(b"", "m", lora), lambda: None)
        source = SimpleNamespace(sequence=self.sequence, failure=None, connected=True, events="tcp://10.0.0.1:5557")
        self.feed.subscription.source = cast("Source", source)
        self._do(self.sequence.connected())

    def answer(self, *seqs: int, whole: bool) -> None:
        for seq in seqs:
            self._do(self.sequence.replayed(*batch(seq)))
        if whole:
            self._do(self.sequence.replay_ended(whole=True))

    def say(self, seq: int) -> None:
        self._do(self.sequence.live(*batch(seq)))

    def probe(self) -> None:
        self._do(self.sequence.probe())

    async def told(self) -> list[int | Mode]:
        """What telling adds to what was said."""
        before = len(self.index.said)
        await upload(cast("Index", self.index), self.feed, 0.0)
        return self.index.said[before:]

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Ask):
                self.feed.sink(effect)


@pytest.fixture
async def known() -> Pod:
    """All of it, and that is what the index says: two blocks."""
    pod = Pod()
    pod.answer(0, 1, whole=True)
    assert await pod.told() == [Mode.APPROX, 2, Mode.EXACT]
    return pod


async def test_what_was_in_doubt_is_exact_with_the_last_of_what_was_missing(known: Pod) -> None:
    known.probe()
    known.sequence.doubt()
    assert await known.told() == [Mode.APPROX]
    known.answer(1, 2, whole=False)
    assert await known.told() == [3]
    known.index.meanwhile = lambda: known.answer(4, whole=True)
    known.answer(3, whole=False)
    assert await known.told() == [4], "it became exact with a block that the index has not got"
    assert await known.told() == [5, Mode.EXACT]


async def test_what_is_told_as_a_whole_is_exact_with_what_came_meanwhile() -> None:
    pod = Pod()
    pod.answer(0, 1, whole=True)
    pod.probe()
    pod.sequence.doubt()
    pod.index.meanwhile = lambda: pod.answer(1, 2, whole=True)
    assert await pod.told() == [Mode.APPROX, 2]
    assert await pod.told() == [3, Mode.EXACT]


async def test_what_comes_into_doubt_while_it_is_told_is_exact_no_more(known: Pod) -> None:
    known.probe()
    known.say(2)
    known.index.meanwhile = known.sequence.doubt
    assert await known.told() == [3, Mode.APPROX]
