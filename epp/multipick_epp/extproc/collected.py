"""A request's body as far as it is collected here, and what all bodies together may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """What streams may cost."""

    max_read_bytes: int = 4 << 20  # a larger body is not given to the picker, and not kept beyond this
    max_body_bytes: int = 64 << 20  # a larger body is refused
    max_kept_bytes: int = 256 << 20  # of all streams together; beyond it, no body is waited for any more


@dataclass(slots=True)
class Kept:
    """Bytes of bodies that all streams together keep."""

    size: int = 0


class Collected:
    """One body.

    Invariant: `kept.size` has the bytes that are kept here among those of all streams.
    """

    __slots__ = ("_bounds", "_data", "_kept", "size")

    def __init__(self, bounds: Bounds, kept: Kept) -> None:
        self.size = 0  # bytes that came so far
        self._bounds = bounds
        self._kept = kept
        self._data: bytes | bytearray = b""  # what is not forwarded of them; what came as one piece is not copied

    @property
    def short(self) -> bool:
        """So far it may be given to the picker."""
        return self.size <= self._bounds.max_read_bytes

    @property
    def too_large(self) -> bool:
        """It is refused."""
        return self.size > self._bounds.max_body_bytes

    @property
    def much(self) -> bool:
        """More of it, or of all bodies, is here than should wait."""
        return self.size > self._bounds.max_read_bytes or self._kept.size > self._bounds.max_kept_bytes

    @property
    def length(self) -> int:
        """Bytes that are kept."""
        return len(self._data)

    @property
    def data(self) -> bytes:
        """What is kept."""
        return bytes(self._data)

    def keep(self, data: bytes) -> None:
        """This came, behind what is there."""
        if not self._data:
            self._data = data
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(self._data) + data
        self._kept.size += len(data)

    def replace(self, count: int, data: bytes) -> None:
        """The first `count` bytes are these now."""
        self._kept.size += len(data) - count
        self._data = data + self._data[count:]

    def forget(self) -> None:
        """Nothing of it is needed any more."""
        self._kept.size -= len(self._data)
        self._data = b""
