"""What goes to the peer: bytes gathered for one write, and the windows that say which stream may add to them.

A message goes out whole, or as much of it as fits. What doesn't fit stays in its stream. A stream whose own window is
used up is `stalled` until the peer gives it credit; one that only the connection holds up is `waiting`, and all those
have their turn, longest waiting first. Beside the windows, one write has a bound, and nothing goes out while the peer
doesn't read: memory is spent in streams only, where it is counted.
"""

from collections import OrderedDict
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final

from multipick_epp.extproc.http2.bounds import Allowance
from multipick_epp.extproc.http2.frames import (
    DATA,
    FRAME_BYTES,
    HEADER,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    Code,
    PeerError,
)
from multipick_epp.extproc.http2.grpc import PREFIX_BYTES

if TYPE_CHECKING:
    from multipick_epp.extproc.http2.stream import Stream

_MESSAGE: Final = Struct(HEADER.format + "BL").pack  # a frame's header, and a message's prefix behind it

WRITE_BYTES = 1 << 20
"""Of messages in one write; what is beyond it waits for the next."""


class Output:
    """The sending half of a connection."""

    __slots__ = (
        "_allowance",
        "_choked",
        "_out",
        "_size",
        "_stalled",
        "_window",
        "awaited",
        "peer_window",
        "waiting",
        "wake",
        "writable",
    )

    def __init__(self, allowance: Allowance, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to take where there was nothing, unless that is `awaited`."""
        self.peer_window = WINDOW_DEFAULT  # what the peer's settings let every stream send; its own credit is added
        self.writable = True  # the peer reads what we write
        self.awaited = False  # whoever writes will take anyway
        self._allowance = allowance
        self.wake = wake
        self._stalled: dict[Stream, None] = {}
        self.waiting: OrderedDict[Stream, None] = OrderedDict()
        self._window = WINDOW_DEFAULT  # of the connection
        self._out: list[bytes] = []
        self._size = 0  # bytes of messages in it
        self._choked = False  # no stream may send

    def write(self, data: bytes) -> None:
        """Behind all that is to be written. No window applies."""
        if not (self._out or self.awaited):
            self.wake()
        self._out.append(data)

    def take(self) -> bytes:
        """All that is to be written."""
        self._choked = False
        if not self._out:
            return b""
        out, self._out, self._size = self._out, [], 0
        return b"".join(out)

    def message(self, stream: "Stream", data: bytes) -> bool:
        """Write a message, if all of it may go out now."""
        size = len(data) + PREFIX_BYTES
        if self._choked or size > FRAME_BYTES or size > self._window or size > self.peer_window + stream.credit:
            return False
        self._charge(stream, size)
        self._allowance.left += Allowance.MESSAGE
        self.write(_MESSAGE(0, size, DATA, 0, stream.id, 0, size - PREFIX_BYTES) + data)
        return True

    def part(self, stream: "Stream", want: int) -> int:
        """How much of a message may go out now; the windows are charged."""
        if self._choked or self._window <= 0:
            self._choked = True
            return 0
        size = min(want, self._window, self.peer_window + stream.credit)
        if size <= 0:
            return 0
        self._charge(stream, size)
        if size == want:
            self._allowance.left += Allowance.MESSAGE
        return size

    def block(self, stream: "Stream") -> None:
        """It has more to send than may go out; its turn comes behind the others'."""
        if self._choked:
            self._stalled.pop(stream, None)
            self.waiting[stream] = None
        else:
            self._stalled[stream] = None

    def unblock(self, stream: "Stream") -> None:
        """It has nothing to send any more."""
        self._stalled.pop(stream, None)
        self.waiting.pop(stream, None)

    @property
    def blocked(self) -> list["Stream"]:
        """Streams that have more to send than may go out."""
        return [*self.waiting, *self._stalled]

    def widen(self, window: int) -> int:
        """Each stream may send so much, beside its own credit; how many streams have to look whether that helps."""
        wider, self.peer_window = window > self.peer_window, window
        stalled = len(self._stalled) if wider else 0
        if stalled:
            self.waiting.update(self._stalled)
            self._stalled.clear()
        return stalled

    def credit(self, size: int) -> None:
        """The peer takes so much more on the connection. Raises PeerError."""
        self._window += size
        if self._window > WINDOW_MAX:
            raise PeerError(Code.FLOW_CONTROL_ERROR, "window above the maximum")

    def flow(self) -> None:
        """Let the waiting streams go on, as far as windows and the bound of one write take it."""
        if not (self.waiting and self.writable and self._window > 0 and self._size < WRITE_BYTES):
            return
        self._choked = False
        while self.waiting and not self._choked:
            stream, _ = self.waiting.popitem(last=False)
            stream.flow()

    def _charge(self, stream: "Stream", size: int) -> None:
        stream.credit -= size
        self._window -= size
        self._size += size
        if self._size >= WRITE_BYTES or not self.writable:
            self._choked = True
