"""Endpoints that fail are left out in all pickers, and let back; whatever is the client's own doing changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.failures import Asked, Failures
from multipick_epp.pods.outliers import FIRST_PAUSE_S
from multipick_epp.pods.registry import Registry
from multipick_epp.types import Endpoint

A, B, C = (Endpoint(f"10.0.0.{number}:8000") for number in range(1, 4))
PATH = "/v1/completions"


@dataclass
class Shared:
    """What pickers tell each other, by hand."""

    announced: list[tuple[Endpoint, int]] = field(default_factory=list)
    heard: list[Callable[[Endpoint, int], None]] = field(default_factory=list)
    remembered: list[Callable[[Endpoint, int], None]] = field(default_factory=list)

    def announce(self, endpoint: Endpoint, level: int) -> None:
        self.announced.append((endpoint, level))

    def on_announced(self, listener: Callable[[Endpoint, int], None]) -> None:
        self.heard.append(listener)

    def on_remembered(self, listener: Callable[[Endpoint, int], None]) -> None:
        self.remembered.append(listener)


class Pool:
    """Three ready endpoints."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.doubted: list[Endpoint] = []
        self.registry = Registry()
        self.shared = Shared()
        self.failures = Failures(self.registry, self.shared, self.doubted.append, lambda: self.now_s)
        self.registry.set([PodEndpoint(A), PodEndpoint(B), PodEndpoint(C)])
        for endpoint in (A, B, C):
            self.registry.mark(endpoint, True)

    def answered(self, endpoint: Endpoint, status: int, times: int = 3, asked: Asked = Asked.OWN_MODEL) -> None:
        for _ in range(times):
            self.failures.answered(endpoint, status, asked, PATH)

    @property
    def offered(self) -> list[Endpoint]:
        return list(self.registry.ready().endpoints)


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 404])
def test_an_endpoint_whose_own_requests_fail_is_left_out_and_all_are_told(pool: Pool, status: int) -> None:
    pool.answered(B, 200)
    pool.answered(A, status)
    assert pool.offered == [B, C]
    assert pool.shared.announced == [(A, 1)]
    assert pool.failures.left_out == {A: 1}


@pytest.mark.parametrize("status", [400, 401, 403, 405, 408, 409, 413, 415, 422, 429, 499, 501])
def test_a_clients_own_error_says_nothing_of_the_endpoint(pool: Pool, status: int) -> None:
    pool.answered(B, 200)
    pool.answered(A, status, times=50)
    assert pool.offered == [A, B, C]


@pytest.mark.parametrize("asked", [Asked.OTHER_MODEL, Asked.UNKNOWN])
def test_what_not_every_endpoint_has_may_be_missing(pool: Pool, asked: Asked) -> None:
    pool.answered(B, 200)
    pool.answered(A, 404, times=50, asked=asked)
    assert pool.offered == [A, B, C]
    assert bool(pool.doubted) == (asked is Asked.OTHER_MODEL)


def test_an_endpoint_that_the_gateway_passes_over_is_left_out(pool: Pool) -> None:
    pool.answered(B, 200)
    for _ in range(3):
        pool.failures.passed_over(A)
    assert pool.offered == [B, C]


def test_an_endpoint_that_can_not_be_looked_at_is_left_out_until_it_can(pool: Pool) -> None:
    for _ in range(3):
        pool.failures.looked(B, reached=True)
        pool.failures.looked(C, reached=True)
        pool.failures.looked(A, reached=False)
    assert pool.offered == [B, C]
    pool.failures.looked(A, reached=True)
    assert pool.offered == [A, B, C]


def test_after_its_pause_one_request_at_a_time_tries_it(pool: Pool) -> None:
    pool.answered(A, 500)
    pool.now_s += FIRST_PAUSE_S
    pool.failures.tick()
    assert pool.offered == [A, B, C]
    pool.failures.picked(A)
    assert pool.offered == [B, C]
    pool.failures.answered(A, 200, Asked.OWN_MODEL, PATH)
    assert pool.offered == [A, B, C]
    pool.failures.picked(A)
    pool.failures.answered(A, 200, Asked.OWN_MODEL, PATH)
    assert pool.shared.announced == [(A, 1), (A, 0)]


def test_a_trial_whose_client_left_is_made_again(pool: Pool) -> None:
    pool.answered(A, 500)
    pool.now_s += FIRST_PAUSE_S
    pool.failures.tick()
    pool.failures.picked(A)
    pool.failures.undecided(A)
    assert pool.offered == [A, B, C]


def test_the_last_endpoint_is_never_left_out(pool: Pool) -> None:
    pool.registry.mark(B, False)
    pool.registry.mark(C, False)
    pool.answered(A, 500, times=20)
    assert pool.offered == [A]
    assert not pool.failures.left_out
    pool.registry.mark(B, True)
    assert pool.offered == [B]
    assert pool.failures.left_out == {A: 1}


def test_what_another_picker_found_holds_here(pool: Pool) -> None:
    (heard,) = pool.shared.heard
    heard(A, 1)
    heard(Endpoint("10.9.9.9:1"), 1)
    assert pool.offered == [B, C]
    assert pool.failures.left_out == {A: 1}
    heard(A, 0)
    assert pool.offered == [A, B, C]
    assert pool.shared.announced == []


def test_a_picker_that_comes_tries_those_that_stand_as_left_out(pool: Pool) -> None:
    (remembered,) = pool.shared.remembered
    remembered(A, 4)
    pool.failures.picked(A)
    pool.failures.answered(A, 500, Asked.OWN_MODEL, PATH)
    assert pool.shared.announced == [(A, 5)]


def test_what_stands_as_left_out_and_is_not_in_the_pool_can_be_forgotten_by_all(pool: Pool) -> None:
    (remembered,) = pool.shared.remembered
    gone = Endpoint("10.9.9.9:1")
    for address in (A, gone):
        remembered(address, 1)
    assert pool.failures.strangers == [gone]
    for address in (A, gone):
        pool.failures.forget(address)
    assert pool.shared.announced == [(gone, 0)]
    assert pool.failures.strangers == []


def test_an_endpoint_that_left_the_pool_is_forgotten_by_all(pool: Pool) -> None:
    pool.answered(A, 500)
    pool.registry.set([PodEndpoint(B), PodEndpoint(C)])
    assert pool.shared.announced == [(A, 1), (A, 0)]
    assert pool.failures.left_out == {}


def test_an_engine_that_was_started_again_is_tried_at_once(pool: Pool) -> None:
    pool.answered(A, 500)
    pool.registry.set([PodEndpoint(A, started_ms=7), PodEndpoint(B), PodEndpoint(C)])
    assert pool.offered == [A, B, C]


def test_requests_that_end_after_their_pod_has_left_tell_of_nobody(pool: Pool) -> None:
    pool.answered(B, 200)
    pool.failures.picked(A)
    pool.registry.set([PodEndpoint(B), PodEndpoint(C)])
    pool.answered(A, 504)
    for _ in range(3):
        pool.failures.passed_over(A)
        pool.failures.looked(A, reached=False)
        pool.failures.undecided(A)
    assert pool.shared.announced == []
    assert pool.failures.ejections == 0
    pool.registry.set([PodEndpoint(A), PodEndpoint(B), PodEndpoint(C)])
    pool.registry.mark(A, True)
    pool.answered(A, 500, times=2)
    assert pool.shared.announced == [], "who comes with its address begins without a past"
