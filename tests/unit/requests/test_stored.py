"""A response that an engine keeps is found by its name alone, which tells nobody else where it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.requests.stored import ResponseNames, Stored, stored, with_name
from multipick_epp.types import Endpoint, rank_at

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
PATH = "/v1/responses"


@pytest.mark.parametrize(
    ("method", "path", "body", "found"),
    [
        ("POST", PATH, b'{"input": "a"}', Stored(None, nameless=True)),
        ("POST", f"/some/prefix{PATH}?x=1", b'{"input": "a"}', Stored(None, nameless=True)),
        ("POST", PATH, b'{"input": "a", "request_id": "mine"}', Stored()),
        ("POST", PATH, b'{"input": "a", "request_id": null}', Stored()),
        ("POST", PATH, b'{"previous_response_id": "resp_1", "input": "b"}', Stored("resp_1", nameless=True)),
        ("POST", PATH, b"[1]", None),
        ("POST", PATH, b'{"previous_response_id": 7}', None),
        ("POST", PATH, b"\xff", None),
        ("POST", PATH, b'{"a":' * 100_000, None),
        ("POST", "/v1/chat/completions", b'{"previous_response_id": "resp_1"}', None),
        ("GET", f"{PATH}/resp_1", None, Stored("resp_1")),
        ("GET", f"{PATH}/resp_1?stream=true&starting_after=3", None, Stored("resp_1")),
        ("DELETE", f"{PATH}/resp_1/", None, Stored("resp_1")),
        ("POST", f"{PATH}/resp_1/cancel", None, Stored("resp_1")),
        ("POST", f"{PATH}/resp_1/cancel", b"{}", Stored("resp_1")),
        ("GET", f"{PATH}/resp_1/input_items", None, Stored("resp_1")),
        ("GET", PATH, None, None),
        ("GET", f"{PATH}/{'x' * 5000}", None, None),
        ("GET", "/v1/models", None, None),
    ],
)
def test_what_a_request_names_is_read(method: str, path: str, body: bytes | None, found: Stored | None) -> None:
    assert stored(method, path, body) == found


def test_a_name_leads_to_its_endpoint_in_every_picker_of_the_pool() -> None:
    name = ResponseNames(b"secret", "pool").name(A)
    assert ResponseNames(b"secret", "pool").address_of(name, [B, A]) == A
    assert ResponseNames(b"secret", "pool").address_of(name, [B]) is None
    assert ResponseNames(b"other", "pool").address_of(name, [A, B]) is None
    assert ResponseNames(b"secret", "other").address_of(name, [A, B]) is None


@pytest.mark.parametrize("name", ["", "resp_1", "resp_000000000000_", "x" * 512, "resp_00000000000g_" + "0" * 32])
def test_a_name_that_is_none_of_ours_leads_nowhere(name: str) -> None:
    assert ResponseNames(b"", "").address_of(name, [A, B]) is None


def test_a_secret_may_have_any_length() -> None:
    names = ResponseNames(b"s" * 1000, "pool" * 1000)
    assert names.address_of(names.name(B), [A, B]) == B


@given(st.dictionaries(st.text().filter(lambda key: key != "request_id"), st.integers() | st.text(), max_size=5))
def test_a_body_gets_the_name_and_is_else_the_same(fields: dict[str, object]) -> None:
    for body in (json.dumps(fields).encode(), b" \n" + json.dumps(fields, indent=1).encode()):
        named = with_name(body, "resp_x")
        assert named is not None
        assert json.loads(named) == {"request_id": "resp_x", **fields}
        assert named.endswith(body.partition(b"{")[2].lstrip())


def test_what_is_no_object_gets_none() -> None:
    assert with_name(b"[1]", "a") is None
    assert with_name(b"", "a") is None
    assert with_name('{"a": 1}'.encode("utf-16"), "a") is None


def test_whichever_rank_of_a_server_makes_a_response_the_server_keeps_it() -> None:
    names = ResponseNames(b"secret", "pool")
    assert names.address_of(names.name(rank_at(A, 1)), [B, rank_at(A, 0), rank_at(A, 1)]) == A
