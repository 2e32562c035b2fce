"""What a peer may cost: memory, time, and work for nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field

from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.http2.frames import Code, PeerError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one server. Sizes in bytes."""

    connections: Connections = field(default_factory=Connections)
    message: int = 128 << 20  # of one gRPC message; a larger one ends its call with RESOURCE_EXHAUSTED
    # Envoy has one connection a worker thread and a stream for each request in flight; what it may not open it queues
    # or fails. So the limit is far above what one thread can have in flight; as much costs us some 50 MB.
    streams: int = 16_384  # open on one connection; more are refused
    all_streams: int = 65_536  # open on all connections
    header_list: int = 16_384  # of one request, as RFC 9113 section 6.5.2 counts
    header_frames: int = 8  # of one header block
    stream_window: int = 1 << 20  # what a peer may send on one stream before it is taken
    connection_window: int = 16 << 20  # the same, of all streams of a connection
    outbox: int = 1 << 20  # queued on one stream before no more of it is read
    held: int = 512 << 20  # queued either way, of all connections; beyond it, who holds most loses its largest stream
    frame_s: float = 30.0  # for a frame, or a header block, from its first byte to its last
    first_message_s: float = 60.0  # for the first message of a call, or the end of a request that was refused
    stalled_s: float = 300.0  # of a stream with something to send and no window for it
    turn_frames: int = 512  # of one connection, before others have their turn
    idle_work: float = 10_000.0  # units at once, as `Allowance` counts
    idle_work_per_s: float = 1_000.0


class Allowance:
    """A bucket of work that a peer may ask of us for nothing: frames that carry no message forward.

    Each such frame takes a unit, a stream that is reset before it said anything takes `RESET`. Time fills the bucket,
    and so does each message that we send, because peers acknowledge and measure what they get. Bounds what RST_STREAM
    (CVE-2023-44487), SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty and tiny frames, and header blocks cost.

    A gateway passes on how its clients behave, and all of them would pay for a connection that is cut. So a request
    that is taken back unanswered costs so little that a thread of Envoy, at 300 us a request, can't reach the bound.
    """

    RESET = 4.0
    TAKEN_BACK = 0.25
    MESSAGE = 2.0
    DECODED = 256.0  # bytes of a header block that is not recognised, for a unit

    __slots__ = ("_burst", "_clock", "_per_s", "_since", "left")

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float]) -> None:
        self.left = burst  # units; whoever adds to it need not look at the burst, `take` does
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._since = clock()

    def take(self, units: float) -> None:
        """Raises PeerError where that is too much."""
        self.left = min(self.left, self._burst) - units
        if self.left < 0:
            now = self._clock()
            self.left = min(self.left + (now - self._since) * self._per_s, self._burst)
            self._since = now
            if self.left < 0:
                raise PeerError(Code.ENHANCE_YOUR_CALM, "too many frames that carry nothing")


class Shared:
    """What all connections of a server have together."""

    __slots__ = ("_bounds", "_shed", "held", "streams")

    def __init__(self, bounds: Bounds, shed: Callable[[], None]) -> None:
        """`shed` frees the largest holding."""
        self._bounds = bounds
        self._shed = shed
        self.held = 0  # bytes queued in either direction
        self.streams = 0

    def hold(self, count: int) -> None:
        """So many bytes more, or less."""
        self.held += count
        if count > 0 and self.held > self._bounds.held:
            self._shed()
