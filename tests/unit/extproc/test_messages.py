"""Reading what a gateway says, also where it says it oddly."""

import contextlib
from typing import Any

import pytest
from gateway_messages import read
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.extproc.messages import (
    BodyMode,
    GatewayMessage,
    MessageError,
    Modes,
    RequestHeaders,
    ResponseHeaders,
    Unknown,
)
from multipick_epp.proto.ext_proc_pb2 import BodySendMode, ProcessingRequest


def request_headers(*headers: tuple[str, bytes, str]) -> ProcessingRequest:
    request = ProcessingRequest()
    request.request_headers.SetInParent()
    for key, raw_value, value in headers:
        request.request_headers.headers.headers.add(key=key, raw_value=raw_value, value=value)
    return request


def with_metadata(request: ProcessingRequest, namespace: str, values: dict[str, Any]) -> GatewayMessage:
    struct = Struct()
    struct.update(values)
    request.metadata_context.filter_metadata[namespace].CopyFrom(struct)
    return read(request.SerializeToString())


@pytest.mark.requirement("ext_proc: Header values are read from raw_value, else from value.")
def test_raw_values_go_before_values_and_the_first_of_a_repeated_header_stays() -> None:
    request = request_headers(("a", b"raw", ""), ("b", b"", "plain"), ("a", b"later", ""), ("c", b"\xff\xfe", ""))
    [part] = [read(request.SerializeToString()).part]
    assert isinstance(part, RequestHeaders)
    assert part.headers == {"a": "raw", "b": "plain", "c": "\ufffd\ufffd"}


@pytest.mark.parametrize(
    ("hint", "subset"),
    [
        (["10.0.0.1:8000", " 10.0.0.2 "], ("10.0.0.1:8000", "10.0.0.2")),
        ("10.0.0.1:8000, 10.0.0.2:8000", ("10.0.0.1:8000", "10.0.0.2:8000")),
        ([], ()),
        ("", ()),
        ([1, None, ["x"], "10.0.0.1:1"], ("10.0.0.1:1",)),
        (7, ()),
        (None, ()),
        ({"a": 1}, ()),
    ],
)
def test_a_subset_hint_is_a_list_or_a_comma_string_and_empty_where_it_is_neither(
    hint: object, subset: tuple[str, ...]
) -> None:
    message = with_metadata(request_headers(), "envoy.lb.subset_hint", {"x-gateway-destination-endpoint-subset": hint})
    assert isinstance(message.part, RequestHeaders)
    assert message.part.subset == subset


@pytest.mark.parametrize("namespace", ["envoy.lb", "envoy.lb.subset_hint"])
def test_metadata_of_others_is_no_hint(namespace: str) -> None:
    message = with_metadata(request_headers(), namespace, {"something-else": "10.0.0.1:8000"})
    assert isinstance(message.part, RequestHeaders)
    assert message.part.subset is None


@pytest.mark.parametrize(("told", "served"), [("10.0.0.1:8000", "10.0.0.1:8000"), ("", None), (7, None)])
def test_the_endpoint_that_served_is_read_from_the_response(told: object, served: str | None) -> None:
    response = ProcessingRequest()
    response.response_headers.SetInParent()
    message = with_metadata(response, "envoy.lb", {"x-gateway-destination-endpoint-served": told})
    assert message.part == ResponseHeaders(False, served)  # type: ignore[arg-type]


@pytest.mark.requirement("ext_proc: protocol_config tells the modes; without it they are full duplex.")
def test_modes_of_a_later_protocol_count_as_full_duplex() -> None:
    request = request_headers()
    request.protocol_config.request_body_mode = BodySendMode.BUFFERED
    grpc_mode = b"\x5a\x02\x10\x05"  # protocol_config {response_body_mode: 5}, merged into the one before
    message = read(request.SerializeToString() + grpc_mode)
    assert message.modes == Modes(BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED)


def test_modes_that_are_all_none_are_still_named() -> None:
    request = request_headers()
    assert read(request.SerializeToString()).modes is None
    request.protocol_config.SetInParent()
    assert read(request.SerializeToString()).modes == Modes(BodyMode.NONE, BodyMode.NONE)


def test_a_kind_of_message_that_is_not_known_is_told_apart() -> None:
    assert read(b"").part == Unknown()
    assert read(b"\xa2\x01\x02hi").part == Unknown()  # field 20


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_message_error(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        read(data)
