"""Figures that other rooms keep anyway, read when Prometheus asks: the index, its store, the event feeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from multipick_epp.checks.drift import Window
from multipick_epp.checks.mismatch import Mismatch
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.pods.failures import Failures
from multipick_epp.state.protocol import State
from multipick_epp.state.stats import StateStats
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint


class StateCollector:
    """The state's own counts."""

    def __init__(self, state: State, stats: StateStats, blocks: Callable[[], int]) -> None:
        """`blocks` gives the distinct block keys in the mirror."""
        self._state = state
        self._stats = stats
        self._blocks = blocks

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        stats = self._stats
        yield GaugeMetricFamily("multipick_index_blocks", "Distinct blocks in the index.", self._blocks())
        yield GaugeMetricFamily(
            "multipick_state_degraded",
            "1 while this picker goes by its own view, since the shared state does not answer.",
            self._state.degraded is not None,
        )
        yield GaugeMetricFamily(
            "multipick_state_alone",
            "1 while this picker charges without asking the shared state first, since it is the only one there.",
            self._state.alone,
        )
        yield GaugeMetricFamily(
            "multipick_index_lag_seconds", "Age of the newest entry of the shared log when read.", stats.log_lag_s
        )
        for name, text, value in (
            ("index_operations", "Blocks stored and removed in the index.", stats.operations),
            ("index_holes", "Hits that were cut down because an earlier block was missing.", stats.holes),
            ("index_expired", "Blocks that were expected and never stored.", stats.expired),
            ("index_bootstraps", "Times the index was loaded from the shared state.", stats.bootstraps),
            ("index_repairs", "Times an endpoint's index was not what the store has, and loaded again.", stats.repairs),
            ("reserved_locally", "Reservations that the local view decided, without the store.", stats.reserved_here),
            ("recharged", "Reservations that the store had lost and was told again.", stats.recharged),
            ("reaped", "Reservations of dead pickers that this one released.", stats.reaped),
            ("load_repairs", "Loads in the store that were not the sum of what is charged.", stats.load_repairs),
        ):
            yield CounterMetricFamily(f"multipick_{name}", text, value)
        outages = CounterMetricFamily(
            "multipick_state_outages", "Connections to the store that broke.", labels=["connection", "reason"]
        )
        for labels, count in stats.outages.items():
            outages.add_metric(labels, count)
        yield outages
        malformed = CounterMetricFamily(
            "multipick_state_malformed", "Stored values that were skipped, since they can't be read.", labels=["kind"]
        )
        for kind, count in stats.malformed.items():
            malformed.add_metric([kind], count)
        yield malformed


class FollowedFeeds(Protocol):
    """What `app.feeds` tells of itself."""

    def stats(self) -> Sequence[FeedStats]:
        """Of each endpoint that this picker follows."""

    @property
    def restarts(self) -> int:
        """Times that the process that ingests was started again."""

    @property
    def unread_reports(self) -> int:
        """Lines of that process that were no report."""


class FeedCollector:
    """The event feeds that this picker ingests."""

    def __init__(self, feeds: FollowedFeeds) -> None:
        self._feeds = feeds

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        lag = GaugeMetricFamily(
            "multipick_events_lag_seconds", "From an engine's step to the index, by both clocks.", labels=["endpoint"]
        )
        connected = GaugeMetricFamily(
            "multipick_events_connected", "1 while the endpoint's events can be received.", labels=["endpoint"]
        )
        waiting = GaugeMetricFamily(
            "multipick_events_waiting_blocks", "Stored blocks whose parent is unknown.", labels=["endpoint"]
        )
        counters = {
            name: CounterMetricFamily(f"multipick_events_{name}", text, labels=["endpoint"])
            for name, text in (
                ("operations", "Blocks stored and removed, as the engine told."),
                ("gaps", "Times that batches were missing."),
                ("restarts", "Times that the engine was another one."),
                ("undecodable", "Messages and events that could not be read."),
                ("uploads", "Times that the index was told everything."),
                ("skipped_blocks", "Stored blocks on media that have no weight."),
                ("unplaced_blocks", "Stored blocks of no cache that can be."),
            )
        }
        for feed in self._feeds.stats():
            labels = [feed.endpoint]
            lag.add_metric(labels, feed.lag_s)
            connected.add_metric(labels, feed.connected)
            waiting.add_metric(labels, feed.waiting_blocks)
            for name, family in counters.items():
                family.add_metric(labels, getattr(feed, name))
        yield from (lag, connected, waiting, *counters.values())
        yield CounterMetricFamily(
            "multipick_ingest_restarts", "Times that the process that ingests was started again.", self._feeds.restarts
        )
        yield CounterMetricFamily(
            "multipick_ingest_unread_reports",
            "Reports of the process that ingests that could not be read.",
            self._feeds.unread_reports,
        )


class CheckCollector:
    """What the checks of the engines found."""

    def __init__(
        self,
        mismatches: Callable[[], Sequence[Mismatch]],
        local_tokens: Callable[[], bool],
        windows: Callable[[], Mapping[Endpoint, Window]],
    ) -> None:
        self._mismatches = mismatches
        self._local_tokens = local_tokens
        self._windows = windows

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        found = GaugeMetricFamily(
            "multipick_endpoint_mismatch",
            "1 where an engine is not what the pool expects, by kind, such as model, tokenizer, events.",
            labels=["endpoint", "kind"],
        )
        for one in self._mismatches():
            found.add_metric([one.endpoint, one.kind], 1)
        yield found
        drift = GaugeMetricFamily(
            "multipick_prediction_drift_ratio",
            "Predicted hit tokens of the last window beyond what the engine's counters allow, by our prompt tokens.",
            labels=["endpoint"],
        )
        for endpoint, window in self._windows().items():
            drift.add_metric([endpoint], window.excess / window.prompts)
        yield drift
        yield GaugeMetricFamily(
            "multipick_tokens_local", "1 while token ids are made here; 0: engines are asked.", self._local_tokens()
        )


class TaskCollector:
    """What lives long, and had to be started again."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        restarts = CounterMetricFamily(
            "multipick_task_restarts", "Work beside the requests that failed and was started again.", labels=["task"]
        )
        for task, count in self._supervisor.restarts.items():
            restarts.add_metric([task], count)
        yield restarts


class FailureCollector:
    """Endpoints that are left out, since their own requests fail."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        left_out = GaugeMetricFamily(
            "multipick_endpoint_left_out",
            "How often in a row the endpoint was left out since its requests fail; only while it is.",
            labels=["endpoint"],
        )
        for endpoint, level in self._failures.left_out.items():
            left_out.add_metric([endpoint], level)
        yield left_out
        yield CounterMetricFamily(
            "multipick_ejections", "Times that this picker left an endpoint out.", self._failures.ejections
        )
