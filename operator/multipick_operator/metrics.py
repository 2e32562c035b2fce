"""The operator's Prometheus metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One set on its own registry, so that several operators can live in one process (tests)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "multipick_operator_reconcile", "Reconciles by result.", ["result"], registry=self.registry
        )
        self.seconds = Histogram(
            "multipick_operator_reconcile_seconds", "Duration of one.", registry=self.registry, buckets=_SECONDS
        )
        self.applies = Counter(
            "multipick_operator_apply", "Children applied.", ["kind", "result"], registry=self.registry
        )
        self.queue = Gauge("multipick_operator_queue_depth", "Pools that wait.", registry=self.registry)
        self.pools = Gauge("multipick_operator_pools", "Pools by their Ready.", ["ready"], registry=self.registry)
        self.leader = Gauge("multipick_operator_leader", "1 in the replica that acts.", registry=self.registry)

        self.failing = Gauge(
            "multipick_operator_watch_failing",
            "1 for a watch that can't be had (of an empty namespace: of all).",
            ["kind", "namespace"],
            registry=self.registry,
        )

    def page(self) -> bytes:
        """The metrics in Prometheus' text form."""
        return generate_latest(self.registry)
