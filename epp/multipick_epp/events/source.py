"""The links to one publisher: SUB for live batches, a DEALER for replays.

Plain sockets on the event loop's reader, not `zmq.asyncio`: a message costs half as much, and everything that one
wake-up brings is handled in one go, in the order in which it happened. ZMQ's descriptor tells only that something
changed, so each wake-up reads until nothing is left, with a pause for others after TURN_S.

A publisher can send faster than anybody reads. So links queue QUEUED_MESSAGES at most: beyond, ZMQ stops reading the
connection, what the publisher then drops is a gap, and a gap is replayed, or makes the endpoint approximate. A replay
whose reader lags loses batches too (vLLM before 0.33); it is asked again for what is missing, and gets on each time. A
message may have no end: each tick looks whether one is too long by now.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

import zmq

from multipick_epp.events.decode import MAX_PAYLOAD_BYTES
from multipick_epp.events.link import MAX_MESSAGE_BYTES, QUEUED_MESSAGES, Context, Link
from multipick_epp.events.sequence import Ask, BatchSequence, Begin, Effect, Lost, Take

log = logging.getLogger(__name__)

TURN_S = 0.005
"""One publisher is attended to for so long, and for the message that it is at, before it is another's turn."""
TURN_MESSAGES = 100
TURN_BYTES = 1 << 20
TICK_S = 0.25
REPLAY_TIMEOUT_S = 2.0  # without an answer; a publisher looks at its replay socket every 0.1 s at least
DOUBT_S = 0.5  # the same: from then on what came last may be missing
PROBE_S = 0.75
"""After the last batch, or probe. With DOUBT_S and two ticks that is less than 2 s: so long does a publisher that is
silent, and can't be asked, pass for one that has nothing to say. A probe costs 140 us.
"""
_END = b"\xff" * 8

Sink = Callable[[Take | Begin | Lost], None]


