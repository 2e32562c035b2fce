"""A process of our own that is kept running: started again when it ends or stands still, fed, and heard.

It is `python -Pm MODULE DESCRIPTOR ...`: on its standard input come lines, as `Work.tell` writes them; on the first
descriptor it writes lines itself, its reports, at least one a second; the other descriptors are what `Work.open` gives
it. Its standard output carries nothing: any library may print there. It ends when its input does, so it can't outlive
us. Whatever it does or writes, and whatever fails here, ends that process at most: see `_supervise`.
"""

import asyncio
import logging
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Protocol

from multipick_epp.tasks.backoff import Backoff

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
_PAUSE_S = (0.2, 10.0)  # first and longest pause before it is started again
_LONG_ENOUGH_S = 60.0  # after such a run the next pause is the first again
_LINE_BYTES = 200  # of an unreadable line that the log shows
_STANDARD_ERROR = 2  # where what it prints goes: its reports have a pipe of their own


class Work(Protocol):
    """What the process is for."""

    def open(self) -> Sequence[socket.socket]:
        """What a new process gets beside its input: sockets that are its own, and closed here once it has them."""

    async def tell(self, process: asyncio.StreamWriter) -> None:
        """Write what a new process is told first, and then whatever changes; for ever."""

    def hear(self, line: bytes) -> None:
        """A report. Raises ValueError, RecursionError for a line that is none."""

    def ended(self, why: str) -> None:
        """The process is gone, or none could be started; another one will come."""


class KeptProcess:
    """Invariant: from `start` to `close`, a process runs or a pause before the next one does."""

    def __init__(self, name: str, module: str, work: Work, close_s: float | None = None) -> None:
        """`close_s`: time for it to end when `close` ends its input."""
        self.restarts = 0
        self.unread_reports = 0
        self.pid: int | None = None  # of the process that runs now
        self._name = name
        self._module = module
        self._work = work
        self._close_s = close_s
        self._heard = False  # since the last look
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it, and keep it running in the background."""
        self._task = asyncio.create_task(self._supervise(), name=f"{self._name} process")

    async def close(self) -> None:
        """End it, and return when it has."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(*_PAUSE_S)
        while True:
            started = loop.time()
            try:
                why = await self._run()
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            self.restarts += 1
            if loop.time() - started >= _LONG_ENOUGH_S:
                backoff.reset()
            pause_s = backoff.next_s()
            log.error("%s process ended", self._name, extra={"why": why, "again_in_s": pause_s})
            self._work.ended(why)
            await asyncio.sleep(pause_s)

    async def _run(self) -> str:
        """One process, from start to end. Returns why it ended. Raises OSError where none can be started."""
        ours, theirs = _pipe()
        with ours:
            with theirs, ExitStack() as given:
                sockets = [given.enter_context(each) for each in self._work.open()]
                descriptors = [theirs.fileno(), *(each.fileno() for each in sockets)]
                process = await asyncio.create_subprocess_exec(
                    # -P: no file in the folder that somebody started us in is one of its modules.
                    *(sys.executable, "-Pm", self._module, *map(str, descriptors)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=_STANDARD_ERROR,
                    pass_fds=descriptors,
                )
            self.pid = process.pid
            patience_s = CLOSE_S if self._close_s is None else self._close_s
            try:
                why = await self._attend(process, ours)
                patience_s = CLOSE_S  # it has ended, or stands still
            finally:
                await self._end(process, patience_s)
                self.pid = None
        return f"{why}, exit status {process.returncode}"

    async def _attend(self, process: Process, pipe: IO[bytes]) -> str:
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
        await self._work.tell(stdin)
        return "there is no more to tell it"

    async def _read(self, reports: asyncio.StreamReader) -> str:
        """Take its reports until they end. One that can't be read is no report."""
        log_it = True
        while True:
            line = b""
            try:
                line = await reports.readline()
                if not line:
                    return "it ended"
                self._work.hear(line)
                self._heard = True
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

    async def _end(self, process: Process, patience_s: float) -> None:
        """Ask it to end, by the end of its input; kill it where it doesn't."""
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            log.warning("%s process killed", self._name, extra={"pid": process.pid})
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
        await process.wait()


async def write(process: asyncio.StreamWriter, line: bytes) -> None:
    """One line more, for `Work.tell`. Of a process that has ended, the end of its reports tells."""
    process.write(line + b"\n")
    with suppress(ConnectionError):
        await process.drain()


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    """An end to read from, and one to write to."""
    reads, writes = os.pipe()
    return os.fdopen(reads, "rb"), os.fdopen(writes, "wb")


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has spent; 0 where the system doesn't tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, IndexError, ValueError):
        return 0
