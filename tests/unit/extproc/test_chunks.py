"""Chunks of a body without the protobuf library: what it would have read, or nothing; what it would have written."""

import base64
import json
from pathlib import Path

import pytest
from gateway_messages import read
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.extproc.chunks import Side, read_chunk, write_chunk
from multipick_epp.extproc.messages import RequestBody, ResponseBody
from multipick_epp.proto.ext_proc_pb2 import BodySendMode, ProcessingRequest, ProcessingResponse

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "ext_proc"
sides = st.sampled_from(["request_body", "response_body"])


def request(side: str, data: bytes, end: bool, metadata: dict[str, str] | None = None) -> ProcessingRequest:
    said = ProcessingRequest()
    body = getattr(said, side)
    body.SetInParent()
    body.body, body.end_of_stream = data, end
    for key, value in (metadata or {}).items():
        said.metadata_context.filter_metadata["envoy.lb"].fields[key].string_value = value
    return said


@given(sides, st.binary(max_size=300), st.booleans(), st.dictionaries(st.text(max_size=9), st.text(max_size=99)))
def test_chunks_are_read_as_protobuf_reads_them(side: Side, data: bytes, end: bool, about: dict[str, str]) -> None:
    assert read_chunk(request(side, data, end, about).SerializeToString()) == (side, data, end)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 62_000, 3_000_000])
def test_sizes_around_those_where_lengths_grow(size: int) -> None:
    data = b"x" * size
    assert read_chunk(request("response_body", data, True).SerializeToString()) == ("response_body", data, True)
    assert write_chunk("response_body", data, True) == written("response_body", data, True)


def test_every_chunk_of_the_recordings_is_read_here_and_nothing_else() -> None:
    seen = 0
    for file in RECORDINGS.glob("*.json"):
        for message in map(base64.b64decode, json.loads(file.read_text())):
            said = ProcessingRequest.FromString(message)
            side = said.WhichOneof("request")
            chunk = read_chunk(message)
            assert (chunk is not None) == (side in ("request_body", "response_body"))
            if chunk is not None:
                body = getattr(said, str(side))
                assert chunk == (side, body.body, body.end_of_stream)
                seen += 1
    assert seen > 5


@given(sides, st.binary(max_size=40), st.booleans(), st.data())
def test_bytes_that_were_changed_are_read_alike_or_left_alone(
    side: Side, data: bytes, end: bool, draw: st.DataObject
) -> None:
    message = bytearray(request(side, data, end, {"a": "b"}).SerializeToString())
    for _ in range(draw.draw(st.integers(1, 3))):
        match draw.draw(st.integers(0, 2)):
            case 0:
                message[draw.draw(st.integers(0, len(message) - 1))] = draw.draw(st.integers(0, 255))
            case 1:
                message.insert(draw.draw(st.integers(0, len(message))), draw.draw(st.integers(0, 255)))
            case _ if len(message) > 1:
                del message[draw.draw(st.integers(0, len(message) - 1))]
    chunk = read_chunk(bytes(message))
    if chunk is None:
        return
    try:
        said = ProcessingRequest.FromString(bytes(message))
    except DecodeError:  # of the metadata, which is not read for a chunk
        said = ProcessingRequest.FromString(bytes(message[: len(request_alone(bytes(message)))]))
    body = getattr(said, chunk[0])
    assert said.WhichOneof("request") == chunk[0]
    assert chunk[1:] == (body.body, body.end_of_stream)


def request_alone(message: bytes) -> bytes:
    """The first field."""
    return message[: 2 + message[1]]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x2a",
        b"\x2a\x80",
        b"\x2a\xff\xff\xff\xff\xff\xff",
        b"\x2a\x05\x0a\x09ab",  # a body that is longer than its field
        b"\x2a\x02\x10\x02",  # no boolean that anybody writes
        b"\x2a\x02\x10\x01\x2a\x02\x10\x00",  # a second body
        b"\x2a\x02\x10\x01\x42\x05a",  # metadata that is cut
        b"\x2a\x02\x10\x01\x5a\x02\x08\x04",  # modes: only a first message has them
        b"\x12\x00",
    ],
)
def test_what_gateways_do_not_send_is_left_to_protobuf(message: bytes) -> None:
    assert read_chunk(message) is None


def test_modes_beside_a_chunk_are_not_lost() -> None:
    said = request("request_body", b"x", True)
    said.protocol_config.request_body_mode = BodySendMode.BUFFERED
    message = read(said.SerializeToString())
    assert message.part == RequestBody(b"x", True)
    assert message.modes is not None


def test_chunks_become_parts() -> None:
    assert read(request("response_body", b"y", False).SerializeToString()).part == ResponseBody(b"y", False)


@given(sides, st.binary(max_size=300), st.booleans())
def test_chunks_are_written_as_protobuf_writes_them(side: Side, data: bytes, end: bool) -> None:
    assert write_chunk(side, data, end) == written(side, data, end)


def written(side: Side, data: bytes, end: bool) -> bytes:
    reply = ProcessingResponse()
    streamed = getattr(reply, side).response.body_mutation.streamed_response
    streamed.SetInParent()
    streamed.body, streamed.end_of_stream = data, end
    return reply.SerializeToString()
