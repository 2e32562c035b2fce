"""The picker's side of the ingest process: starts it, feeds it, starts it again when it ends or stands still.

The index is the store's: while the process is down nothing is lost but time, and its successor replays what it missed.
Whatever the process does or writes, and whatever fails here, ends that process at most: see `_supervise`.
"""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import msgspec

from multipick_epp.events.child import IngestOptions, Report, Start
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.feed import FeedStats
from multipick_epp.types import ReplicaId

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at whether there was a report. A look that comes late counts for nothing: it was us who slept."""
LATE_S = 1.0
IDLE_LOOKS = 15
"""In a row without a report, and without any CPU time spent: the process is stuck."""
BUSY_LOOKS = 60
"""In a row without a report, whatever it is busy with."""
MAX_REPORT_BYTES = 4 << 20
CLOSE_S = 5.0
UP_WITHIN_S = 10.0
"""An interpreter that starts takes a second; on a machine that is busy with the same elsewhere, some."""
_PAUSE_S = (0.2, 10.0)  # first and longest pause before it is started again
_LONG_ENOUGH_S = 60.0  # after such a run the next pause is the first again
_LINE_BYTES = 200  # of an unreadable line that the log shows
_STANDARD_ERROR = 2  # where what it prints goes: its reports have a pipe of their own


class IngestProcess:
    """An `Ingest` elsewhere. Invariant: from `start` to `close`, a process runs or a pause before the next one does."""

    def __init__(self, settings: IngestOptions) -> None:
        self.restarts = 0
        self.unread_reports = 0
        self.pid: int | None = None  # of the process that runs now
        self._settings = settings
        self._replica: ReplicaId | None = None  # of the process that ran last
        self._feeds: Sequence[FeedSpec] = ()
        self._changed = asyncio.Event()
        self._report = Report((), "not started")
        self._up = asyncio.Event()  # set once it has reported that it does its work
        self._heard = False  # since the last look
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and keep it running in the background."""
        self._task = asyncio.create_task(self._supervise(), name="ingest process")

    async def close(self) -> None:
        """End it. The index keeps what it knows."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s, longest_s = _PAUSE_S
        while True:
            started = loop.time()
            try:
                why = await self._run()
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            self.pid = None
            self.restarts += 1
            self._report = Report((), "ingest process is down")
            if loop.time() - started >= _LONG_ENOUGH_S:
                pause_s = _PAUSE_S[0]
            log.error("ingest process ended", extra={"why": why, "again_in_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _run(self) -> str:
        """One process, from start to end. Returns why it ended. Raises OSError where none can be started."""
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as pipe:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "multipick_epp.events.child", str(theirs)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=_STANDARD_ERROR,
                    pass_fds=(theirs,),
                )
            finally:
                os.close(theirs)
            self.pid = process.pid
            try:
                why = await self._attend(process, pipe)
            finally:
                await _end(process)
        return f"{why}, exit status {process.returncode}"

    async def _attend(self, process: Process, pipe: BinaryIO) -> str:
        """Feed it, read its reports, watch over it, until one of the three is over. Returns why."""
        assert process.stdin is not None
        reports = asyncio.StreamReader(limit=MAX_REPORT_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reports), pipe)
        parts = (self._feed(process.stdin), self._read(reports), self._watch(process.pid))
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            transport.close()

    async def _feed(self, stdin: asyncio.StreamWriter) -> str:
        before, self._replica = self._replica, ReplicaId(uuid4().hex[:12])
        stdin.write(msgspec.json.encode(Start(self._settings, self._replica, before)) + b"\n")
        while True:
            self._changed.clear()
            stdin.write(msgspec.json.encode(self._feeds) + b"\n")
            with suppress(ConnectionError):  # it has ended, as the end of its reports tells
                await stdin.drain()
            await self._changed.wait()

    async def _read(self, reports: asyncio.StreamReader) -> str:
        """Take its reports until they end. One that can't be read is no report."""
        log_it = True
        while True:
            line = b""
            try:
                line = await reports.readline()
                if not line:
                    return "it ended"
                self._report = msgspec.json.decode(line, type=Report)
                self._heard = True
                if self._report.degraded is None:
                    self._up.set()
            except (
                ValueError,
                RecursionError,
            ) as error:  # also for a line that is too long, and all that msgspec raises
                self.unread_reports += 1
                if log_it:
                    log.warning("report not read", extra={"why": str(error), "line": repr(line[:_LINE_BYTES])})
                log_it = False

    async def _watch(self, pid: int) -> str:
        """Returns why the process counts as stuck, once it does."""
        loop = asyncio.get_running_loop()
        self._heard = False
        idle = silent = 0
        spent = _cpu_ticks(pid)
        while True:
            before = loop.time()
            await asyncio.sleep(LOOK_S)
            late = loop.time() - before > LOOK_S + LATE_S
            heard, self._heard = self._heard, False
            spent_before, spent = spent, _cpu_ticks(pid)
            if heard or late:
                idle = silent = 0
                continue
            silent += 1
            idle = idle + 1 if spent == spent_before else 0
            if idle >= IDLE_LOOKS or silent >= BUSY_LOOKS:
                return f"no report for {silent} s, no work for {idle} s"


async def _end(process: Process) -> None:
    """Ask it to end, by the end of its input; kill it where it doesn't."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(CLOSE_S):
            await process.wait()
    except TimeoutError:
        log.warning("ingest process killed", extra={"pid": process.pid})
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    await process.wait()


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has spent; 0 where the system doesn't tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, IndexError, ValueError):
        return 0
