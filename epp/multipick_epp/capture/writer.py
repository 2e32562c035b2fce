"""Takes requests from the event loop, and writes them in a thread: a slow or full disk costs the capture only.

What is kept of requests in flight, and of those that wait to be written, is bounded together; beyond it requests are
not captured, and counted.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from multipick_epp.blocks import Chains
from multipick_epp.capture.files import Folder, TooLong
from multipick_epp.capture.lines import MAX_BLOCKS, Captured, Lines, Part, Told, part

log = logging.getLogger(__name__)

HELD_BYTES = 64 << 20
REQUEST_BYTES = 256  # what one costs beside its keys
LOG_EVERY_S = 10.0
CLOSE_S = 5.0  # for what still waits when the picker ends

Lost = Callable[[str], None]


@dataclass(slots=True)
class Taken:
    """A request in flight, as far as it is to be captured."""

    at_s: float  # Unix time
    parts: Sequence[Part]
    turn: int | None
    held: int  # bytes of the bound


class Capture:
    """Used by one event loop. Invariant: `_held` is what all `Taken` hold that were neither written nor given up."""

    def __init__(self, lines: Lines, folder: Folder, written: Callable[[], None], lost: Lost) -> None:
        """`written` is told of each request that was, `lost` of each that was not, and why, in a word."""
        self._lines = lines
        self._folder = folder
        self._written = written
        self._lost = lost
        self._held = 0
        self._full = False  # too much waits: the last request was not captured for that
        self._failed: str | None = None  # why the last ones were not written
        self._told_s = float("-inf")
        self._freed: SimpleQueue[int] = SimpleQueue()  # by the thread, which must not touch `_held`
        self._over: SimpleQueue[tuple[Taken, Captured] | None] = SimpleQueue()  # None: write what is there, and end
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def outage(self) -> str | None:
        """Why requests are not captured, in words; None while they are."""
        return self._failed or ("more waits to be written than may" if self._full else None)

    def take(self, prompts: Sequence[Chains], turn: int | None) -> Taken | None:
        """A request was picked; None where it can't be captured."""
        parts = [_part(chains) for chains in prompts]
        held = REQUEST_BYTES * (1 + len(parts)) + sum(len(each.keys) for each in parts)
        self._count_freed()
        full = self._held + held > HELD_BYTES
        if full != self._full:
            self._full = full
            self._tell("own traffic is not captured: too much waits" if full else "what waits is captured again")
        if full:
            self._lost("memory")
            return None
        if any(len(each.keys) > 8 * MAX_BLOCKS for each in parts):
            self._lost("length")
            return None
        self._held += held
        return Taken(time.time(), parts, turn, held)

    def over(self, taken: Taken, output_tokens: int, told: Told) -> None:
        """It is over, after an answer of so many tokens."""
        self._over.put((taken, Captured(taken.at_s, taken.parts, taken.turn, output_tokens, told)))

    def give_up(self, taken: Taken) -> None:
        """It is over, and was none that an engine worked on."""
        self._held -= taken.held

    def close(self) -> None:
        """Write what waits, for some seconds at most, and end."""
        self._over.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _count_freed(self) -> None:
        while True:
            try:
                self._held -= self._freed.get_nowait()
            except Empty:
                return

    # --- in the thread

    def _run(self) -> None:
        while (over := self._over.get()) is not None:
            taken, request = over
            self._write(request)
            self._freed.put(taken.held)
        self._folder.close()

    def _write(self, request: Captured) -> None:
        try:
            self._folder.append(self._lines.of(request))
        except TooLong:
            self._lost("length")
        except OSError as error:
            self._fail(error.strerror or str(error), "disk")
        except Exception as error:
            log.exception("a request could not be captured")  # a defect of ours: it must cost no later request
            self._fail(repr(error), "internal")
        else:
            if self._failed is not None:
                self._failed = None
                self._tell("own traffic is captured again")
            self._written()

    def _fail(self, why: str, kind: str) -> None:
        if self._failed is None:
            self._tell("own traffic is not captured", why)
        self._failed = why
        self._lost(kind)

    def _tell(self, what: str, why: str | None = None) -> None:
        """Log it, but not with every request that comes where a disk is full one moment and not the next."""
        if (now_s := time.monotonic()) - self._told_s >= LOG_EVERY_S:
            self._told_s = now_s
            log.warning(what, extra={} if why is None else {"why": why})


def _part(chains: Chains) -> Part:
    size = min(chains.by_size, default=0)
    return part(chains.prompt_tokens, size, chains.by_size[size]) if size else part(chains.prompt_tokens)
