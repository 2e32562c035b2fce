"""What only the pool may tell its engines goes out of a body; nothing else of it changes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.requests.body import SLICE_BYTES
from multipick_epp.requests.reserved import RESERVED, Uncheckable, without_reserved

HANDLE = {"do_remote_prefill": True, "remote_host": "10.1.2.3", "remote_block_ids": [[1, 2]], "text": '"}],{'}
HOLDERS = ("sampling_params", "vllm_xargs", "extra_args")


@pytest.mark.parametrize("name", sorted(RESERVED))
@pytest.mark.parametrize("value", [HANDLE, "10.1.2.3", 8998, None, [1, [2]], {}])
def test_each_reserved_field_is_taken_out(name: str, value: Any) -> None:
    rest = {"model": "m", "prompt": "x", "max_tokens": 5}
    for order in ({name: value} | rest, rest | {name: value}):
        assert json.loads(without_reserved(json.dumps(order).encode())) == rest
    assert without_reserved(json.dumps({name: value}).encode()) == b"{}"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"kv_transfer_params":1}', b"{}"),
        (b'{ "a" : 1.0 , "kv_transfer_params" : {} , "b" : 1e5 }', b'{ "a" : 1.0 , "b" : 1e5 }'),
        (b'{"a":1,"kv_transfer_params":2,"bootstrap_room":3}', b'{"a":1}'),
        (b'{"bootstrap_room":3,"a":1,"kv_transfer_params":2}', b'{"a":1}'),
        (b'{"kv_transfer_params":1,"kv_transfer_params":2,"a":9007199254740993}', b'{"a":9007199254740993}'),
        (b'{"kv\\u005ftransfer_params":1,"a":2}', b'{"a":2}'),
        (b'{"\\u006bv_transfer_\\u0070arams":1,"a":2}', b'{"a":2}'),
        (b'{"a":"\\\\","kv_transfer_params":1}', b'{"a":"\\\\"}'),
        (b'{"a":"\\\\\\"","kv_transfer_params":1}', b'{"a":"\\\\\\""}'),
        (b'{"a":NaN,"kv_transfer_params":-Infinity}', b'{"a":NaN}'),
        (b'{"sampling_params":{"extra_args":{"bootstrap_host":1}}}', b'{"sampling_params":{"extra_args":{}}}'),
        (b'{"sampling_params":[{"extra_args":{"kv_transfer_params":{}}}]}', b'{"sampling_params":[{"extra_args":{}}]}'),
        (b'{"extra_args":{"a":1},"extra_args":{"bootstrap_host":2}}', b'{"extra_args":{"a":1},"extra_args":{}}'),
        (b'{"vllm\\u005fxargs":{"kv_transfer_params":{}}}', b'{"vllm\\u005fxargs":{}}'),
        (b'\xef\xbb\xbf\n{"bootstrap_host":1,"a":2}', b'\xef\xbb\xbf\n{"a":2}'),
        (b'{"a":"\xed\xa0\x80","bootstrap_host":1}', b'{"a":"\xed\xa0\x80"}'),
    ],
)  # fmt: skip
def test_the_rest_stays_byte_for_byte(body: bytes, left: bytes) -> None:
    assert without_reserved(body) == left


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_that_engines_read_hide_nothing(encoding: str) -> None:
    body = '{"bootstrap_host":"x","prompt":"Grüße, \U0001f600"}'.encode(encoding)
    assert json.loads(without_reserved(body)) == {"prompt": "Grüße, \U0001f600"}
    plain = '{"prompt":"Grüße"}'.encode(encoding)
    assert without_reserved(plain) is plain


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"kv_transfer_params",
        b'["kv_transfer_params"]',
        b'{"prompt":"what is kv_transfer_params? \\"bootstrap_host\\": 1"}',
        b'{"messages":[{"kv_transfer_params":1}],"tools":[{"parameters":{"properties":{"bootstrap_host":{}}}}]}',
        b'{"KV_TRANSFER_PARAMS":1,"kv_transfer_params ":2}',  # names of nothing: engines tell them apart
        b'{"prompt":"\\u0061\\u003c\\u00e9"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_body_without_such_a_field_is_left_alone(body: bytes) -> None:
    assert without_reserved(body) is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"kv_transfer_params":',
        b'{"kv_transfer_params" 1}',
        b'{"kv_transfer_params":1 "a":2}',
        b'{"kv_transfer_params":[}',
        b'{"a":"kv_transfer_params}',
        b'{bootstrap_host:1}',
        b'{"bootstrap_host":1,"a":[' + b"[]," * 200_000 + b"[]]}",
        b'{"bootstrap_host":1' + b',"a":1' * 200_000 + b"}",
        b'{"bootstrap_host":1,"a":' + b"[" * 300_000,
    ],
)  # fmt: skip
def test_what_may_hide_such_a_field_is_not_passed(body: bytes) -> None:
    with pytest.raises(Uncheckable):
        without_reserved(body)


def test_texts_full_of_brackets_and_quotes_cost_nothing() -> None:
    body = json.dumps({"prompt": 'x{}[],"\\' * 400_000, "bootstrap_host": "h"}).encode()
    assert json.loads(without_reserved(body)) == {"prompt": 'x{}[],"\\' * 400_000}


NAMES = st.sampled_from([*sorted(RESERVED), *HOLDERS, "prompt", "a"]) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def stripped(value: Any, depth: int = 4) -> Any:
    """The same by decoded values."""
    if isinstance(value, list):
        return [stripped(item, depth - 1) for item in value] if depth else value
    if not isinstance(value, dict):
        return value
    kept = {name: inner for name, inner in value.items() if name not in RESERVED}
    return {name: stripped(inner, depth - 1) if name in HOLDERS and depth else inner for name, inner in kept.items()}


@given(st.dictionaries(NAMES, VALUES, max_size=6), LAYOUTS)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_what_is_left_is_what_json_says(body: dict[str, Any], layout: dict[str, Any]) -> None:
    sent = json.dumps(body, **layout).encode("utf-8", "surrogatepass")
    assert json.loads(without_reserved(sent)) == stripped(body)


def escaped(name: str, which: list[bool]) -> str:
    return "".join(f"\\u{ord(c):04x}" if escape else c for c, escape in zip(name, which, strict=True))


@given(st.sampled_from(sorted(RESERVED)).flatmap(
    lambda name: st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(lambda which: escaped(name, which))
))  # fmt: skip
@settings(deadline=None, derandomize=True, max_examples=100)
def test_no_spelling_of_a_name_slips_past(name: str) -> None:
    body = f'{{"prompt":"x","{name}":1}}'.encode()
    assert without_reserved(body) == b'{"prompt":"x"}'


@given(st.binary(max_size=60))
@settings(deadline=None, derandomize=True)
def test_any_bytes_end_in_a_body_or_a_refusal(body: bytes) -> None:
    for sent in (body, b'{"bootstrap_host":1,' + body, b'{"a":"' + body + b'","bootstrap_host":1}'):
        try:
            left = without_reserved(sent)
        except Uncheckable:
            continue
        try:
            decoded = json.loads(left)
        except ValueError:
            continue
        assert not isinstance(decoded, dict) or not RESERVED & decoded.keys()


@given(st.text(st.sampled_from('\\"[]{}a'), max_size=12), st.integers(-6, 6))
@settings(deadline=None, derandomize=True)
def test_where_a_body_is_sliced_does_not_matter(text: str, at: int) -> None:
    for mark in ("kv_transfer_params", "\\u006bv_transfer_params"):
        before = json.dumps({"prompt": "x" * (SLICE_BYTES - 14 + at) + text})[:-1]
        body = f'{before},"{mark}":1}}'.encode()
        assert json.loads(without_reserved(body)).keys() == {"prompt"}


@pytest.mark.parametrize("shift", range(24))
def test_a_name_across_two_slices_is_seen(shift: int) -> None:
    for mark in ("bootstrap_host", "data_parallel_ran\\u006b"):
        body = b'{"prompt":"' + b"x" * (SLICE_BYTES - 14 - shift) + f'","{mark}":1}}'.encode()
        assert json.loads(without_reserved(body)).keys() == {"prompt"}


@given(st.text(st.sampled_from('{}[]":,\\/u0 \n') | st.characters(), max_size=20), st.sampled_from(sorted(RESERVED)))
@settings(deadline=None, derandomize=True, max_examples=500)
def test_what_stands_before_a_name_hides_it_only_where_it_is_no_name_to_json(before: str, name: str) -> None:
    for sent in (f'{{"a":"{before}","{name}":1}}', f'{{{before}"{name}":1}}', f'{{"a":{before},"{name}":1}}'):
        body = sent.encode("utf-8", "surrogatepass")
        try:
            left = json.loads(without_reserved(body))
        except (Uncheckable, ValueError):
            continue
        assert left == stripped(json.loads(body))
