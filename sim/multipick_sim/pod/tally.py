"""A histogram to which many equal observations can be added at once: all tokens of a step took equally long."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Tally:
    """Counts by upper bound, as Prometheus has them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are ascending; what is above the last counts under +Inf."""
        self._bounds = [*bounds, float("inf")]
        self._counts = [0] * len(self._bounds)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `times` observations of `value`."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, observations up to it), as `HistogramMetricFamily` takes them."""
        names = [str(float(bound)) for bound in self._bounds[:-1]] + ["+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))
