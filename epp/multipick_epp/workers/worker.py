"""The front's side of one worker: its process, kept running; what it is told; the connections that it is given."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from multipick_epp.config import Config
from multipick_epp.events.child import Report
from multipick_epp.events.discover import FeedSpec
from multipick_epp.tasks.process import KeptProcess, write
from multipick_epp.workers.messages import Ingested, Load, News, Pool, Shed, Start, Up
from multipick_epp.workers.spread import Share

MODULE: Final = "multipick_epp.app.worker"
_SILENT_S: Final = 2.5  # without a report, others are given connections rather than it ...
_LOST_S: Final = 10.0  # ... and it counts for nothing
_A_CONNECTION: Final = b"c"  # some byte has to go with it
_HAS_NONE: Final = Load()

Run = tuple[int, int]  # a worker's number, and which of its processes


class Worker:
    """A worker. A connection that it was given is its own, and ends with it."""

    def __init__(
        self,
        number: int,
        config: Config,
        close_s: float,
        changed: Callable[[], None],
        pool: Callable[[Sequence[FeedSpec]], None],
    ) -> None:
        """`changed` is called when it begins or ends to serve, and with each report; `pool` with what it finds."""
        self.number = number
        self.admin: int | None = None  # port of its pages, on the loopback
        self.ended_at: float | None = None  # when it last did, by time.monotonic
        self.why = ""  # it did
        self._process = KeptProcess(f"worker {number}", MODULE, self, close_s)
        self._config = config
        self._pool = pool
        self._notify = changed
        self._report: Report | None = None  # of the ingest
        self._sheds = False
        self._changed = asyncio.Event()  # what it is to be told
        self._channel: socket.socket | None = None  # its connections go through here
        self._given = 0
        self._turn = 0
        self._load = _HAS_NONE
        self._heard_at = 0.0
        self._closing = False

    def start(self) -> None:
        """Start it, and keep it running."""
        self._process.start()

    async def close(self) -> None:
        """Let it drain and end; kill it where it doesn't in time."""
        self._closing = True
        await self._process.close()
        self._forget()

    @property
    def restarts(self) -> int:
        """Times that it ended and was started again."""
        return self._process.restarts

    @property
    def run(self) -> Run | None:
        """Its process that runs now; each is another one."""
        return None if self._process.pid is None else (self.number, self.restarts)

    @property
    def serving(self) -> bool:
        """It decides what comes on its connections, by what it said last."""
        # One that drains is not listened to any more, and takes connections until it ends.
        return self._load.serving and (self._closing or time.monotonic() - self._heard_at < _LOST_S)

    @property
    def silent(self) -> bool:
        """It has not told of itself for longer than it should."""
        return time.monotonic() - self._heard_at > _SILENT_S

    @property
    def share(self) -> Share:
        """Of the connections, with those that it was given and has not told of."""
        under_way = self._given - self._load.taken
        return Share(self.number, self._load.busy + under_way, self._load.connections + under_way, self._turn)

    def give(self, connection: socket.socket, turn: int) -> bool:
        """Hand over an accepted connection; false where it can't take it. `turn` counts what all are given."""
        if self._channel is None:
            return False
        try:
            socket.send_fds(self._channel, [_A_CONNECTION], [connection.fileno()])
        except OSError:  # it takes none, or is gone
            return False
        self._given += 1
        self._turn = turn
        return True

    def shed(self) -> None:
        """Let it ask its busiest peer to come again."""
        self._sheds = True
        self._changed.set()

    def ingested(self, report: Report) -> None:
        """Tell it how the ingest does."""
        self._report = report
        self._changed.set()

    def open(self) -> Sequence[socket.socket]:
        """As `Work.open`: the channel for its connections."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.setblocking(False)
        return (theirs,)

    async def tell(self, process: asyncio.StreamWriter) -> None:
        """As `Work.tell`."""
        await write(process, msgspec.json.encode(Start(self._config)))
        told: Report | None = None
        while True:
            self._changed.clear()
            if self._sheds:
                self._sheds = False
                await write(process, msgspec.json.encode(Shed()))
            if self._report is not None and self._report is not told:
                told = self._report
                await write(process, msgspec.json.encode(Ingested(told)))
            await self._changed.wait()

    def hear(self, line: bytes) -> None:
        """As `Work.hear`."""
        news = msgspec.json.decode(line, type=News)
        self._heard_at = time.monotonic()
        match news:
            case Up():
                self.admin = news.admin
            case Pool():
                self._pool(news.feeds)
            case Load():
                self._load = news
                self._notify()

    def ended(self, why: str) -> None:
        """As `Work.ended`."""
        self.ended_at, self.why = time.monotonic(), why
        self._forget()
        self._notify()

    def _forget(self) -> None:
        """What was true of the process that ended."""
        if self._channel is not None:
            self._channel.close()
        self._channel, self.admin, self._load = None, None, _HAS_NONE
        self._given = 0
        self._sheds = False
