"""A folder of trace files that never grows beyond its bounds: `capture-TIME-PICKER-NUMBER.jsonl`, oldest first by name.

The folder's files count together, whoever wrote them: a picker that is started again, in a new pod and under a new
name, goes on where the one before it left off, and what is too much goes, oldest first.
"""

import os
import re
import time
from pathlib import Path

PATTERN = "capture-*.jsonl"
_TIME = re.compile(r"capture-(\d{19})-")


class TooLong(ValueError):  # noqa: N818 (named for what it is)
    """Lines that are more than a file may have."""


class Folder:
    """Written to by one thread. Invariant: an open file ends with a whole line, `_size` bytes from its start."""

    def __init__(self, path: Path, picker: str, file_bytes: int, files: int) -> None:
        """At most `files` files, each of at most `file_bytes` bytes."""
        self._path = path
        self._picker = picker
        self._file_bytes = file_bytes
        self._files = files
        self._number = 0
        self._fd: int | None = None
        self._size = 0

    def append(self, lines: bytes) -> None:
        """Write whole lines, all of them or none. Raises TooLong, and OSError for a full or broken disk.

        What doesn't fit into the open file begins another one.
        """
        if len(lines) > self._file_bytes:
            raise TooLong(f"{len(lines)} bytes, where a file has {self._file_bytes}")
        full = self._size + len(lines) > self._file_bytes
        if self._fd is not None and (full or os.fstat(self._fd).st_nlink == 0):
            self.close()  # the other reason: another picker of the same folder has deleted it as its oldest
        fd = self._fd if self._fd is not None else self._open()
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError:
            self._cut(fd)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Write no more to the file that is open; may be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _cut(self, fd: int) -> None:
        """Take away what was written of lines that did not all fit: half a line would spoil the next one."""
        try:
            os.ftruncate(fd, self._size)
        except OSError:
            self.close()  # the file ends as it is, and the next lines begin another one

    def _open(self) -> int:
        self._path.mkdir(parents=True, exist_ok=True)
        newest_ns = max(map(_time_ns, self._path.glob(PATTERN)), default=0)  # a clock may have been set back since
        name = f"capture-{max(time.time_ns(), newest_ns + 1):019}-{self._picker}-{self._number:04}.jsonl"
        fd = os.open(self._path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
        self._number += 1
        self._fd, self._size = fd, 0
        for old in sorted(self._path.glob(PATTERN))[: -self._files]:  # after the new one is there: nothing for nothing
            old.unlink(missing_ok=True)
        return fd


def _time_ns(file: Path) -> int:
    """That the file is named by; 0 for one that isn't named by us."""
    found = _TIME.match(file.name)
    return int(found[1]) if found else 0
