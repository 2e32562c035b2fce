"""What Prometheus is told of the event feeds, and of the process that reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from multipick_epp.admin.collectors import FeedCollector
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.types import Endpoint, Mode
from prometheus_client import CollectorRegistry

POD = Endpoint("10.0.0.1:8000")


@dataclass
class Feeds:
    restarts: int = 3
    unread_reports: int = 2

    def stats(self) -> Sequence[FeedStats]:
        return [
            FeedStats(
                POD, Mode.EXACT, connected=True, blocks=5, waiting_blocks=1, unplaced_blocks=7, operations=9, batches=2,
                gaps=4, restarts=0, undecodable=6, uploads=1, lag_s=0.5, why="", skipped_blocks=8,
            )
        ]  # fmt: skip


def test_each_feed_and_the_process_that_ingests_have_their_figures() -> None:
    registry = CollectorRegistry()
    registry.register(FeedCollector(Feeds()))
    pod = {"endpoint": str(POD)}
    assert registry.get_sample_value("multipick_ingest_restarts_total") == 3
    assert registry.get_sample_value("multipick_ingest_unread_reports_total") == 2
    assert registry.get_sample_value("multipick_events_undecodable_total", pod) == 6
    assert registry.get_sample_value("multipick_events_skipped_blocks_total", pod) == 8
    assert registry.get_sample_value("multipick_events_unplaced_blocks_total", pod) == 7
    assert registry.get_sample_value("multipick_events_lag_seconds", pod) == 0.5
