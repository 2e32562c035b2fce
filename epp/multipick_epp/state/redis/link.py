"""Keeps one connection to the store, through whatever happens to the store."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.reasons import ERROR
from multipick_epp.tasks.backoff import Backoff

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

Open = Callable[[], Awaitable[Connection]]
Session = Callable[[Connection, "Link"], Awaitable[None]]


class Link:
    """Opens a connection, runs `session` on it, and begins again when either ends, after a pause that grows.

    `outage` is why the link does not work now; None from `up` until the connection is lost. `settled` is set once the
    first attempt has succeeded or failed.
    """

    def __init__(
        self,
        name: str,
        rng: Random,
        outages: Counter[tuple[str, str]],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called whenever `outage` has become another."""
        self.name = name
        self.outage: str | None = "starting"
        self.settled = asyncio.Event()
        self._outages = outages
        self._changed = changed
        self._backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, rng)

    def up(self) -> None:
        """The session has set everything up."""
        if self.outage is not None:
            log.info("store link is up", extra={"link": self.name, "after": self.outage})
            self.outage = None
            self._changed()
        self._backoff.reset()
        self.settled.set()

    async def run(self, open_connection: Open, session: Session) -> None:
        """Never returns; to be cancelled."""
        while True:
            try:
                await self._once(open_connection, session)
            except LostError as lost:
                self._down(lost)
            except Exception as error:
                log.exception("store session failed", extra={"link": self.name})
                self._down(LostError(ERROR, repr(error)))
            await asyncio.sleep(self._backoff.next_s())

    async def _once(self, open_connection: Open, session: Session) -> None:
        connection = await open_connection()
        work = asyncio.ensure_future(session(connection, self))
        try:
            await asyncio.wait((work, connection.lost), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise connection.lost.result()
            if work.cancelled():  # by whatever: it isn't us who are to end
                raise LostError(ERROR, "the session was cancelled")
            work.result()
            raise LostError(ERROR, "the session ended")
        finally:
            connection.close()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)  # not `await work`: its end is not our cancellation

    def _down(self, lost: LostError) -> None:
        if self.outage != lost.reason:
            log.warning("store link is down", extra={"link": self.name, "reason": lost.reason, "detail": str(lost)})
            self._outages[self.name, lost.reason] += 1
            self.outage = lost.reason
            self._changed()
        self.settled.set()
