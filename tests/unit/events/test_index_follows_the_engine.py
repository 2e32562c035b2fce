"""Whatever an engine does, and whatever gets lost on the way, the index ends up with the engine's true content."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.blocks import block_keys, root_key
from multipick_epp.events.decode import decode
from multipick_epp.events.sequence import Ask, BatchSequence, Begin, Effect, Take
from multipick_epp.events.tracker import Tracker
from multipick_epp.state.cache import Cache
from multipick_epp.state.succession import Inheritance, Name, Position
from multipick_epp.types import BlockKey, Endpoint, Mode
from xxhash import xxh3_64_intdigest

POD = Endpoint("10.0.0.1:8000")
SIZE = 2
GROUP = 0

Prompt = tuple[int, ...]


@dataclass
class Engine:
    """vLLM's block pool and publisher, as far as events tell: a prompt's blocks are stored from the first miss on, and
    a repeated prompt recomputes and stores its last block again.
    """

    seed: int
    map_form: bool
    started: float  # no two engines publish at the same time
    copies: Counter[Prompt] = field(default_factory=Counter)  # by the tokens up to the block's end
    events: list[dict[str, object]] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)

    def hash(self, tokens: Prompt) -> int:
        return xxh3_64_intdigest(msgspec.msgpack.encode(tokens), self.seed)

    def serve(self, blocks: Prompt, report: bool) -> None:
        prompt = [tuple(2 * block + i for block in blocks[: n + 1] for i in range(SIZE)) for n in range(len(blocks))]
        hits = 0
        while hits < len(prompt) - 1 and self.copies[prompt[hits]]:
            hits += 1
        if report and hits > 1:
            self._stored(prompt[:hits], None)
        if new := prompt[hits:]:
            self._stored(new, prompt[hits - 1] if hits else None)
            self.copies.update(new)

    def evict(self, choice: int) -> None:
        if held := sorted(self.copies.elements()):
            block = held[choice % len(held)]
            self.copies[block] -= 1
            self.events.append({"type": "BlockRemoved", "block_hashes": [self.hash(block)], "medium": "GPU"})

    def clear(self) -> None:
        self.copies.clear()
        self.events.append({"type": "AllBlocksCleared"})

    def publish(self) -> tuple[int, bytes] | None:
        if not self.events:
            return None
        events = self.events if self.map_form else [list(event.values()) for event in self.events]
        self.batches.append(msgspec.msgpack.encode([self.started + len(self.batches), events, 0]))
        self.events = []
        return len(self.batches) - 1, self.batches[-1]

    def _stored(self, blocks: list[Prompt], parent: Prompt | None) -> None:
        self.events.append(
            {
                "type": "BlockStored",
                "block_hashes": [self.hash(block) for block in blocks],
                "parent_block_hash": None if parent is None else self.hash(parent),
                "token_ids": [token for block in blocks for token in block[-SIZE:]],
                "block_size": SIZE,
            }
        )

    @property
    def content(self) -> set[BlockKey]:
        root = root_key(b"", "m")
        return {block_keys(root, list(block), SIZE)[-1] for block, copies in self.copies.items() if copies > 0}


@dataclass
class Told:
    """What the shared index has been told: all that an owner of the endpoint's events leaves to the next one."""

    position: Position | None = None
    contents: dict[Cache, set[BlockKey]] = field(default_factory=dict)
    names: dict[int, dict[int, Name]] = field(default_factory=dict)
    copies: dict[Cache, dict[BlockKey, int]] = field(default_factory=dict)

    def by(self, tracker: Tracker, last: tuple[int, int] | None, anew: bool) -> None:
        self.position = Position(*last, tracker.mode is Mode.EXACT, "tcp://pod:1") if last else None
        if anew:
            self.contents = {cache: set(keys) for cache, keys in tracker.contents().items()}
        else:
            clears, changes = tracker.take()
            for cache in self.contents:
                if cache.medium in clears:
                    self.contents[cache] = set()
            for change in changes:
                held = self.contents.get(change.cache, set())
                self.contents[change.cache] = (held | set(change.stored)) - set(change.removed)
        notes = tracker.notes(self.position)
        if notes.whole:
            self.names, self.copies = {}, {}
        for names in notes.names:
            known = self.names.setdefault(names.block_size, {})
            known.update(zip(names.keys, map(Name, names.keys.values(), names.parents), strict=True))
            for block_hash in names.forgotten:
                known.pop(block_hash, None)
        for cache, copies in notes.copies.items():
            counts = {**self.copies.get(cache, {}), **copies}
            self.copies[cache] = {key: count for key, count in counts.items() if count > 1}

    @property
    def content(self) -> set[BlockKey]:
        return {key for keys in self.contents.values() for key in keys}

    @property
    def left(self) -> Inheritance | None:
        return Inheritance(self.position, self.contents, self.names, self.copies) if self.position else None


