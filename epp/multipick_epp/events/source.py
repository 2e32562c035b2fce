"""The sockets of one publisher: SUB for live batches, its monitor for connections, a DEALER for each replay.

Plain sockets on the event loop's reader, not `zmq.asyncio`: a message costs half as much, and everything that one
wake-up brings is handled in one go, in the order in which it happened. ZMQ's descriptor tells only that something
changed, so each wake-up reads until nothing is left, with a pause for others after MAX_A_TURN messages.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

from multipick_epp.events.decode import MAX_PAYLOAD_BYTES
from multipick_epp.events.sequence import Ask, BatchSequence, Begin, Effect, Lost, Take

MAX_A_TURN = 100
TICK_S = 0.5
REPLAY_TIMEOUT_S = 2.0  # without an answer; a publisher looks at its replay socket every 0.1 s at least
FIRST_PROBE_S = 1.0  # after the last batch; doubles from probe to probe
LAST_PROBE_S = 16.0
_RECONNECT_MS = (100, 5000)  # first pause, longest pause
_HEARTBEAT_MS = (5000, 15000)  # interval, silence after which the connection counts as broken
_END = b"\xff" * 8
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED

Sink = Callable[[Take | Begin | Lost], None]


class Source:
    """Keeps a subscription up until closed, and hands what its `BatchSequence` makes of the messages to `sink`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        events: str,
        replay: str | None,
        sink: Sink,
        activity: Callable[[], None],
    ) -> None:
        """`activity` is called after each wake-up. Raises zmq.ZMQError for an address that is none."""
        self.sequence = BatchSequence(replay is not None)
        self.connected = False
        self.malformed = 0  # messages without a number and a payload
        self._context = context
        self._replay = replay
        self._sink = sink
        self._activity = activity
        self._loop = asyncio.get_running_loop()
        self._dealer: zmq.Socket[bytes] | None = None
        self._answered_s = 0.0  # loop time of the last thing that came of the replay
        self._heard_s = 0.0  # loop time of the last live message or connection
        self._probe_s = FIRST_PROBE_S
        self._sub = _socket(context, zmq.SUB)
        self._sub.setsockopt(zmq.SUBSCRIBE, b"")
        self._monitor = self._sub.get_monitor_socket(_WATCHED)
        try:
            self._sub.connect(events)
        except zmq.ZMQError:
            self._close_sub()
            raise
        self._loop.add_reader(self._monitor.FD, self._on_monitor)
        self._loop.add_reader(self._sub.FD, self._on_live)
        self._loop.call_soon(self._on_monitor)
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    def close(self) -> None:
        """End the subscription."""
        self._tick_timer.cancel()
        self._end_replay()
        self._loop.remove_reader(self._sub.FD)
        self._loop.remove_reader(self._monitor.FD)
        self._close_sub()

    def restarted(self) -> None:
        """The engine's process is a new one, says somebody who knows."""
        self._do(self.sequence.restarted())
        self._activity()

    def _on_live(self) -> None:
        if self._sub.closed:
            return
        messages: list[list[bytes]] = []
        with suppress(zmq.Again):
            while len(messages) < MAX_A_TURN:
                messages.append(self._sub.recv_multipart(zmq.NOBLOCK))
        if len(messages) == MAX_A_TURN:
            self._loop.call_soon(self._on_live)
        if not messages:
            return
        # A connection is noted before what comes over it, so none of these is from one that isn't noted by now.
        if not self._read_monitor():
            self._heard()
            for frames in messages:
                self._live(frames)
        self._activity()

    def _live(self, frames: list[bytes]) -> None:
        if len(frames) < 2 or len(frames[-2]) != 8:
            self.malformed += 1
            return
        self._do(self.sequence.live(int.from_bytes(frames[-2], "big"), frames[-1]))

    def _on_monitor(self) -> None:
        if not self._monitor.closed:
            self._read_monitor()
            self._activity()

    def _read_monitor(self) -> bool:
        """Whether there is a new connection, and a replay to come that has all that arrived before."""
        anew = False
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if self.connected:
                self._heard()
                if self._replay is not None:
                    self._skip_arrived()
                    anew = True
                self._do(self.sequence.connected())
            else:
                self.sequence.disconnected()
        return anew

    def _skip_arrived(self) -> None:
        """What came over an earlier connection may be another engine's; what isn't will be replayed."""
        with suppress(zmq.Again):
            while True:
                self._sub.recv_multipart(zmq.NOBLOCK)

    def _do(self, effects: Iterator[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._ask(effect.start)
            else:
                self._sink(effect)

    # --- replay

    def _ask(self, start: int) -> None:
        assert self._replay is not None
        self._end_replay()
        dealer = self._dealer = _socket(self._context, zmq.DEALER)
        dealer.connect(self._replay)
        dealer.send_multipart([b"", start.to_bytes(8, "big")], zmq.NOBLOCK)
        self._answered_s = self._loop.time()
        self._loop.add_reader(dealer.FD, self._on_replay, dealer)
        self._loop.call_soon(self._on_replay, dealer)

    def _on_replay(self, dealer: "zmq.Socket[bytes]") -> None:
        for _ in range(MAX_A_TURN):
            if dealer is not self._dealer:  # another replay has begun, or this one is over
                return
            try:
                frames = dealer.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._replayed(frames)
        else:
            self._loop.call_soon(self._on_replay, dealer)
        self._activity()

    def _replayed(self, frames: list[bytes]) -> None:
        """Frames from the end: number and payload; before them the topic (vLLM >= 0.26) and an empty one."""
        self._answered_s = self._loop.time()
        if len(frames) < 2 or len(frames[-2]) != 8:
            self.malformed += 1
        elif frames[-2] == _END:
            self._end_replay()
            self._do(self.sequence.replay_ended(whole=True))
        else:
            self._do(self.sequence.replayed(int.from_bytes(frames[-2], "big"), frames[-1]))

    def _end_replay(self) -> None:
        if self._dealer is not None:
            self._loop.remove_reader(self._dealer.FD)
            self._dealer.close()
            self._dealer = None

    # --- silence

    def _heard(self) -> None:
        self._heard_s = self._loop.time()
        self._probe_s = FIRST_PROBE_S

    def _tick(self) -> None:
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)
        now = self._loop.time()
        if self._dealer is not None:
            if now - self._answered_s >= REPLAY_TIMEOUT_S:
                self._end_replay()
                self._do(self.sequence.replay_ended(whole=False))
                self._activity()
        elif self.connected and now - self._heard_s >= self._probe_s:
            self._heard_s = now
            self._probe_s = min(2 * self._probe_s, LAST_PROBE_S)
            self._do(self.sequence.probe())

    def _close_sub(self) -> None:
        self._sub.disable_monitor()
        self._monitor.close(linger=0)
        self._sub.close(linger=0)


def _socket(context: "zmq.Context[zmq.Socket[bytes]]", kind: int) -> "zmq.Socket[bytes]":
    """A socket that never drops what arrives: with a high-water mark, replays lose batches and even their end."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS[0])
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1])
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS[0])
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_MS[1])
    return socket
