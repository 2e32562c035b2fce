"""What the gateway says, as plain values, and how to read it from the wire.

Source: envoy/service/ext_proc/v3/external_processor.proto of Envoy 1.40; Endpoint Picker Protocol 1.0 for the metadata.
"""

import itertools
import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import msgspec
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.struct_pb2 import Value

from multipick_epp.extproc.chunks import Side
from multipick_epp.extproc.wire import SMALL_BYTES, TooLarge, check_size
from multipick_epp.proto.ext_proc_pb2 import HeaderMap, Metadata, ProcessingRequest
from multipick_epp.types import Endpoint

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
LB_NAMESPACE = "envoy.lb"
SERVED_KEY = "x-gateway-destination-endpoint-served"

MAX_HEADERS = 20_000
MAX_SUBSET = 10_000
"""Endpoints of a subset hint that are looked at: more than any pool has."""

_ENDPOINT = re.compile(r"(?:[0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")


class MessageError(Exception):
    """The bytes are no ProcessingRequest: whoever sent them is no gateway."""


class BodyMode(IntEnum):
    """How much of a body the gateway sends, and what it wants back (`ProcessingMode.BodySendMode`)."""

    NONE = 0  # nothing
    STREAMED = 1  # chunk by chunk, an answer to each
    BUFFERED = 2  # the whole body in one message, an answer to it
    BUFFERED_PARTIAL = 3  # the same, but perhaps only the body's beginning
    FULL_DUPLEX_STREAMED = 4  # chunk by chunk, and only what we send back goes on


_MODES: Final[dict[int, BodyMode]] = {mode.value: mode for mode in BodyMode}
_FULL_DUPLEX: Final = BodyMode.FULL_DUPLEX_STREAMED


class Modes(msgspec.Struct, frozen=True):
    """The gateway's choice for this stream (`protocol_config`)."""

    request_body: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    response_body: BodyMode = BodyMode.FULL_DUPLEX_STREAMED


class RequestHeaders(msgspec.Struct, frozen=True):
    """The beginning of a request."""

    headers: Mapping[str, str]  # lower-case names, `:method` and `:path` among them; of a repeated header the first
    end: bool  # no body and no trailers follow
    subset: tuple[str, ...] | None = None  # the endpoints to pick from; None = no hint


class RequestBody(msgspec.Struct, frozen=True):
    """A chunk of the request's body, or the whole of it."""

    data: bytes
    end: bool


class RequestTrailers(msgspec.Struct, frozen=True):
    """The end of a request that has trailers; no chunk before it said `end`."""


class ResponseHeaders(msgspec.Struct, frozen=True):
    """The beginning of a response; the gateway knows by now who served it."""

    end: bool
    served: Endpoint | None = None
    status: int | None = None  # None: the gateway doesn't say, or something odd


class ResponseBody(msgspec.Struct, frozen=True):
    """A chunk of the response's body, or the whole of it."""

    data: bytes
    end: bool


class ResponseTrailers(msgspec.Struct, frozen=True):
    """The end of a response that has trailers, or of any response where the gateway sends them always."""


class Unknown(msgspec.Struct, frozen=True):
    """A kind of message that this protocol version doesn't have; nobody can tell what answer it wants."""


Part = RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseBody | ResponseTrailers | Unknown


class GatewayMessage(msgspec.Struct, frozen=True):
    """One message of the gateway."""

    part: Part
    modes: Modes | None = None  # in the stream's first message only


def of_chunk(side: Side, data: bytes, end: bool) -> GatewayMessage:
    """The message that `chunks.read_chunk` has read."""
    return GatewayMessage(RequestBody(data, end) if side == "request_body" else ResponseBody(data, end))


def read_other(data: bytes) -> GatewayMessage:
    """A message that `chunks.read_chunk` left alone. Raises MessageError."""
    try:
        if len(data) > SMALL_BYTES:
            check_size(data)
        request = ProcessingRequest.FromString(data)
    except (ProtobufError, TooLarge) as error:
        raise MessageError(str(error)) from error
    part: Part
    match request.WhichOneof("request"):
        case "request_headers":
            headers = request.request_headers
            part = RequestHeaders(_headers(headers.headers), headers.end_of_stream, _subset(request.metadata_context))
        case "response_headers":
            response = request.response_headers
            part = ResponseHeaders(response.end_of_stream, _served(request.metadata_context), _status(response.headers))
        case "request_body":
            part = RequestBody(request.request_body.body, request.request_body.end_of_stream)
        case "response_body":
            part = ResponseBody(request.response_body.body, request.response_body.end_of_stream)
        case "request_trailers":
            part = RequestTrailers()
        case "response_trailers":
            part = ResponseTrailers()
        case _:
            part = Unknown()
    if not request.HasField("protocol_config"):
        return GatewayMessage(part)
    config = request.protocol_config
    # Newer modes (GRPC) are answered as full duplex is.
    modes = Modes(
        _MODES.get(config.request_body_mode, _FULL_DUPLEX), _MODES.get(config.response_body_mode, _FULL_DUPLEX)
    )
    return GatewayMessage(part, modes)


def _headers(headers: HeaderMap) -> dict[str, str]:
    if len(headers.headers) > MAX_HEADERS:
        raise MessageError("too many headers")
    # Envoy 1.40 fills raw_value only, older gateways value. Reversed, so that of a repeated header the first stays.
    return {
        header.key.lower(): header.raw_value.decode("utf-8", "replace") or header.value
        for header in reversed(headers.headers)
    }


def _status(headers: HeaderMap) -> int | None:
    # Envoy's pseudo-headers come first.
    for header in itertools.islice(headers.headers, MAX_HEADERS):
        if header.key == ":status":
            text = header.raw_value or header.value.encode()
            return int(text) if text.isdigit() and len(text) == 3 else None
    return None


def _subset(metadata: Metadata) -> tuple[str, ...] | None:
    value = _value(metadata, SUBSET_NAMESPACE, SUBSET_KEY)
    if value is None:
        return None
    if value.HasField("list_value"):
        names = [item.string_value for item in itertools.islice(value.list_value.values, MAX_SUBSET)]
    else:
        names = value.string_value.split(",", MAX_SUBSET)[:MAX_SUBSET]
    return tuple(name for name in map(str.strip, names) if name)


def _served(metadata: Metadata) -> Endpoint | None:
    value = _value(metadata, LB_NAMESPACE, SERVED_KEY)
    return Endpoint(value.string_value) if value is not None and _ENDPOINT.fullmatch(value.string_value) else None


def _value(metadata: Metadata, namespace: str, key: str) -> Value | None:
    if namespace not in metadata.filter_metadata:  # indexing would create it
        return None
    fields = metadata.filter_metadata[namespace].fields
    return fields.get(key)
