"""The picker's side of the ingest process.

The index is the store's: while the process is down nothing is lost but time, and its successor replays what it missed.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from uuid import uuid4

import msgspec

from multipick_epp.events.child import IngestOptions, Report, Start
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.feed import FeedStats
from multipick_epp.tasks.process import KeptProcess, write
from multipick_epp.types import ReplicaId

CLOSE_S = 8.0
"""It hands over within `ingest.HAND_OVER_S`, and tells the last."""
UP_WITHIN_S = 10.0
"""An interpreter that starts takes a second; on a machine that is busy with the same elsewhere, some."""


class IngestProcess:
    """An `Ingest` elsewhere, kept running."""

    def __init__(self, settings: IngestOptions, reported: Callable[[Report], None] = lambda _: None) -> None:
        """`reported` hears each report, too."""
        self._process = KeptProcess("ingest", "multipick_epp.events.child", self, CLOSE_S)
        self._settings = settings
        self._reported = reported
        self._replica: ReplicaId | None = None  # of the process that ran last
        self._feeds: Sequence[FeedSpec] = ()
        self._changed = asyncio.Event()
        self._report = Report((), "not started")
        self._up = asyncio.Event()  # set once it has reported that it does its work

    async def start(self) -> None:
        """Start it, and keep it running in the background."""
        self._process.start()

    async def close(self) -> None:
        """End it. The index keeps what it knows."""
        await self._process.close()

    async def up(self) -> None:
        """Returns when it takes its part of the ingest; after UP_WITHIN_S anyway."""
        with suppress(TimeoutError):
            async with asyncio.timeout(UP_WITHIN_S):
                await self._up.wait()

    def follow(self, feeds: Iterable[FeedSpec]) -> None:
        """The pool consists of these endpoints from now on."""
        self._feeds = list(feeds)
        self._changed.set()

    def stats(self) -> Sequence[FeedStats]:
        """Of each endpoint that is followed there, as of the last report."""
        return self._report.feeds

    @property
    def degraded(self) -> str | None:
        """Why the store doesn't get what the engines say; None while it does."""
        return self._report.degraded

    @property
    def restarts(self) -> int:
        """Times that it ended and was started again."""
        return self._process.restarts

    @property
    def unread_reports(self) -> int:
        """Lines of it that were no report."""
        return self._process.unread_reports

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid

    def open(self) -> Sequence[socket.socket]:
        """As `Work.open`."""
        return ()

    async def tell(self, process: asyncio.StreamWriter) -> None:
        """As `Work.tell`."""
        before, self._replica = self._replica, ReplicaId(uuid4().hex[:12])
        await write(process, msgspec.json.encode(Start(self._settings, self._replica, before)))
        while True:
            self._changed.clear()
            await write(process, msgspec.json.encode(self._feeds))
            await self._changed.wait()

    def hear(self, line: bytes) -> None:
        """As `Work.hear`."""
        self._take(msgspec.json.decode(line, type=Report))

    def ended(self, why: str) -> None:
        """As `Work.ended`."""
        self._take(Report((), "ingest process is down"))

    def _take(self, report: Report) -> None:
        self._report = report
        if report.degraded is None:
            self._up.set()
        self._reported(report)
