"""What is counted without locks is told as prometheus_client would tell it."""

import re

import pytest
from multipick_epp.telemetry.tallies import Spreads, Tallies
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

BOUNDS = (0.00002, 0.5, 1, 2.5)
VALUES = (0.0, 0.00002, 0.00003, 0.5, 1, 2.4, 2.5, 3, 1e9)


def page(registry: CollectorRegistry) -> list[str]:
    """Without the times at which the library began to count."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


@pytest.mark.parametrize("labels", [(), ("policy", "mode")])
def test_a_counter_is_told_as_the_librarys(labels: tuple[str, ...]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallies, counter = Tallies("a_b", "what", labels, ours), Counter("a_b", "what", labels, registry=theirs)
    assert page(ours) == page(theirs)
    for amount in (1.0, 2.5):
        if labels:
            tallies.labels("x", 'y"\n').inc(amount)
            tallies.labels("x", "z").inc()
            counter.labels("x", 'y"\n').inc(amount)
            counter.labels("x", "z").inc()
        else:
            tallies.labels().inc(amount)
            counter.inc(amount)
    assert page(ours) == page(theirs)
    assert re.search(r"a_b_total\S* 3\.5", "\n".join(page(ours)))


@pytest.mark.parametrize("labels", [(), ("stage",)])
def test_a_histogram_is_told_as_the_librarys(labels: tuple[str, ...]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spreads = Spreads("a_seconds", "what", labels, BOUNDS, ours)
    histogram = Histogram("a_seconds", "what", labels, registry=theirs, buckets=BOUNDS)
    assert page(ours) == page(theirs)
    for value in VALUES:
        if labels:
            spreads.labels("parse").observe(value)
            histogram.labels("parse").observe(value)
        else:
            spreads.labels().observe(value)
            histogram.observe(value)
    assert page(ours) == page(theirs)
    assert ours.get_sample_value("a_seconds_count", dict.fromkeys(labels, "parse")) == len(VALUES)
