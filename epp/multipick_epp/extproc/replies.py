"""What we say to the gateway: one function, or constant, a kind of ProcessingResponse; values -> bytes.

Header values travel as `raw_value`, as Envoy itself sends them. A header that is set overwrites what is there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

from multipick_epp.extproc.chunks import Side, write_chunk
from multipick_epp.extproc.messages import LB_NAMESPACE
from multipick_epp.extproc.pick import NoPick
from multipick_epp.proto.ext_proc_pb2 import CommonResponse, HeaderMutation, ProcessingResponse
from multipick_epp.requests.rank_header import RANK_HEADER
from multipick_epp.types import Endpoint, address_of

DESTINATION: Final = "x-gateway-destination-endpoint"
"""Header and metadata key of the pick. Whatever a client sends by a name that begins so is removed."""

RESERVED_HEADERS: Final = frozenset(
    {
        RANK_HEADER,  # vLLM and SGLang: another rank than the one that was picked
        "x-data-parallel-host-port",  # llm-d's proxy beside an engine dials what these name
        "x-prefiller-host-port",
        "x-prefiller-url",
        "x-encoder-hosts-ports",
    }
)
"""What no client may tell an endpoint, besides its destination. Also removed from all that clients send."""

DROP_REASON: Final = "x-multipick-drop-reason"

CHUNK_BYTES: Final = 62_000
"""The largest chunk of a streamed body: some gateways cap a message at 64 KB."""


def _pattern() -> str:
    # All begin with `x-`, so most names fail at their first letter. Servers that take `_` for `-` are minded.
    names = [DESTINATION, *(rf"{name}\Z" for name in sorted(RESERVED_HEADERS))]
    return f"x-(?:{'|'.join(name.removeprefix('x-') for name in names)})".replace("-", "[-_]")


_RESERVED: Final = re.compile(_pattern(), re.IGNORECASE)


def reserved(names: Iterable[str]) -> list[str]:
    """Those of these request headers that are removed.

    Else a client could choose its endpoint, or any address at all, wherever the gateway falls back on the header.
    """
    return [*filter(_RESERVED.match, names)]


def request_headers(destination: Sequence[Endpoint], extra: Mapping[str, str], remove: Sequence[str]) -> bytes:
    """The answer to a request's headers: with a destination it is the pick, `extra` are headers set beside it."""
    if not extra and not remove:
        return _plain_request_headers(tuple(destination))
    return _request_headers(destination, extra, remove)


@lru_cache(maxsize=1024)
def _plain_request_headers(destination: tuple[Endpoint, ...]) -> bytes:
    """As nearly all of a pool are: one for each endpoint."""
    return _request_headers(destination, {}, ())


def _request_headers(destination: Sequence[Endpoint], extra: Mapping[str, str], remove: Iterable[str]) -> bytes:
    reply = ProcessingResponse()
    reply.request_headers.SetInParent()  # an answer that changes nothing is still one
    common = reply.request_headers.response
    common.header_mutation.remove_headers.extend(remove)
    _route(reply, common, destination, extra)
    return reply.SerializeToString()


def request_body(destination: Sequence[Endpoint], extra: Mapping[str, str], replacement: bytes | None) -> bytes:
    """The answer to a buffered request body: with a destination it is the pick."""
    reply = ProcessingResponse()
    reply.request_body.SetInParent()
    common = reply.request_body.response
    if replacement is not None:
        common.body_mutation.body = replacement
    _route(reply, common, destination, extra)
    return reply.SerializeToString()


def request_trailers(destination: Sequence[Endpoint]) -> bytes:
    """The answer to a request's trailers; a pick can go out here as metadata only."""
    reply = ProcessingResponse()
    reply.request_trailers.SetInParent()
    if destination:
        _lb_metadata(reply, _value(destination))
    return reply.SerializeToString()


def response_headers(extra: Mapping[str, str]) -> bytes:
    """The answer to a response's headers, which sets `extra` on them."""
    if not extra:
        return CONTINUE_RESPONSE_HEADERS
    reply = ProcessingResponse()
    reply.response_headers.SetInParent()
    _set(reply.response_headers.response.header_mutation, extra)
    return reply.SerializeToString()


def chunks(side: Side, data: bytes, end: bool) -> list[bytes]:
    """A piece of a full-duplex body, with `end` on the last chunk only; nothing where there is nothing to say."""
    if len(data) <= CHUNK_BYTES:
        return [write_chunk(side, data, end)] if data or end else []
    last = (len(data) - 1) // CHUNK_BYTES * CHUNK_BYTES
    return [
        write_chunk(side, data[start : start + CHUNK_BYTES], end and start == last)
        for start in range(0, len(data), CHUNK_BYTES)
    ]


def immediate(answer: NoPick) -> bytes:
    """The whole response to the client: the gateway sends nothing on and asks nothing more."""
    reply = ProcessingResponse()
    response = reply.immediate_response
    response.status.code = answer.status
    response.body = answer.body
    response.details = f"multipick_{answer.reason}"
    headers = {"content-type": "application/json", **answer.headers, DROP_REASON: answer.reason}
    _set(response.headers, headers)
    return reply.SerializeToString()


def _route(
    reply: ProcessingResponse, common: CommonResponse, destination: Sequence[Endpoint], extra: Mapping[str, str]
) -> None:
    _set(common.header_mutation, extra)
    if destination:
        value = _value(destination)
        _set(common.header_mutation, {DESTINATION: value})
        _lb_metadata(reply, value)
        common.clear_route_cache = True


def _value(destination: Sequence[Endpoint]) -> str:
    """What can be dialled: a rank is told in a header of its own."""
    return ",".join(map(address_of, destination))


def _lb_metadata(reply: ProcessingResponse, value: str) -> None:
    reply.dynamic_metadata.fields[LB_NAMESPACE].struct_value.fields[DESTINATION].string_value = value


def _set(mutation: HeaderMutation, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        header = mutation.set_headers.add().header
        header.key = name
        header.raw_value = value.encode()


def _continue(
    kind: Literal["request_headers", "request_body", "response_headers", "response_body", "response_trailers"],
) -> bytes:
    reply = ProcessingResponse()
    reply.__getattribute__(kind).SetInParent()
    return reply.SerializeToString()


CONTINUE_REQUEST_HEADERS: Final = _continue("request_headers")
CONTINUE_REQUEST_BODY: Final = _continue("request_body")
CONTINUE_RESPONSE_HEADERS: Final = _continue("response_headers")
CONTINUE_RESPONSE_BODY: Final = _continue("response_body")
CONTINUE_RESPONSE_TRAILERS: Final = _continue("response_trailers")
"""Answers by which the gateway sends on what it has, unchanged."""
