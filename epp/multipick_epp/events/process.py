"""The picker's side of the ingest process.

The index is the store's: while the process is down nothing is lost but time, and its successor replays what it missed.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

import msgspec

from multipick_epp.events.child import IngestOptions, Report, Start
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.told import Told
from multipick_epp.tasks.process import KeptProcess, write
from multipick_epp.types import ReplicaId

CLOSE_S = 8.0
"""It hands over within `ingest.HAND_OVER_S`, and tells the last."""


class IngestProcess(Told):
    """An `Ingest` elsewhere, kept running."""

    def __init__(self, settings: IngestOptions, reported: Callable[[Report], None] = lambda _: None) -> None:
        """`reported` hears each report, too."""
        super().__init__()
        self._process = KeptProcess("ingest", "multipick_epp.events.child", self, CLOSE_S)
        self._settings = settings
        self._reported = reported
        self._replica: ReplicaId | None = None  # of the process that ran last
        self._feeds: Sequence[FeedSpec] = ()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Start it, and keep it running in the background."""
        self._process.start()

    async def close(self) -> None:
        """End it. The index keeps what it knows."""
        await self._process.close()

    def follow(self, feeds: Iterable[FeedSpec]) -> None:
        """The pool consists of these endpoints from now on."""
        self._feeds = list(feeds)
        self._changed.set()

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
        self.take(msgspec.json.decode(line, type=Report))

    def ended(self, why: str) -> None:
        """As `Work.ended`."""
        self.take(Report((), "ingest process is down"))

    def take(self, report: Report) -> None:
        """As `Told.take`."""
        super().take(report)
        self._reported(report)
