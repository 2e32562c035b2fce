from random import Random

import pytest
from multipick_epp.capture.answers import MAX_TOKENS, StepRates
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.types import Endpoint

POD = Endpoint("10.0.0.1:8000")


def test_an_answer_has_the_tokens_that_its_engine_gave_each_request_meanwhile() -> None:
    rates = StepRates()
    assert rates.tokens(POD, 1.0) is None
    for look in range(8):  # four requests, 50 steps a second
        rates.looked(POD, Gauges(running=4, generated=4 * 25.0 * look), 0.5 * look)
    assert rates.tokens(POD, 3.0) == 150
    assert rates.tokens(POD, 0.0) == 1
    rates.gone(POD)
    assert rates.tokens(POD, 1.0) is None


def test_idle_times_and_restarts_change_no_rate() -> None:
    rates = StepRates()
    looks = [(0, 1, 0), (1, 1, 40), (2, 0, 60), (60, 0, 60), (60.5, 1, 70), (61, 1, 3), (62, 1, 43)]
    for at_s, running, generated in looks:
        rates.looked(POD, Gauges(running=running, generated=generated), at_s)
    assert rates.tokens(POD, 2.0) == 80


def test_requests_shorter_than_the_time_between_looks_are_counted_right_in_the_long_run() -> None:
    rates = StepRates()
    rng = Random(3)
    for look in range(400):  # a request of 5 tokens every half second, in a tenth of it: seen running one time in five
        rates.looked(POD, Gauges(running=rng.random() < 0.2, generated=5.0 * look), 0.5 * look)
    found = rates.tokens(POD, 1.0)
    assert found == pytest.approx(50, abs=15)


def test_a_new_engine_is_as_fast_as_the_others_until_it_is_known() -> None:
    rates = StepRates()
    for look in range(3):
        rates.looked(POD, Gauges(running=1, generated=20.0 * look), look)
    assert rates.tokens(Endpoint("10.0.0.2:8000"), 3.0) == 60


@pytest.mark.parametrize("generated", [1e18, 0.0])
def test_no_counter_makes_an_answer_that_no_trace_may_have(generated: float) -> None:
    rates = StepRates()
    rates.looked(POD, Gauges(running=1), 0.0)
    rates.looked(POD, Gauges(running=1, generated=generated), 0.0)
    found = rates.tokens(POD, 10.0)
    assert found is None or 1 <= found <= MAX_TOKENS
