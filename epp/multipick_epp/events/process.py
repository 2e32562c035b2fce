"""The picker's side of the ingest process: starts it, feeds it, starts it again when it ends or falls silent.

The index is the store's: while the process is down nothing is lost but time, and its successor replays what it missed.
"""

import asyncio
import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from multipick_epp.events.child import MAX_LINE_BYTES, IngestOptions, Report
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.feed import FeedStats

log = logging.getLogger(__name__)

SILENT_S = 15.0  # without a report, the process counts as stuck
CLOSE_S = 3.0
_PAUSE_S = (0.2, 10.0)  # first and longest pause before it is started again
_LONG_ENOUGH_S = 60.0  # after such a run the next pause is the first again


class IngestProcess:
    """An `Ingest` elsewhere. Invariant: from `start` to `close`, a process runs or a pause before the next one does."""

    def __init__(self, settings: IngestOptions) -> None:
        self.restarts = 0
        self.pid: int | None = None  # of the process that runs now
        self._settings = settings
        self._feeds: Sequence[FeedSpec] = ()
        self._changed = asyncio.Event()
        self._report = Report((), "not started")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and keep it running in the background."""
        self._task = asyncio.create_task(self._supervise(), name="ingest process")

    async def close(self) -> None:
        """End it. The index keeps what it knows."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s, longest_s = _PAUSE_S
        while True:
            started = loop.time()
            try:
                why = await self._run()
            except OSError as error:
                why = str(error)
            self.pid = None
            self.restarts += 1
            self._report = Report((), "ingest process is down")
            if loop.time() - started >= _LONG_ENOUGH_S:
                pause_s = _PAUSE_S[0]
            log.error("ingest process ended", extra={"why": why, "again_in_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _run(self) -> str:
        """One process, from start to end. Returns why it ended."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "multipick_epp.events.child"), stdin=pipe, stdout=pipe, limit=MAX_LINE_BYTES
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        feeding = asyncio.create_task(self._feed(process.stdin))
        try:
            why = await self._read(process.stdout)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            process.stdin.close()  # tells it to end
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        return f"{why}, exit status {process.returncode}"

    async def _feed(self, stdin: asyncio.StreamWriter) -> None:
        stdin.write(msgspec.json.encode(self._settings) + b"\n")
        while True:
            self._changed.clear()
            stdin.write(msgspec.json.encode(self._feeds) + b"\n")
            with suppress(ConnectionError):  # it has ended, as the end of its reports tells
                await stdin.drain()
            await self._changed.wait()

    async def _read(self, stdout: asyncio.StreamReader) -> str:
        """Take its reports until it ends or falls silent, and say which."""
        try:
            while True:
                async with asyncio.timeout(SILENT_S):
                    line = await stdout.readline()
                if not line:
                    return "it ended"
                self._report = msgspec.json.decode(line, type=Report)
        except TimeoutError:
            return f"no report for {SILENT_S:g} s"
