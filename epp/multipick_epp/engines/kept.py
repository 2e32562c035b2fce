"""A question to an engine that is asked again and again, over a connection of its own that is kept.

`client` takes several times the CPU for each: here an answer costs a write, a read or two, and no task.
"""

import asyncio
from typing import cast

from multipick_epp.engines.http_answer import AnswerReader
from multipick_epp.engines.unanswered import Unanswered, Why, broken, slow
from multipick_epp.types import Endpoint


class KeptQuestion:
    """`GET path`, one at a time; to be closed."""

    def __init__(self, address: Endpoint, path: str, limit: int, timeout_s: float) -> None:
        """Of the answer `limit` bytes are read at most, for `timeout_s` with the connection's beginning."""
        self._host, _, self._port = address.rpartition(":")
        headers = f"host: {address}\r\naccept: */*\r\naccept-encoding: identity\r\n"
        self._request = f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode()
        self._limit = limit
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None

    async def ask(self) -> bytes | Unanswered:
        """The whole body. Nothing is raised."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask()
        except TimeoutError:
            return slow(self._timeout_s)
        except Exception as error:
            # Any: what is no host, or no port, raises more than OSError.
            return broken(error)

    def close(self) -> None:
        """At once; an answer that is awaited is none."""
        if self._connection is not None:
            self._connection.close()

    async def _ask(self) -> bytes | Unanswered:
        """Raises whatever a connection fails with."""
        if self._connection is not None and self._connection.open:
            answer = await self._connection.ask(self._request)
            if answer is not None:
                return answer
            # It was closed as we asked. Servers close what has rested, so that says nothing of this one.
        loop, host = asyncio.get_running_loop(), self._host.removeprefix("[").removesuffix("]")
        _, self._connection = await loop.create_connection(lambda: _Connection(self._limit), host, int(self._port))
        answer = await self._connection.ask(self._request)
        return Unanswered(Why.AWAY, "closed without an answer") if answer is None else answer


class _Connection(asyncio.Protocol):
    """While it is open, nothing is to come of it but the answer that `_answer` waits for."""

    def __init__(self, limit: int) -> None:
        self.open = False
        self._reader = AnswerReader(limit)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes | Unanswered | None] | None = None

    async def ask(self, request: bytes) -> bytes | Unanswered | None:
        """None: it was closed before anything came."""
        assert self._transport is not None
        self._reader.begin()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            if not self._reader.stays:
                self.close()

    def close(self) -> None:
        """At once."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As `asyncio.Protocol`."""
        self._transport, self.open = cast("asyncio.Transport", transport), True  # uvloop's are no instances of it

    def data_received(self, data: bytes) -> None:
        """As `asyncio.Protocol`."""
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked
        elif (answer := self._reader.feed(data)) is not None:
            self._answer.set_result(answer)

    def eof_received(self) -> None:
        """As `asyncio.Protocol`."""
        self._say(self._reader.end())

    def connection_lost(self, exc: Exception | None) -> None:
        """As `asyncio.Protocol`."""
        self.open = False
        self._say(self._reader.lost())

    def _say(self, answer: bytes | Unanswered | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
