"""A load of the store is read as one, or as none: never as less, and never as more than there can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.state.ledger import Charge
from multipick_epp.state.redis.figures import (
    IN_FLIGHT,
    MOST,
    change_of,
    fields_of,
    figure,
    read_figure,
    read_load,
    with_contexts,
)
from multipick_epp.types import NO_LOAD, Endpoint, Load

A = Endpoint("a:1")


@pytest.mark.parametrize("load", [Load(), Load(0, 1), Load(7, 3), Load(IN_FLIGHT // 2 - 1, 2)])
def test_what_was_written_is_read(load: Load) -> None:
    assert read_load(read_figure(b"%d" % figure(load.queued_tokens, load.in_flight))) == load


def test_a_reservation_is_one_request_and_its_tokens() -> None:
    assert dict(fields_of(A, Charge(A, 9).load)) == {A: IN_FLIGHT + 9}


def test_contexts_have_a_field_of_their_own() -> None:
    assert dict(fields_of(A, Charge(A, 9, 4096).load)) == {A: IN_FLIGHT + 9, "a:1 contexts": IN_FLIGHT + 4096}
    assert dict(fields_of(A, Charge(A, 0, 4096).load)) == {A: IN_FLIGHT, "a:1 contexts": 4096}, "it is prefilled"
    assert dict(fields_of(A, Load(-9, 0, 0, -1))) == {A: -9, "a:1 contexts": -IN_FLIGHT}
    assert dict(fields_of(A, Load())) == {}
    assert with_contexts(Load(9, 1), IN_FLIGHT + 4096) == Load(9, 1, 4096, 1)
    assert with_contexts(Load(9, 1), MOST) == Load(9, 1)


@pytest.mark.parametrize(
    "text", [b"", b"x", b"-5", b"1.5", b"1e3", b"nan", b"inf", b" 5", b"\xff", b"9" * 400, b"%d" % MOST]
)
def test_what_is_no_figure_is_none(text: bytes) -> None:
    assert read_load(read_figure(text)) == Load()


@pytest.mark.parametrize("number", [-1, -31 * IN_FLIGHT, MOST, 2**63 - 1])
def test_a_load_is_never_negative_nor_larger_than_can_be(number: int) -> None:
    assert read_load(number) == Load()


def test_tokens_that_were_taken_off_twice_are_none() -> None:
    assert read_load(figure(-100, 2)) == Load(0, 2)


@given(st.integers(-(10**6), 10**6), st.integers(-1000, 1000), st.integers(-(10**6), 10**6), st.integers(-1000, 1000))
def test_a_change_is_read_from_its_fields(queued: int, in_flight: int, context: int, prefilling: int) -> None:
    change = Load(queued, in_flight, context, prefilling)
    parts = [change_of(*field) for field in fields_of(A, change)]
    assert {endpoint for endpoint, _ in parts} <= {A}
    assert Load(*map(sum, zip(NO_LOAD, *(part for _, part in parts), strict=True))) == change
