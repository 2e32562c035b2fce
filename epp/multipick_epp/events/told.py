"""What an ingest elsewhere said last of itself."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from multipick_epp.events.child import Report
from multipick_epp.events.feed_stats import FeedStats

UP_WITHIN_S = 10.0
"""An interpreter that starts takes a second; on a machine that is busy with the same elsewhere, some."""


class Told:
    """Who has an ingest in another process asks here."""

    def __init__(self) -> None:
        self._report = Report((), "not started")
        self._up = asyncio.Event()  # set once it has reported that it does its work

    async def up(self) -> None:
        """Returns when it takes its part of the ingest; after UP_WITHIN_S anyway."""
        with suppress(TimeoutError):
            async with asyncio.timeout(UP_WITHIN_S):
                await self._up.wait()

    def stats(self) -> Sequence[FeedStats]:
        """Of each endpoint that is followed there, as of the last report."""
        return self._report.feeds

    @property
    def degraded(self) -> str | None:
        """Why the store doesn't get what the engines say; None while it does."""
        return self._report.degraded

    def take(self, report: Report) -> None:
        """How it does."""
        self._report = report
        if report.degraded is None:
            self._up.set()
