"""The ingest in a process of its own: `python -m multipick_epp.events.child DESCRIPTOR`, as `process` starts it.

Lines of JSON, as `tasks.process` has them. On standard input: first `Start`, which holds the secrets (so they are on no
command line), then the list of all endpoints to follow, whenever it changes. On the descriptor: a `Report` every
REPORT_S.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import msgspec
import uvloop

from multipick_epp.blocks import root_key
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.ingest import Ingest
from multipick_epp.state.redis.address import Server, parse_url
from multipick_epp.state.redis.state import RedisState
from multipick_epp.tasks.child import streams
from multipick_epp.telemetry import logs
from multipick_epp.types import ReplicaId

log = logging.getLogger(__name__)

REPORT_S = 1.0
MAX_LINE_BYTES = 16 << 20
_MAX_UNREAD_BYTES = 1 << 20


class IngestOptions(msgspec.Struct, frozen=True):
    """What the ingest has to know."""

    url: str  # of the store
    password: str | None
    pool: str
    model: str  # the base model's name, as the picker seeds its block keys
    secret: bytes
    ports: Ports
    log_level: str = "info"
    log_format: str = "json"
    media: tuple[str, ...] = ()  # that are followed beside the GPU, in capitals

    def server(self) -> Server:
        """Where the store is. Raises ValueError for a bad URL."""
        server = parse_url(self.url)
        return server if self.password is None else replace(server, password=self.password)


class Start(msgspec.Struct, frozen=True):
    """What it is told first."""

    options: IngestOptions
    replica: ReplicaId  # what this process is called; no other ever is
    replaces: ReplicaId | None  # the one before it, which is dead


class Report(msgspec.Struct, frozen=True):
    """How the ingest is doing."""

    feeds: Sequence[FeedStats]
    degraded: str | None  # why the store doesn't get it


async def run(start: Start, lines: asyncio.StreamReader, reports: asyncio.WriteTransport) -> None:
    """Ingest until `lines` end."""
    settings = start.options
    index = RedisState(settings.server(), settings.pool, start.replica, picks=False, replaces=start.replaces)
    ingest = Ingest(index, lambda lora: root_key(settings.secret, settings.model, lora), settings.ports, settings.media)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(index.close)
        await index.start()
        stack.push_async_callback(ingest.close)
        await ingest.start()
        reading = asyncio.create_task(_follow(ingest, lines))
        reporting = asyncio.create_task(_report(index, ingest, reports))
        for task in (reading, reporting):
            stack.callback(task.cancel)
        # Whichever fails ends this process, and another one is started.
        done, _ = await asyncio.wait((reading, reporting), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _follow(ingest: Ingest, lines: asyncio.StreamReader) -> None:
    while line := await lines.readline():
        ingest.follow(msgspec.json.decode(line, type=list[FeedSpec]))


async def _report(index: RedisState, ingest: Ingest, reports: asyncio.WriteTransport) -> None:
    while not reports.is_closing():  # the picker is gone: the end of its lines may be heard of later
        if reports.get_write_buffer_size() < _MAX_UNREAD_BYTES:
            reports.write(msgspec.json.encode(Report(ingest.stats(), index.degraded)) + b"\n")
        await asyncio.sleep(REPORT_S)


async def main(descriptor: int) -> None:
    """Connect the streams and run."""
    lines, reports = await streams(descriptor, MAX_LINE_BYTES)
    first = await lines.readline()
    if not first:
        return  # the picker is gone already
    start = msgspec.json.decode(first, type=Start)
    logs.configure(start.options.log_level, start.options.log_format)
    await run(start, lines, reports)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
