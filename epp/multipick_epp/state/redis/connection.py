"""One pipelined connection: what is called within a turn of the loop leaves in one write, and with it what was sent
without waiting for a reply.

redis-py spends 80-100 us of CPU on a reserve and release, this connection 7-20: there is no lock, no pool, and no task
a call. Replies come in the order of the calls, so a queue of futures is all the bookkeeping that there is.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import hiredis

from multipick_epp.state.redis.reasons import AWAY, ERROR, PROTOCOL, SLOW, reason_of

T = TypeVar("T")
Argument = bytes | str | int
REPLY_BYTES: Final = 64 << 20
"""A longer reply is not waited for. Ours are below 3 MB."""
LATER_S: Final = 0.005
"""What nobody waits for may wait so long for a call to go with: a write of its own costs a tenth of a decision. Other
replicas look at loads only every 25 ms, and what waits mostly lowers a load: who does not know it yet keeps away."""
_TOO_MANY: Final = re.compile(rb"\r\n[*%~>|]\d{8,}\r\n")
"""A reply that announces ten million parts or more: hiredis makes room for all of them at once. No text of ours has a
line break.
"""
_HEADER_BYTES: Final = 32
_MORE = object()
_NOBODY: Final = 0.0, None, False


class LostError(ConnectionError):
    """The connection is of no use any more. `reason` is one word, for metrics."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class WrongTypeError(LostError):
    """The key is of another type than the command is for. The connection goes on."""


class TooLongError(LostError):
    """A reply is longer than `REPLY_BYTES`: asked again, it would be again."""


class Waiter(Protocol):
    """Where a reply goes; a future is one. Nothing is said to one that is done.

    `set_result` raises TypeError or ValueError for a reply of another shape than it waits for.
    """

    def done(self) -> bool: ...  # noqa: D102

    def set_result(self, result: Any, /) -> None: ...  # noqa: D102

    def set_exception(self, exception: Any, /) -> None: ...  # noqa: D102


class _Taken(Generic[T]):
    """Gives a future what is made of a reply, when that comes."""

    def __init__(self, take: Callable[[Any], T], taken: asyncio.Future[T]) -> None:
        self._take = take
        self._taken = taken
        self.done = taken.done

    def set_result(self, reply: Any) -> None:
        try:
            self._taken.set_result(self._take(reply))
        except Exception as error:  # as if it had been raised by who waits
            self._taken.set_exception(error)

    def set_exception(self, error: BaseException) -> None:
        self._taken.set_exception(error)


class Connection(asyncio.Protocol):
    """Any error reply, and any call that waits longer than `stall_s`, ends the connection: whoever set it up begins
    again from a known state, instead of guessing what the server did and did not do.

    Invariant: `_waiting` has the calls that are sent, or about to be, and not answered, oldest first.
    """

    def __init__(self, stall_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[LostError] = self._loop.create_future()
        self._stall_s = stall_s
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[tuple[float, Waiter | None, bool]] = deque()
        self._out: list[bytes] = []
        self._before = b"\r\n"  # the end of what came before
        self._unread = 0  # bytes of the reply that is not complete yet
        self._soon = False  # the write comes at the end of this turn
        self._turn_s = 0.0  # when the first of `_out` was written
        self._alarm: asyncio.TimerHandle | None = None
        self._suspect: object = None

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command; the future gives its reply, or raises `LostError`."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.ask(reply, *command)
        return reply

    def take(self, take: Callable[[Any], T], *command: Argument) -> asyncio.Future[T]:
        """The same for what must be done with a reply before the next one counts. Who awaits a future goes on when the
        loop comes to it: replies that came together, and what others made of theirs, may be before it.
        """
        taken: asyncio.Future[T] = self._loop.create_future()
        self.ask(_Taken(take, taken), *command)
        return taken

    def read(self, *command: Argument) -> asyncio.Future[Any]:
        """The same for a command that changes nothing: a key of the wrong type ends nothing (`WrongTypeError`)."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            reply.set_exception(self.lost.result())
        else:
            self._write(command, reply, reads=True)
        return reply

    def ask(self, waiter: Waiter, *command: Argument) -> None:
        """Send a command; `waiter` gets its reply, or a `LostError`."""
        if self.lost.done():
            waiter.set_exception(self.lost.result())
        else:
            self._write(command, waiter)

    def send(self, *command: Argument) -> None:
        """Send a command whose reply nobody wants, `LATER_S` later at most. An error reply ends the connection, too."""
        if not self.lost.done():
            self._write(command, None, soon=False)

    def flush(self) -> None:
        """Write what was sent, not at the end of the turn."""
        self._soon = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self, error: LostError | None = None) -> None:
        """Drop the connection; all calls that wait raise `error`."""
        if self.lost.done():
            return
        error = error or LostError("closed")
        self.lost.set_result(error)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            _, waiter, _ = self._waiting.popleft()
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
        self._out.clear()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no instances of it

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self.close(LostError(AWAY, str(exc or "closed by the server")))

    def data_received(self, data: bytes) -> None:  # noqa: D102
        reader = self._reader
        waiting = self._waiting
        self._unread += len(data)
        whole = self._before + data
        if _TOO_MANY.search(whole):
            self.close(TooLongError(PROTOCOL, "a reply of ten million parts or more"))
            return
        self._before = whole[-_HEADER_BYTES:]
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _MORE:
                self._unread = 0
                _, waiter, reads = waiting[0] if waiting else _NOBODY
                if isinstance(reply, hiredis.ReplyError):  # one to nothing: the server refuses us, and says why
                    if not (reads and self._is_wrong_type(waiter, str(reply))):
                        self.close(LostError(reason_of(str(reply)), str(reply)))
                        return
                elif not waiting:
                    raise hiredis.ProtocolError("a reply that nothing asked for")
                elif waiter is not None and not waiter.done():
                    waiter.set_result(reply)
                waiting.popleft()
        except (hiredis.HiredisError, MemoryError, TypeError, ValueError) as error:  # also of who waits
            self.close(LostError(PROTOCOL, str(error)))
        if self._unread > REPLY_BYTES:
            self.close(TooLongError(PROTOCOL, f"a reply of more than {REPLY_BYTES} bytes"))

    # ---

    def _is_wrong_type(self, waiter: Waiter | None, error: str) -> bool:
        """Whether that is all that is wrong; the waiter knows then."""
        if not error.startswith("WRONGTYPE"):
            return False
        if waiter is not None and not waiter.done():
            waiter.set_exception(WrongTypeError(ERROR, error))
        return True

    def _write(
        self, command: tuple[Argument, ...], waiter: Waiter | None, *, reads: bool = False, soon: bool = True
    ) -> None:
        if not self._out:
            self._turn_s = self._loop.time()
            if not soon:
                self._loop.call_later(LATER_S, self.flush)
        if soon and not self._soon:
            self._soon = True
            self._loop.call_soon(self.flush)
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows no length but 1
        self._waiting.append((self._turn_s, waiter, reads))
        if self._alarm is None:
            self._alarm = self._loop.call_later(self._stall_s, self._watch)

    def _watch(self) -> None:
        """End the connection if the oldest call waits too long, but not before the loop had a chance to read."""
        self._alarm = None
        if not self._waiting:
            return
        oldest = self._waiting[0]
        left = oldest[0] + self._stall_s - self._loop.time()
        if left <= 0:
            if self._suspect is oldest:
                self.close(LostError(SLOW, f"no reply within {self._stall_s:g} s"))
                return
            self._suspect = oldest
            left = self._stall_s / 10
        self._alarm = self._loop.call_later(left, self._watch)
