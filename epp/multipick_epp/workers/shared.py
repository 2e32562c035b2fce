"""A worker's side of what it has in common with the others: the port, whose connections it is given, and the ingest."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.told import Told

log = logging.getLogger(__name__)

_AT_ONCE: Final = 64  # connections, before others have their turn of the loop


class SharedIngest(Told):
    """The ingest of all workers: told of the pool's endpoints by each, telling each how it does."""

    def __init__(self, tell: Callable[[Sequence[FeedSpec]], None]) -> None:
        super().__init__()
        self._tell = tell
        self._feeds: Sequence[FeedSpec] = ()
        self._known = False  # the pool, whole

    async def start(self) -> None:
        """It has been, by the front."""

    async def close(self) -> None:
        """It goes on for the others."""

    async def up(self) -> None:
        """The pool is known from now on. Returns when the ingest takes its part; after UP_WITHIN_S anyway."""
        self._known = True
        self._tell(self._feeds)
        await super().up()

    def follow(self, feeds: Iterable[FeedSpec]) -> None:
        """The pool consists of these endpoints, or will once it is known: half a pool is not told on."""
        self._feeds = list(feeds)
        if self._known:
            self._tell(self._feeds)


class GivenConnections:
    """What comes through the channel from the front."""

    def __init__(self, channel: socket.socket, take: Callable[[socket.socket], None]) -> None:
        """`take` gets each connection, which is its own then."""
        self.taken = 0
        self._channel = channel
        self._take = take
        channel.setblocking(False)

    def begin(self) -> None:
        """Take them as they come."""
        asyncio.get_running_loop().add_reader(self._channel, self._next)

    def end(self) -> None:
        """Take no more: what comes now, or waits, is closed with the channel; may be called again."""
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()

    def _next(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                byte, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.error("no more connections can be received", extra={"why": str(error)})
                self.end()  # the front gives them to others then
                return
            if not byte:  # the front is gone, as the end of the input tells, too
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            self.taken += 1
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.set_inheritable(False)
                self._take(connection)
