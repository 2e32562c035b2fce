"""One worker of a picker: `python -m multipick_epp.app.worker REPORTS CHANNEL`, as `workers.worker` starts it.

A picker whose connections come through CHANNEL, and which ends as its input does: it drains, as on SIGTERM. What it is
told and tells: `workers.messages`.
"""

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
import uvloop

from multipick_epp.app.app import App
from multipick_epp.config import ConfigError
from multipick_epp.events.discover import FeedSpec
from multipick_epp.extproc.http2.server import Http2ExtProcServer
from multipick_epp.tasks.background import Background
from multipick_epp.tasks.child import streams
from multipick_epp.telemetry import logs
from multipick_epp.workers.messages import Ingested, Load, News, Order, Pool, Start, Up
from multipick_epp.workers.shared import GivenConnections, SharedIngest

log = logging.getLogger(__name__)

_REPORT_S: Final = 1.0
_MAX_LINE_BYTES: Final = 16 << 20
_MAX_UNREAD_BYTES: Final = 1 << 20


class Seat:
    """A worker among others: an `App`, and what it tells and is told."""

    def __init__(self, start: Start, reports: asyncio.WriteTransport, channel: socket.socket) -> None:
        self._ingest = SharedIngest(self._found)
        self.app = App(start.config, self._ingest)
        assert isinstance(self.app.ext_proc, Http2ExtProcServer)  # the configuration was checked
        self._listener = self.app.ext_proc.listener
        self._reports = reports
        self._adopting = Background()
        self._given = GivenConnections(channel, lambda given: self._adopting.run(self._listener.adopt(given)))
        self._serving = False
        self._untold: Pool | None = None  # the pool, where the front does not know it yet

    async def serve(self) -> None:
        """Start, and take connections."""
        await self.app.start()
        gc.freeze()  # modules and all else that stays: no collection need look through them while requests wait
        self._tell(Up(self.app.admin_port))
        self._given.begin()
        self._serving = True
        self._report()

    async def obey(self, lines: asyncio.StreamReader) -> None:
        """Do what the front says, until it says no more."""
        while line := await lines.readline():
            order = msgspec.json.decode(line, type=Order)
            if isinstance(order, Ingested):
                self._ingest.take(order.report)
            else:
                self._listener.shed()

    async def report(self) -> None:
        """Tell how it does, for ever."""
        while True:
            self._report()
            await asyncio.sleep(_REPORT_S)

    async def close(self) -> None:
        """End everything."""
        self._given.end()
        await self._adopting.finish()  # cancelled, uvloop would drop a connection that serves by now, and tell nobody
        await self.app.close()

    def _found(self, feeds: Sequence[FeedSpec]) -> None:
        self._untold = Pool(feeds)
        self._report()

    def _report(self) -> None:
        """Tell of now. A front that does not read is told when it does: it wants no more than the last of each."""
        if self._reports.is_closing() or self._reports.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            return
        self._tell(Load(self._serving, self._given.taken, len(self._listener.peers), self._listener.busy))
        if self._untold is not None:
            self._tell(self._untold)
            self._untold = None

    def _tell(self, news: News) -> None:
        self._reports.write(msgspec.json.encode(news) + b"\n")


async def run(
    start: Start, lines: asyncio.StreamReader, reports: asyncio.WriteTransport, channel: socket.socket
) -> None:
    """Serve until `lines` end, then drain. Raises as `App.start`, and what `Seat.obey` and `Seat.report` raise."""
    seat = Seat(start, reports, channel)
    serving, reporting = asyncio.create_task(seat.serve()), asyncio.create_task(seat.report())
    obeying = asyncio.create_task(seat.obey(lines))
    try:
        await asyncio.wait((serving, obeying, reporting), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            await asyncio.wait((obeying, reporting), return_when=asyncio.FIRST_COMPLETED)
            await seat.app.drain()  # connections that come meanwhile are taken, and asked to go elsewhere
        for task in (obeying, reporting):
            if task.done():
                task.result()
    finally:
        for task in (serving, obeying, reporting):
            task.cancel()
        await asyncio.gather(serving, obeying, reporting, return_exceptions=True)
        await seat.close()


async def main(descriptor: int, channel: int) -> int:
    """Connect the streams and run; the exit status."""
    lines, reports = await streams(descriptor, _MAX_LINE_BYTES)
    first = await lines.readline()
    if not first:
        return 0  # the front is gone already
    start = msgspec.json.decode(first, type=Start)
    logs.configure(start.config.log_level, start.config.log_format)
    try:
        await run(start, lines, reports, socket.socket(fileno=channel))
    except (ConfigError, OSError, RuntimeError, ValueError) as error:
        log.error("a worker can't go on", extra={"why": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]))))
