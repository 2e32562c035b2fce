"""Values in the store that this version can't read: each is skipped, counted, and told once."""

import logging
from collections import Counter
from typing import Final

log = logging.getLogger(__name__)

REPORTS_AT_MOST: Final = 256
"""Different keys that are told, in the life of a process: more would drown the log."""
_SHOWN: Final = 120


class Malformed:
    """`counts` by kind: what was to be read there."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._reported: set[tuple[str, str]] = set()

    def skip(self, kind: str, key: str | bytes, why: object = "") -> None:
        """A value of `kind` at `key` is of no use to us."""
        self._counts[kind] += 1
        shown = key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")
        report = kind, shown[:_SHOWN]
        if report not in self._reported and len(self._reported) < REPORTS_AT_MOST:
            self._reported.add(report)
            log.warning(
                "skipped a stored value that this version can't read",
                extra={"kind": kind, "key": shown[:_SHOWN], "why": str(why)[:_SHOWN]},
            )
