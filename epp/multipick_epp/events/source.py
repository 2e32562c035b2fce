"""The sockets of one publisher: SUB for live batches, its monitor for connections, a DEALER for replays.

Plain sockets on the event loop's reader, not `zmq.asyncio`: a message costs half as much, and everything that one
wake-up brings is handled in one go, in the order in which it happened. ZMQ's descriptor tells only that something
changed, so each wake-up reads until nothing is left, with a pause for others after TURN_S.

A publisher can send faster than anybody reads. So sockets queue QUEUED_MESSAGES at most: beyond, ZMQ stops reading the
connection, what the publisher then drops is a gap, and a gap is replayed, or makes the endpoint approximate. A replay
whose reader lags loses batches too (vLLM before 0.33); it is asked again for what is missing, and gets on each time.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

from multipick_epp.events.decode import MAX_PAYLOAD_BYTES
from multipick_epp.events.sequence import Ask, BatchSequence, Begin, Effect, Lost, Take

log = logging.getLogger(__name__)

TURN_S = 0.005
"""One publisher is attended to for so long, and for the message that it is at, before it is another's turn."""
TURN_MESSAGES = 100
TURN_BYTES = 1 << 20
QUEUED_MESSAGES = 64
"""By one socket: ZMQ counts messages, not bytes, and each may have MAX_PAYLOAD_BYTES."""
TICK_S = 0.25
REPLAY_TIMEOUT_S = 2.0  # without an answer; a publisher looks at its replay socket every 0.1 s at least
DOUBT_S = 0.5  # the same: from then on what came last may be missing
PROBE_S = 0.75
"""After the last batch, or probe. With DOUBT_S and two ticks that is less than 2 s: so long does a publisher that is
silent, and can't be asked, pass for one that has nothing to say. A probe costs 140 us.
"""
_RECONNECT_MS = (100, 5000)  # first pause, longest pause
_HEARTBEAT_MS = (5000, 15000)  # interval, silence after which the connection counts as broken
_END = b"\xff" * 8
_MAX_FRAMES = 8  # of one message; vLLM sends 4 at most
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED

Sink = Callable[[Take | Begin | Lost], None]
_Context = zmq.Context[zmq.Socket[bytes]]


class Source:
    """Keeps a subscription up until closed, and hands what its `BatchSequence` makes of the messages to `sink`.

    Invariant: while `_again` is set, another turn follows, and nobody else begins one.
    """

    def __init__(
        self,
        context: _Context,
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
        self.connected = False
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
        self._dealer: zmq.Socket[bytes] | None = None
        self._asked = False  # an answer is to come on it
        self._descriptors: dict[int, int] = {}  # that the loop watches, by the identity of their socket
        self._answered_s = 0.0  # loop time of the last thing that came of the replay
        self._heard_s = 0.0  # loop time of the last live message, connection or probe
        self._sub = _socket(context, zmq.SUB)
        self._monitor: zmq.Socket[bytes] | None = None
        try:
            self._sub.setsockopt(zmq.SUBSCRIBE, b"")
            self._monitor = self._sub.get_monitor_socket(_WATCHED)
            self._sub.connect(events)
            self._read(self._monitor)
            self._read(self._sub)
        except BaseException:
            self.close()
            raise
        self._again = self._loop.call_soon(self._go_on)
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    @property
    def held_bytes(self) -> int:
        """What has arrived and waits."""
        return self.sequence.held_bytes + sum(len(frame) for frames in self._arrived for frame in frames)

    def close(self) -> None:
        """End the subscription. Never raises."""
        for timer in (self._again, self._tick_timer):
            if timer is not None:
                timer.cancel()
        self.connected = False
        self._arrived.clear()
        self._end_replay()
        if not self._sub.closed:
            with suppress(zmq.ZMQError):
                self._sub.disable_monitor()
        for socket in (self._monitor, self._sub):
            if socket is not None:
                self._end(socket)

    def restarted(self) -> None:
        """The engine's process is a new one, says somebody who knows."""
        self._guard(lambda: self._do(self.sequence.restarted()))

    def _guard(self, work: Callable[[], object]) -> None:
        """Whatever `work` raises ends this subscription, and no other: see `failure`."""
        if self._sub.closed:
            return
        try:
            work()
        except Exception as error:
            log.exception("subscription failed", extra={"events": self.events})
            self.failure = f"{type(error).__name__}: {error}"[:200]
            self.close()
        self._activity()

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
        self._read_monitor()
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
                frames = _message(self._sub)
                size += sum(map(len, frames))
                self._arrived.append(frames)
            return True
        return False

    def _read_monitor(self) -> None:
        assert self._monitor is not None
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if self.connected:
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
                _message(self._sub)

    def _handle_live(self, until: float) -> bool:
        """What was held, then what arrived. Whether some is left."""
        if self._arrived:
            self._heard()
        while self.sequence.holds:
            self._do(self.sequence.held())
            if time.perf_counter() >= until:
                return True
        while self._arrived:
            self._live(self._arrived.popleft())
            if time.perf_counter() >= until:
                break
        return bool(self._arrived)

    def _live(self, frames: list[bytes]) -> None:
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
                self._dealer = _socket(self._context, zmq.DEALER)
                self._dealer.connect(self._replay)
                self._read(self._dealer)
            self._asked = True
            self._dealer.send_multipart([b"", start.to_bytes(8, "big")], zmq.NOBLOCK)
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
                frames = _message(self._dealer)
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

    # --- sockets

    def _read(self, socket: "zmq.Socket[bytes]") -> None:
        descriptor = socket.FD
        self._loop.add_reader(descriptor, self._wake)
        self._descriptors[id(socket)] = descriptor

    def _end(self, socket: "zmq.Socket[bytes]") -> None:
        descriptor = self._descriptors.pop(id(socket), None)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
        socket.close(linger=0)


def _message(socket: "zmq.Socket[bytes]") -> list[bytes]:
    """The frames of one message. Raises zmq.Again where there is none, ValueError for more than a message may have:
    the rest of them goes with the socket.
    """
    frames = [socket.recv(zmq.NOBLOCK)]
    while socket.getsockopt(zmq.RCVMORE):
        if len(frames) == _MAX_FRAMES:
            raise ValueError(f"a message of more than {_MAX_FRAMES} frames")
        frames.append(socket.recv(zmq.NOBLOCK))
    return frames


def _socket(context: _Context, kind: int) -> "zmq.Socket[bytes]":
    socket = context.socket(kind)
    socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS[0])
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1])
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS[0])
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_MS[1])
    return socket
