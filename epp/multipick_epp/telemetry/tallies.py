"""Metrics that are counted on every request: plain numbers, read when somebody scrapes.

`prometheus_client` takes a lock for each number that it adds to, two for an observation, and a look-up by labels: for a
request's dozen as much time as its lookup takes. Here all is counted and read on the event loop, so nothing has to be
locked. On a registry they look as the library's own do.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Tally:
    """One counter: what was added up."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """So much more."""
        self.total += amount


class Tallies:
    """A counter with labels: one `Tally` for each combination of their values that was seen."""

    def __init__(self, name: str, about: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        """Without labels it has one from the start."""
        self._name, self._about, self._labels = name, about, labels
        self._of: dict[tuple[str, ...], Tally] = {} if labels else {(): Tally()}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """The one with these values; with none, of a metric without labels, its only one."""
        found = self._of.get(values)
        if found is None:
            found = self._of[values] = Tally()
        return found

    def collect(self) -> Iterable[Metric]:
        """As a registry asks for it."""
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for values, tally in self._of.items():
            family.add_metric([str(value) for value in values], tally.total)
        yield family


class Spread:
    """One histogram: how many values fell below each bound, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` ascend; a value that is one counts as below it."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Spreads:
    """A histogram with labels: one `Spread` for each combination of their values that was seen."""

    def __init__(
        self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """Without labels it has one from the start."""
        self._name, self._about, self._labels, self._bounds = name, about, labels, bounds
        self._ends = [*map(floatToGoString, bounds), "+Inf"]
        self._of: dict[tuple[str, ...], Spread] = {} if labels else {(): Spread(bounds)}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """The one with these values; with none, of a metric without labels, its only one."""
        found = self._of.get(values)
        if found is None:
            found = self._of[values] = Spread(self._bounds)
        return found

    def collect(self) -> Iterable[Metric]:
        """As a registry asks for it."""
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        for values, spread in self._of.items():
            buckets = [*zip(self._ends, accumulate(spread.counts), strict=True)]
            family.add_metric([str(value) for value in values], buckets, spread.total)
        yield family
