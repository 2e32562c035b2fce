"""The ingest of all workers, as one of them sees it."""

import asyncio

from multipick_epp.events.child import Report
from multipick_epp.events.discover import FeedSpec
from multipick_epp.types import Endpoint
from multipick_epp.workers.shared import SharedIngest

ONE, TWO = (FeedSpec(Endpoint(f"10.0.0.{number}:8000")) for number in (1, 2))


async def test_only_a_whole_pool_is_told_on() -> None:
    told: list[object] = []
    ingest = SharedIngest(told.append)
    ingest.follow([])
    ingest.follow([ONE])
    assert told == [], "who follows half a pool would forget the other half"
    ingest.take(Report((), None))
    await ingest.up()
    ingest.follow([ONE, TWO])
    assert told == [[ONE], [ONE, TWO]]


async def test_it_is_up_once_it_reports_that_it_does_its_work() -> None:
    ingest = SharedIngest(lambda _: None)
    up = asyncio.create_task(ingest.up())
    await asyncio.sleep(0)
    ingest.take(Report((), "writer: away"))
    await asyncio.sleep(0.05)
    assert (up.done(), ingest.degraded) == (False, "writer: away")
    ingest.take(Report((), None))
    await up
    assert ingest.degraded is None