class Wire:
    """Engine, what is under way, and the subscriber: everything that can go wrong is a method."""

    def __init__(self, map_form: bool, buffer: int | None) -> None:
        self.map_form = map_form
        self.engine = Engine(1, map_form, 0.0)
        self.buffer = buffer  # batches that the publisher keeps; None: no replay socket
        self.sequence = BatchSequence(buffer is not None)
        self.tracker: Tracker | None = None
        self.told = Told()
        self.untold = False  # of this tracker
        self.began = 0
        self.under_way: deque[tuple[int, bytes]] = deque()
        self.asked: int | None = None
        self.cut = False
        self.do(self.sequence.connected())

    def do(self, effects: Iterator[Effect]) -> None:
        self._do(effects)
        while self.sequence.holds:
            self._do(self.sequence.held())
        assert not (self.cut and self.sequence.sure)

    def _do(self, effects: Iterator[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Take):
                assert self.tracker is not None
                self.tracker.apply(decode(effect.payload))
            elif isinstance(effect, Begin):
                self.tracker = Tracker(POD, root, effect.complete)
                self.untold = True
                self.began += 1
            elif isinstance(effect, Ask):
                self.asked = effect.start
            elif self.tracker:
                self.tracker.lost()

    def tell(self) -> None:
        if self.tracker:
            self.told.by(self.tracker, self.sequence.last, self.untold)
            self.untold = False

    def hand_over(self) -> None:
        """The owner is gone, with what it had not told; the next one subscribes."""
        self.sequence, self.tracker, self.asked = BatchSequence(self.buffer is not None), None, None
        self.cut = False
        self.under_way.clear()
        if left := self.told.left:
            self.tracker = Tracker.restored(POD, root, left)
            assert self.tracker is not None
            self.untold = False
            self.sequence.resume(left.position.seq, left.position.digest)
        self.do(self.sequence.connected())

    def publish(self) -> None:
        if batch := self.engine.publish():
            self.under_way.append(batch)

    def deliver(self) -> None:
        if self.under_way:
            self.do(self.sequence.live(*self.under_way.popleft()))

    def lose(self) -> None:
        if self.under_way:
            self.under_way.popleft()

    def answer(self, whole: bool = True) -> None:
        for _ in range(100):
            if self.asked is None:
                return
            start, self.asked = self.asked, None
            kept = max(start, len(self.engine.batches) - (self.buffer or 0))
            for seq in range(kept, len(self.engine.batches) if whole else kept + 1):
                if seq < len(self.engine.batches):
                    self.do(self.sequence.replayed(seq, self.engine.batches[seq]))
                if self._asked_anew():
                    break
            else:
                self.do(self.sequence.replay_ended(whole))
            if not whole:
                return
        raise AssertionError("it asks for ever")

    def _asked_anew(self) -> bool:
        return self.asked is not None

    def disconnect(self) -> None:
        """What is under way may still be handed over, and be answered."""
        self.sequence.disconnected()
        self.cut = True

    def reconnect(self, keep: bool) -> None:
        self.disconnect()
        if not keep or self.buffer is not None:  # with a replay to come, the source skips what has arrived
            self.under_way.clear()
        self.cut = False
        self.do(self.sequence.connected())

    def restart(self, keep: bool, same_seed: bool) -> None:
        self.engine = Engine(
            self.engine.seed + (0 if same_seed else 1), self.map_form, self.engine.started + len(self.engine.batches)
        )
        self.reconnect(keep)

    def settle(self) -> None:
        """It is connected, everything arrives, and two probes find nothing more."""
        if self.cut:
            self.reconnect(keep=True)
        self.publish()
        while self.under_way:
            self.deliver()
        for _ in range(3):
            self.answer()
            self.do(self.sequence.probe())
        self.answer()

    @property
    def content(self) -> set[BlockKey]:
        assert self.tracker is not None
        return {key for keys in self.tracker.contents().values() for key in keys}


def root(lora: str | None) -> BlockKey:
    return root_key(b"", "m", lora)


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple)
engine_steps = st.one_of(
    st.tuples(st.just("serve"), prompts, st.booleans()),
    st.tuples(st.just("serve"), prompts, st.just(False)),
    st.tuples(st.just("evict"), st.integers(0, 99)),
    st.tuples(st.just("clear")),
)
wire_steps = st.one_of(
    st.tuples(st.just("publish")),
    st.tuples(st.just("publish")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("lose")),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("disconnect")),
    st.tuples(st.just("reconnect"), st.booleans()),
    st.tuples(st.just("restart"), st.booleans(), st.booleans()),
    st.tuples(st.just("probe")),
)


