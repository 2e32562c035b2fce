from collections.abc import Sequence

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.registry import Registry
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


def test_an_endpoint_that_is_left_out_is_not_offered_unless_nobody_else_is() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    registry.mark(A, True)
    registry.mark(B, True)
    registry.leave_out({A})
    assert registry.ready().endpoints == [B]
    registry.mark(B, False)
    assert registry.ready().endpoints == [A]
    registry.mark(B, True)
    registry.leave_out({A, B})
    assert registry.ready().endpoints == [A, B]
    registry.leave_out(())
    assert registry.ready().endpoints == [A, B]


def test_a_request_for_an_adapter_is_offered_those_that_have_it() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    registry.mark(A, True)
    registry.mark(B, True)
    assert registry.ready(model="lora").endpoints == [A, B]  # nobody has it: any may know how to load it
    registry.serves(A, ServedModels(["m"], adapters=frozenset({"lora"})))
    registry.serves(B, ServedModels(["m"]))
    assert registry.ready(model="lora").endpoints == [A]
    assert registry.ready(model="m").endpoints == [A, B]
    assert registry.ready(["10.0.0.2"], "lora").endpoints == [B]  # the subset goes first
    registry.set([PodEndpoint(A, started_ms=1), PodEndpoint(B)])  # another engine, which has not said what it has
    assert registry.ready(model="lora").endpoints == [A, B]


def test_the_last_endpoint_that_has_what_a_request_names_is_not_left_out_for_it() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    registry.mark(A, True)
    registry.mark(B, True)
    registry.serves(A, ServedModels(["m"], adapters=frozenset({"lora"})))
    registry.serves(B, ServedModels(["m"]))
    registry.scraped(A, Gauges(waiting=2), Unexplained(3, 400))
    registry.leave_out({A})
    named = registry.ready(["10.0.0.1:8000"])
    assert (named.endpoints, named.waiting, named.unexplained_in_flight) == ([A], [2.0], [3])
    assert registry.ready(["10.0.0.1"], "m").endpoints == [A]
    assert registry.ready(model="lora").endpoints == [A]
    assert registry.ready(model="another").endpoints == [B]
    assert registry.ready(["10.0.0.2"], "lora").endpoints == [B]
    assert registry.ready(["10.0.0.1", "10.0.0.2"]).endpoints == [B]
    registry.mark(A, False)
    assert not registry.ready(["10.0.0.1"]).endpoints
    assert registry.ready(model="lora").endpoints == [B]


def test_the_longest_context_of_the_pool_is_known_once_an_engine_said_it() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    seen = [registry.max_model_len]
    for endpoint, length in ((A, 4096), (B, 8192), (B, 2048)):
        registry.serves(endpoint, ServedModels(["m"], max_model_len=length))
        seen.append(registry.max_model_len)
    registry.set([PodEndpoint(A, started_ms=1), PodEndpoint(B)])  # another engine, which has not said it
    seen.append(registry.max_model_len)
    registry.set([PodEndpoint(A, started_ms=1)])
    assert [*seen, registry.max_model_len] == [None, 4096, 8192, 4096, 2048, None]


def test_the_block_sizes_are_those_that_the_engines_which_can_serve_told_of_last() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    registry.scraped(A, Gauges(block_size=16), Unexplained())
    assert registry.block_sizes() == {}
    registry.mark(A, True)
    registry.mark(B, True)
    assert registry.block_sizes() == {16: 1}
    registry.scraped(B, Gauges(block_size=16), Unexplained())
    registry.scraped(A, Gauges(block_size=32), Unexplained())
    assert registry.block_sizes() == {16: 1, 32: 1}
    registry.set([PodEndpoint(A)])
    assert registry.block_sizes() == {32: 1}
    registry.mark(A, False)
    assert registry.block_sizes() == {}


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


def test_it_tells_whether_sglang_serves_the_pool() -> None:
    registry = Registry()
    registry.set([PodEndpoint(A), PodEndpoint(B)])
    seen = [registry.sglang]
    for endpoint, takes_any in ((A, False), (B, True)):
        registry.serves(endpoint, ServedModels(["m"], takes_any))
        seen.append(registry.sglang)
    registry.set([PodEndpoint(A)])
    assert [*seen, registry.sglang] == [False, False, True, False]
