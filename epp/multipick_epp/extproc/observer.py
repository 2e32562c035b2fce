"""`extproc.interfaces.Observer` over Prometheus: streams that are open, where their time goes, what failed."""

from multipick_epp.extproc.effects import Undecided
from multipick_epp.extproc.interfaces import Failure, Stage
from multipick_epp.telemetry.metrics import Metrics


class StreamMetrics:
    """Counts and times the streams of one picker."""

    def __init__(self, metrics: Metrics) -> None:
        self._open = 0
        metrics.streams.set_function(lambda: self._open)
        self._errors = metrics.stream_errors
        self._undecided = metrics.undecided
        self._refusals = metrics.refusals
        self._refused = metrics.refused_connections
        self._stages = {stage: metrics.stream_seconds.labels(stage).observe for stage in Stage}

    def opened(self) -> None:
        """A stream began."""
        self._open += 1

    def closed(self) -> None:
        """It ended."""
        self._open -= 1

    def stage(self, stage: Stage, seconds: float) -> None:
        """A stage of a decision took so long."""
        self._stages[stage](seconds)

    def failed(self, failure: Failure) -> None:
        """Something went wrong on a stream."""
        self._errors.labels(failure).inc()

    def undecided(self, how: Undecided) -> None:
        """A request left without a pick."""
        self._undecided.labels(how).inc()

    def answered_here(self, reason: str) -> None:
        """A request was refused."""
        self._refusals.labels(reason).inc()

    def refused(self, why: str) -> None:
        """A connection was cut by us."""
        self._refused.labels(why).inc()
