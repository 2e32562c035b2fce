from collections.abc import Sequence

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.pods.registry import PodEndpoint, Registry
from multipick_epp.pods.unexplained import Unexplained, unexplained
from multipick_epp.types import Endpoint, Load

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")


def test_only_ready_endpoints_are_offered_and_losing_readiness_keeps_them_known() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    assert not registry.ready().endpoints
    registry.mark(A, True)
    registry.mark(B, True)
    registry.mark(A, False)
    assert registry.ready().endpoints == [B]
    assert registry.all() == (A, B)


def test_a_subset_hint_names_endpoints_or_whole_addresses() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    registry.mark(A, True)
    registry.mark(B, True)
    assert registry.ready(["10.0.0.2:8000"]).endpoints == [B]
    assert registry.ready(["10.0.0.1"]).endpoints == [A]
    assert not registry.ready([]).endpoints
    assert not registry.ready(["10.0.0.9:8000"]).endpoints


def test_listeners_hear_of_changes_only_and_of_each_endpoint_that_left() -> None:
    registry, changes, gone = Registry(), [], list[Endpoint]()

    def heard(pods: Sequence[PodEndpoint]) -> None:
        changes.append([pod.endpoint for pod in pods])

    registry.on_change(heard)
    registry.on_gone(gone.append)
    registry.set([PodEndpoint(A)])
    registry.set([PodEndpoint(A)])
    registry.set([PodEndpoint(B)])
    registry.set([PodEndpoint(B, started_ms=5)])
    assert changes == [[A], [B], [B]]
    assert gone == [A]


def test_an_endpoint_that_comes_again_starts_as_not_ready() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A)])
    registry.mark(A, True)
    registry.set([])
    registry.set([PodEndpoint(A)])
    assert not registry.ready().endpoints


def test_marks_for_strangers_are_ignored() -> None:
    registry = Registry()
    registry.mark(A, True)
    registry.scraped(A, Gauges(), Unexplained())
    assert registry.state(A) is None


def test_load_that_two_scrapes_show_is_taken_as_real() -> None:
    gauges, load = Gauges(waiting=2, running=4), Load(queued_tokens=10, in_flight=1)
    first = unexplained(Unexplained(), gauges, load, 100.0)
    assert (first.in_flight, first.queued_tokens) == (0, 0)
    second = unexplained(first, gauges, load, 100.0)
    assert (second.in_flight, second.queued_tokens) == (5, 200)


def test_a_surplus_that_comes_and_goes_counts_as_skew() -> None:
    busy, quiet = Gauges(running=3), Gauges(running=0)
    state = unexplained(Unexplained(), busy, Load(), 100.0)
    state = unexplained(state, quiet, Load(), 100.0)
    state = unexplained(state, busy, Load(), 100.0)
    assert state.in_flight == 0
