"""The metrics of several workers, as one picker's."""

from multipick_epp.workers.metrics import Sums, merged, parsed
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FIRST, SECOND, AGAIN = (1, 0), (2, 0), (1, 1)


def page(count: float = 0.0, seen: tuple[float, ...] = (), label: str = "a", **gauges: float) -> bytes:
    registry = CollectorRegistry()
    Counter("multipick_decisions", "Decided.", ["mode"], registry=registry).labels(label).inc(count)
    took = Histogram("multipick_decision_seconds", "Took.", buckets=(1, 2), registry=registry)
    for each in seen:
        took.observe(each)
    for name, value in gauges.items():
        Gauge(f"multipick_{name}", "Now.", ["endpoint"], registry=registry).labels("e").set(value)
    return generate_latest(registry)


def value(text: bytes, line: str) -> float:
    (found,) = [each for each in text.decode().splitlines() if each.startswith(f"{line} ")]
    return float(found.rpartition(" ")[2])


def test_counters_and_histograms_add_up() -> None:
    text = Sums().page(page(), {FIRST: page(3, (0.5, 1.5)), SECOND: page(4, (1.5, 9.0))}, [FIRST, SECOND])
    assert value(text, 'multipick_decisions_total{mode="a"}') == 7
    assert value(text, 'multipick_decision_seconds_bucket{le="1.0"}') == 1
    assert value(text, 'multipick_decision_seconds_bucket{le="2.0"}') == 3
    assert value(text, 'multipick_decision_seconds_bucket{le="+Inf"}') == 4
    assert value(text, "multipick_decision_seconds_count") == 4
    assert value(text, "multipick_decision_seconds_sum") == 12.5


def test_what_only_one_counts_is_there() -> None:
    text = Sums().page(page(), {FIRST: page(3), SECOND: page(4, label="b")}, [FIRST, SECOND])
    assert value(text, 'multipick_decisions_total{mode="a"}') == 3
    assert value(text, 'multipick_decisions_total{mode="b"}') == 4


def test_no_counter_goes_back_when_a_worker_ends_and_comes_again() -> None:
    sums = Sums()
    seen = [
        sums.page(page(), pages, running)
        for pages, running in (
            ({FIRST: page(3), SECOND: page(4)}, [FIRST, SECOND]),
            ({SECOND: page(5)}, [FIRST, SECOND]),  # it did not answer in time
            ({SECOND: page(5)}, [SECOND]),  # nor will it
            ({AGAIN: page(1), SECOND: page(5)}, [AGAIN, SECOND]),
            ({AGAIN: page(2), SECOND: page(5)}, [AGAIN, SECOND]),
            ({}, []),
        )
    ]
    assert [value(text, 'multipick_decisions_total{mode="a"}') for text in seen] == [7, 8, 8, 9, 10, 10]


def test_a_worker_that_tells_and_ends_before_the_others_have_told_counts_once() -> None:
    sums = Sums()
    both, left = {FIRST: page(3), SECOND: page(4)}, {SECOND: page(4)}
    asked = ((both, [FIRST, SECOND]), (both, [SECOND]), (left, [SECOND]))
    seen = [sums.page(page(), pages, running) for pages, running in asked]
    assert [value(text, 'multipick_decisions_total{mode="a"}') for text in seen] == [7, 7, 7]


def test_of_what_all_see_the_worst_or_the_most_is_told() -> None:
    one = page(endpoint_ready=1, tokens_local=1, ext_proc_streams=3, prediction_drift_ratio=-0.5, endpoint_in_flight=3)
    other = page(endpoint_ready=0, tokens_local=1, ext_proc_streams=4, prediction_drift_ratio=0.1, endpoint_in_flight=4)
    text = Sums().page(page(), {FIRST: one, SECOND: other}, [FIRST, SECOND])
    names = ("endpoint_ready", "tokens_local", "ext_proc_streams", "prediction_drift_ratio", "endpoint_in_flight")
    assert [value(text, f'multipick_{name}{{endpoint="e"}}') for name in names] == [0, 1, 7, -0.5, 4]


def test_a_gauge_of_a_worker_that_ended_is_gone() -> None:
    sums = Sums()
    sums.page(page(), {FIRST: page(endpoint_in_flight=3)}, [FIRST])
    assert b"endpoint_in_flight{" not in sums.page(page(), {}, [])


def test_text_of_any_kind_in_labels_stays_what_it_is() -> None:
    odd = 'a "b" \\ c\nd'
    assert merged([parsed(page(1, label=odd)), parsed(page(2, label=odd))])["multipick_decisions"].values == {
        ("multipick_decisions_total", (("mode", odd),)): 3
    }
