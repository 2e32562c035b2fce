"""The metrics pages of all workers, made one.

Counters and histograms add up. A worker that ends takes its own with it, so what it told last stays in the sum: no
counter goes back. (What it counted since then nobody knows, as with a whole picker that is killed.) Gauges tell of what
all workers see, each a moment apart: the value furthest from 0 counts, but for those named here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from multipick_epp.workers.worker import Run

Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name and labels

_SUMMED_GAUGES: Final = frozenset({"multipick_ext_proc_streams"})
_LEAST_GAUGES: Final = frozenset({"multipick_endpoint_ready", "multipick_tokens_local"})
_SINCE: Final = "_created"  # gauges of the library's own: when this process began to count


@dataclass(slots=True)
class Family:
    """One metric of a page."""

    about: str
    kind: str
    values: dict[Key, float] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        """It only grows while its process runs."""
        return self.kind in ("counter", "histogram")


Page = Mapping[str, Family]


class Sums:
    """What all workers tell, and what those told that have ended."""

    def __init__(self) -> None:
        self._told: dict[Run, Page] = {}  # what adds up, as of the last page
        self._ended: Page = {}  # the same, of processes that are gone, added up

    def page(self, own: bytes, pages: Mapping[Run, bytes], running: Collection[Run]) -> bytes:
        """The page of all: our own, and those of the workers that answer, of those that run."""
        read = {run: parsed(page) for run, page in pages.items()}
        for run, page in read.items():
            self._told[run] = {name: family for name, family in page.items() if family.adds_up}
        for run in [each for each in self._told if each not in running]:  # also one that told, and has ended since
            self._ended = merged([self._ended, self._told.pop(run)])
        now = [{name: family for name, family in page.items() if not family.adds_up} for page in read.values()]
        return text(merged([parsed(own), self._ended, *self._told.values(), *now]))


def parsed(page: bytes) -> Page:
    """A page in Prometheus' text form."""
    families = [each for each in text_string_to_metric_families(page.decode()) if not each.name.endswith(_SINCE)]
    return {
        each.name: Family(
            each.documentation,
            each.type,
            {(sample.name, tuple(sample.labels.items())): sample.value for sample in each.samples},
        )
        for each in families
    }


def merged(pages: Sequence[Page]) -> Page:
    """One page of several."""
    all_of_it: dict[str, Family] = {}
    seen: dict[Key, list[float]] = {}
    for name, family in (each for page in pages for each in page.items()):
        ours = all_of_it.setdefault(name, Family(family.about, family.kind))
        for key, value in family.values.items():
            ours.values[key] = value
            seen.setdefault(key, []).append(value)
    for name, family in all_of_it.items():
        one_of = _rule(name, family)
        for key in family.values:
            family.values[key] = one_of(seen[key])
    return all_of_it


def text(page: Page) -> bytes:
    """In Prometheus' text form."""
    return generate_latest(_Collected(page))


def _rule(name: str, family: Family) -> Callable[[Sequence[float]], float]:
    if family.adds_up or name in _SUMMED_GAUGES:
        return sum
    return min if name in _LEAST_GAUGES else _furthest


def _furthest(values: Sequence[float]) -> float:
    return max(values, key=abs)


class _Collected(Collector):
    def __init__(self, page: Page) -> None:
        self._page = page

    def collect(self) -> Iterable[Metric]:
        for name, family in self._page.items():
            metric = Metric(name, family.about, family.kind)
            for (sample, labels), value in family.values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
