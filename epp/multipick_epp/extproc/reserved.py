"""Bodies without the fields that only the pool may set: found and taken out before the picker sees them.

Fails closed, unlike all else here: what may hold such a field and can't be looked through is refused, since it could
spoil other clients' answers.
"""

from collections.abc import Callable
from enum import StrEnum

from multipick_epp.requests.reserved import Uncheckable, is_clean, without_reserved
from multipick_epp.tokens.worker import Worker

_INLINE_BYTES = 64_000
"""A body of so many bytes is looked through at once, in less than a millisecond."""

_LOOK_BYTES = 256_000
"""A body of so many bytes is searched for signs of such fields at once, in about a millisecond at worst; most have
none, and a hand-over to the thread and back would cost as much as the rest of a pick."""

_MAX_WAITING_BYTES = 64 << 20


class Checked(StrEnum):
    """What became of a body."""

    REMOVED = "removed"  # fields were taken out
    REFUSED = "refused"  # it could not be looked through
    UNREAD = "unread"  # it went on as it is: too large to read, or the gateway's body mode doesn't show it


class ReservedFields:
    """Takes them out, for all streams of one event loop."""

    def __init__(self, observe: Callable[[Checked], None] = lambda checked: None) -> None:
        self._observe = observe
        self._worker = Worker(threads=1, max_waiting=_MAX_WAITING_BYTES)

    async def take_out(self, body: bytes) -> bytes:
        """The body to send on; `body` itself where nothing had to go.

        Raises Uncheckable, or NoText where too much waits already.
        """
        try:
            if len(body) <= _INLINE_BYTES:
                clean = without_reserved(body)
            elif len(body) <= _LOOK_BYTES and is_clean(body):
                clean = body
            else:
                clean = await self._worker.run(len(body), lambda: without_reserved(body))
        except Uncheckable:
            self._observe(Checked.REFUSED)
            raise
        if clean is not body:
            self._observe(Checked.REMOVED)
        return clean

    def passed_unread(self) -> None:
        """A body goes on that nobody looked at."""
        self._observe(Checked.UNREAD)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()