def run(wire: Wire, steps: list[tuple[object, ...]]) -> None:
    for name, *arguments in steps:
        if name in ("serve", "evict", "clear"):
            getattr(wire.engine, str(name))(*arguments)
        elif name == "probe":
            if not wire.cut:
                wire.do(wire.sequence.probe())
        else:
            getattr(wire, str(name))(*arguments)


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(engine_steps, max_size=60), st.integers(1, 5))
def test_when_nothing_is_lost(map_form: bool, steps: list[tuple[object, ...]], batch_size: int) -> None:
    wire = Wire(map_form, buffer=None)
    for start in range(0, len(steps), batch_size):
        run(wire, [*steps[start : start + batch_size], ("publish",), ("deliver",)])
        if wire.tracker:
            assert wire.content == wire.engine.content
            assert wire.tracker.mode is Mode.EXACT


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.lists(engine_steps | wire_steps, max_size=80))
def test_when_messages_and_connections_are_lost_and_engines_restart(
    map_form: bool, steps: list[tuple[object, ...]]
) -> None:
    wire = Wire(map_form, buffer=1000)
    run(wire, steps)
    wire.settle()
    assert wire.content == wire.engine.content
    assert wire.tracker is not None
    assert wire.tracker.mode is Mode.EXACT
    assert wire.sequence.proven


owner_steps = st.one_of(st.tuples(st.just("tell")), st.tuples(st.just("tell")), st.tuples(st.just("hand_over")))


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.lists(engine_steps | wire_steps | owner_steps, max_size=100))
def test_when_owners_change_too(map_form: bool, steps: list[tuple[object, ...]]) -> None:
    """Each goes on from what the one before had told: as if there had been one all the time."""
    wire = Wire(map_form, buffer=1000)
    run(wire, steps)
    wire.hand_over()
    wire.settle()
    wire.tell()
    assert wire.content == wire.told.content == wire.engine.content
    assert wire.tracker is not None
    assert wire.tracker.mode is Mode.EXACT
    wire.hand_over()
    wire.settle()
    assert wire.content == wire.engine.content
    assert wire.tracker.mode is Mode.EXACT


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(engine_steps, st.booleans()), min_size=1, max_size=80))
def test_an_owner_that_goes_on_needs_no_more_than_the_last_batch(
    steps: list[tuple[tuple[object, ...], bool]],
) -> None:
    """The publisher keeps one batch, and owners change without a word: nothing is begun anew, nothing is lost."""
    wire = Wire(map_form=True, buffer=1)
    wire.answer()
    for step, changes in steps:
        run(wire, [step, ("publish",), ("deliver",), ("tell",)])
        if wire.engine.batches and changes:
            wire.hand_over()
            wire.answer()
        assert wire.content == wire.told.content == wire.engine.content
        assert wire.tracker is not None
        assert wire.tracker.mode is Mode.EXACT
        assert wire.sequence.proven
    assert wire.began == 1


@settings(max_examples=300, deadline=None)
@given(st.lists(engine_steps | wire_steps, max_size=60), st.integers(1, 3))
def test_a_truncated_replay_never_blocks_what_comes_after(steps: list[tuple[object, ...]], buffer: int) -> None:
    wire = Wire(map_form=True, buffer=buffer)
    run(wire, steps)
    wire.settle()
    wire.engine.clear()
    run(wire, [("serve", (1, 0, 1), False), ("publish",), ("deliver",)])
    wire.settle()
    assert wire.content == wire.engine.content
    assert wire.tracker is not None
    assert wire.tracker.mode is Mode.EXACT


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(engine_steps, st.just(("publish",)), st.just(("deliver",)), st.just(("lose",))), max_size=40))
def test_after_losses_for_good_a_turn_of_the_cache_heals_it(steps: list[tuple[object, ...]]) -> None:
    """No replay socket. Afterwards the engine evicts all that it has, and stores other prompts, again and again."""
    wire = Wire(map_form=False, buffer=None)
    run(wire, steps)
    run(wire, [("publish",), ("deliver",)] * 50)
    for turn in range(300):
        wire.engine.serve((2 + turn,), report=False)
        wire.engine.evict(0)
        run(wire, [("publish",), ("deliver",)])
    assert wire.tracker is not None
    assert wire.tracker.mode is Mode.EXACT
    assert wire.content == wire.engine.content
