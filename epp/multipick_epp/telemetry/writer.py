"""Log lines, written by a thread: who reads them may be slow, or stand still, and no request waits for him."""

import logging
import os
import select
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

WAITING: Final = 4096
"""Lines that wait to be written; what comes beyond them is lost, and that is told once somebody reads again."""
_CLOSE_S: Final = 2.0  # for what still waits when the process ends
_STANDARD_ERROR: Final = 2  # the file, and not `sys.stderr`: its lock would hold up whoever else writes there


class Writer(logging.Handler):
    """To standard error. What is logged from anywhere is written by one thread, each line whole."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: SimpleQueue[str | None] = SimpleQueue()  # None: write what is there, and end
        self._lost = 0  # lines; counted by who logs ...
        self._told = 0  # ... and of these, told by the thread
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`: returns at once."""
        try:
            if self._lines.qsize() < WAITING:
                self._lines.put(self.format(record))
            else:
                self._lost += 1
        except Exception:  # as the library has it: what can't be formatted is told, and costs nothing else
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, for some seconds at most; comes by itself when the process ends."""
        self._lines.put(None)
        self._thread.join(_CLOSE_S)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
            if lost := self._lost - self._told:
                self._told += lost
                told = {"name": __name__, "levelname": "WARNING", "msg": "log lines were lost: nobody took them"}
                self._write(self.format(logging.makeLogRecord(told | {"lines": lost})))

    def _write(self, line: str) -> None:
        rest = memoryview(f"{line}\n".encode(self._encoding, "backslashreplace"))
        with suppress(OSError):  # there is nobody any more to tell
            while rest:
                try:
                    rest = rest[os.write(_STANDARD_ERROR, rest) :]
                except BlockingIOError:  # whoever else has the file made it so
                    select.select([], [_STANDARD_ERROR], [])