class Source:
    """Keeps a subscription up until closed, and hands what its `BatchSequence` makes of the messages to `sink`.

    Invariant: while `_again` is set, another turn follows, and nobody else begins one.
    """

    def __init__(
        self,
        context: Context,
        events: str,
        replay: str | None,
        sink: Sink,
        activity: Callable[[], None],
        after: tuple[int, int] | None = None,
    ) -> None:
        """`activity` is called after each wake-up; `after`: number and digest of the batch to go on from.

        Raises zmq.ZMQError for a bad address, or without a socket.
        """
        self.sequence = BatchSequence(replay is not None)
        if after is not None:
            self.sequence.resume(*after)
        self.malformed = 0  # messages without a number and a payload
        self.failure: str | None = None  # why it has closed itself
        self._context = context
        self.events = events
        self._replay = replay
        self._sink = sink
        self._activity = activity
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.Handle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._arrived: deque[list[bytes]] = deque()  # live messages that are not handled yet
        self._dealer: Link | None = None
        self._asked = False  # an answer is to come on it
        self._answered_s = 0.0  # loop time of the last thing that came of the replay
        self._heard_s = 0.0  # loop time of the last live message, connection or probe
        self._given_up = False  # at the last tick
        self._live = Link(context, zmq.SUB, events)
        try:
            self._read(self._live.descriptor_of_changes)
            self._read(self._live.descriptor)
        except BaseException:
            self.close()
            raise
        self._again = self._loop.call_soon(self._go_on)
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    @property
    def connected(self) -> bool:
        """To the publisher, now."""
        return self.sequence.subscribed and not self._live.closed

    @property
    def held_bytes(self) -> int:
        """What has arrived and waits."""
        return self.sequence.held_bytes + sum(len(frame) for frames in self._arrived for frame in frames)

    def close(self) -> None:
        """End the subscription. Never raises."""
        for timer in (self._again, self._tick_timer):
            if timer is not None:
                timer.cancel()
        self._arrived.clear()
        self._end_replay()
        self._end(self._live)

    def restarted(self) -> None:
        """The engine's process is a new one, says somebody who knows."""
        self._guard(lambda: self._do(self.sequence.restarted()))

    def _guard(self, work: Callable[[], object]) -> None:
        """Whatever `work` raises ends this subscription, and no other: see `failure`."""
        if self._live.closed:
            return
        try:
            work()
        except Exception as error:
            log.exception("subscription failed", extra={"events": self.events})
            self._fail(f"{type(error).__name__}: {error}")
        self._activity()

    def _fail(self, why: str) -> None:
        self.failure = why[:200]
        self.close()

    # --- turns

    def _wake(self) -> None:
        if self._again is None:
            self._guard(self._turn)

    def _go_on(self) -> None:
        self._again = None
        self._guard(self._turn)

    def _turn(self) -> None:
        start = time.perf_counter()
        more = self._receive()
        # A connection is noted before what comes over it, so nothing that arrived is from one that isn't noted by now.
        self._read_changes()
        more |= self._handle_replay(start + TURN_S / 2)
        more |= self._handle_live(start + TURN_S)
        if more:
            self._again = self._loop.call_soon(self._go_on)

    def _receive(self) -> bool:
        """Read live messages, unless some still wait. Whether there may be more."""
        if self._arrived:
            return True
        size = 0
        with suppress(zmq.Again):
            while len(self._arrived) < TURN_MESSAGES and size < TURN_BYTES:
                frames = self._live.receive()
                size += sum(map(len, frames))
                self._arrived.append(frames)
            return True
        return False

    def _read_changes(self) -> None:
        for connected in self._live.changes():
            if connected:
                self._heard()
                if self._replay is not None:
                    self._skip_arrived()
                self._do(self.sequence.connected())
            else:
                self.sequence.disconnected()
                if not self._asked:  # its connection may be as broken
                    self._end_replay()

    def _skip_arrived(self) -> None:
        """What came over an earlier connection may be another engine's; what isn't will be replayed."""
        self._arrived.clear()
        with suppress(zmq.Again):
            for _ in range(2 * QUEUED_MESSAGES):  # of the queues of both connections, in turn
                self._live.receive()

    def _handle_live(self, until: float) -> bool:
        """What was held, then what arrived. Whether some is left."""
        if self._arrived:
            self._heard()
        while self.sequence.holds:
            self._do(self.sequence.held())
            if time.perf_counter() >= until:
                return True
        while self._arrived:
            self._take(self._arrived.popleft())
            if time.perf_counter() >= until:
                break
        return bool(self._arrived)

    def _take(self, frames: list[bytes]) -> None:
        if len(frames) < 2 or len(frames[-2]) != 8:
            self.malformed += 1
            return
        self._do(self.sequence.live(int.from_bytes(frames[-2], "big"), frames[-1]))

    def _do(self, effects: Iterator[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._ask(effect.start)
            else:
                self._sink(effect)

    # --- replay

    def _ask(self, start: int) -> None:
        """Where no socket can be had, the answer fails to come."""
        assert self._replay is not None
        self._answered_s = self._loop.time()
        try:
            if self._asked or self._dealer is None:  # what still comes answers an earlier question
                self._end_replay()
                self._dealer = Link(self._context, zmq.DEALER, self._replay)
                self._read(self._dealer.descriptor)
            self._asked = True
            self._dealer.send([b"", start.to_bytes(8, "big")])
        except (zmq.ZMQError, OSError) as error:
            log.warning("no replay", extra={"replay": self._replay, "why": str(error)})
            self._end_replay()
            return
        if self._again is None:
            self._again = self._loop.call_soon(self._go_on)

    def _handle_replay(self, until: float) -> bool:
        """Answers to the last question. Whether there may be more."""
        while self._dealer is not None:
            try:
                frames = self._dealer.receive()
            except zmq.Again:
                return False
            self._replayed(frames)
            if time.perf_counter() >= until:
                return True
        return False

    def _replayed(self, frames: list[bytes]) -> None:
        """Frames from the end: number and payload; before them the topic (vLLM >= 0.26) and an empty one."""
        self._answered_s = self._loop.time()
        if len(frames) < 2 or len(frames[-2]) != 8:
            self.malformed += 1
        elif frames[-2] == _END:
            self._asked = False
            self._do(self.sequence.replay_ended(whole=True))
        else:
            self._do(self.sequence.replayed(int.from_bytes(frames[-2], "big"), frames[-1]))

    def _end_replay(self) -> None:
        dealer, self._dealer, self._asked = self._dealer, None, False
        if dealer is not None:
            self._end(dealer)

    # --- silence

    def _heard(self) -> None:
        self._heard_s = self._loop.time()

    def _tick(self) -> None:
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)
        # That ZMQ tries again is a word of its own, shortly after that the connection is gone.
        earlier, self._given_up = self._given_up, self._live.given_up
        if self._overlong():
            self._fail(f"a message of more than {MAX_MESSAGE_BYTES} bytes, whose end has not come")
        elif earlier and self._given_up:
            self._fail(f"it broke ZMQ's protocol, or sent a frame of more than {MAX_PAYLOAD_BYTES} bytes")
        if self.failure is not None:
            self._activity()
            return
        now = self._loop.time()
        if self.sequence.asking:
            if now - self._answered_s >= DOUBT_S and self._again is None:
                self._guard(self._miss_replay)
        elif self.connected and now - self._heard_s >= PROBE_S:
            self._heard_s = now
            self._guard(lambda: self._do(self.sequence.probe()))

    def _miss_replay(self) -> None:
        """Time has passed, but perhaps it was ours: first look whether something came."""
        self._turn()
        waited_s = self._loop.time() - self._answered_s
        if self.sequence.asking and waited_s >= DOUBT_S:
            self.sequence.doubt()
        if self.sequence.asking and waited_s >= REPLAY_TIMEOUT_S:
            self._end_replay()
            self._do(self.sequence.replay_ended(whole=False))
            if self._again is None:
                self._again = self._loop.call_soon(self._go_on)

    # --- links

    def _read(self, descriptor: int) -> None:
        self._loop.add_reader(descriptor, self._wake)

    def _end(self, link: Link) -> None:
        if not link.closed:
            self._loop.remove_reader(link.descriptor)
            self._loop.remove_reader(link.descriptor_of_changes)
        link.close()

    def _overlong(self) -> bool:
        if self._dealer is not None:
            for _ in self._dealer.changes():
                pass  # an answer that fails to come tells as much
        return self._live.overlong() or (self._dealer is not None and self._dealer.overlong())
