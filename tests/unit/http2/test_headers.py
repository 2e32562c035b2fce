"""Header blocks that were seen before are recognised by their bytes, whole or field by field."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.extproc.http2.bounds import Allowance
from multipick_epp.extproc.http2.frames import PeerError, StreamError
from multipick_epp.extproc.http2.headers import HeaderReader, TooLargeError

from tests.unit.http2.peer import CALL_HEADERS, block

UNITS = 1_000_000.0


def reader(max_list: int = 16_384) -> tuple[HeaderReader, Allowance]:
    """Of a peer whose table is off; and what decoding takes from."""
    allowance = Allowance(UNITS, 0.0, lambda: 0.0)
    made = HeaderReader(max_list, allowance)
    made.table_off()
    made.request(b"\x20" + block())
    allowance.left = UNITS
    return made, allowance


def decoded(allowance: Allowance) -> float:
    """Bytes since the last look."""
    count = (UNITS - allowance.left) * Allowance.DECODED
    allowance.left = UNITS
    return count


def test_a_block_that_was_read_is_not_read_again() -> None:
    made, allowance = reader()
    first = made.request(block(("x-envoy-internal", "true")))
    assert decoded(allowance) > 0
    assert made.request(block(("x-envoy-internal", "true"))) is first
    assert decoded(allowance) == 0


def test_of_a_block_that_differs_in_a_field_only_that_is_read() -> None:
    made, allowance = reader()
    made.request(block(("traceparent", "00-aaaa")))
    decoded(allowance)
    other = made.request(block(("traceparent", "00-bbbb")))
    assert other.path == "/test/Echo"
    assert 0 < decoded(allowance) < 30


def test_what_is_remembered_has_a_bound() -> None:
    made, allowance = reader()
    for number in range(2_000):
        made.request(block(("x-new", str(number))))
    assert len(made._blocks) <= 64
    assert len(made._fields) <= 256
    decoded(allowance)
    made.request(block())
    assert decoded(allowance) < 20  # what came first is still known, field by field


def test_blocks_are_not_remembered_while_the_peer_has_a_table() -> None:
    allowance = Allowance(UNITS, 0.0, lambda: 0.0)
    made = HeaderReader(16_384, allowance)
    encoder = hpack.Encoder()
    paths = [f"/{number % 3}" for number in range(30)]
    for path in paths:
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), ("x-long", path * 20)]
        assert made.request(bytes(encoder.encode(fields))).path == path
    assert not made._blocks


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20).filter(
    lambda name: name not in ("te", "connection", "upgrade", "content-length")
)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)


@given(st.lists(st.tuples(names, values), max_size=12))
def test_fields_are_the_same_however_they_are_read(extra: list[tuple[str, str]]) -> None:
    made, _ = reader()
    encoded = block(*extra)
    expected = [(name.encode(), value.encode()) for name, value in [*CALL_HEADERS, *extra]]
    assert list(made.fields(encoded)) == expected
    assert list(made.fields(encoded)) == expected  # recognised
    assert list(made._decode(encoded)) == expected


@given(st.binary(max_size=120))
def test_any_bytes_are_fields_or_an_error_of_the_peer(data: bytes) -> None:
    made, _ = reader(400)
    try:
        fields = list(made.fields(data))
    except (PeerError, StreamError, TooLargeError):
        return
    try:
        assert fields == list(made._decode(data))
    except TooLargeError:
        pytest.fail("read by pieces, but too large as a whole")
