"""Single promises of the state machine, each in the shortest conversation that shows it."""

from typing import TYPE_CHECKING

import msgspec
import pytest
from multipick_epp.extproc.collected import Bounds, Kept
from multipick_epp.extproc.effects import Counted, FirstByte, Release
from multipick_epp.extproc.messages import (
    BodyMode,
    Modes,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from multipick_epp.extproc.pick import Ended, NoPick, Pick
from multipick_epp.extproc.usage import Usage
from multipick_epp.types import Endpoint, ReservationId

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

PICK = Pick((Endpoint("10.0.0.1:8000"),), ReservationId("r"))
POST = RequestHeaders({":method": "POST", ":path": "/v1/completions"}, end=False)


@pytest.fixture
def picking(play: type["Play"]) -> "Play":
    """A full-duplex stream whose picker is thinking."""
    played = play(Modes())
    played.hear(POST)
    played.hear(RequestBody(b"{}", end=True))
    return played


def test_a_body_that_outgrows_reading_flows_without_being_kept(play: type["Play"]) -> None:
    played = play(Modes(), Bounds(max_read_bytes=1000))
    played.hear(RequestHeaders({":method": "POST", ":path": "/v1/completions"}, end=False))
    played.hear(RequestBody(b"a" * 600, end=False))
    held = [played.stream.holding]
    played.hear(RequestBody(b"b" * 600, end=False))
    held.append(played.stream.holding)
    [asked] = played.asked
    assert (asked.body, asked.body_bytes) == (None, 1200)
    played.pick(PICK)
    held.append(played.stream.holding)
    assert held == [False, True, False]
    assert played.chunks("request_body") == [(b"a" * 600 + b"b" * 600, False)]
    played.hear(RequestBody(b"c" * 62_000, end=False))
    played.hear(RequestBody(b"d" * 100_000, end=True))
    assert [len(data) for data, _ in played.chunks("request_body")] == [1200, 62_000, 62_000, 38_000]
    assert [end for _, end in played.chunks("request_body")] == [False, False, False, True]


def test_bodies_are_not_waited_for_while_all_streams_together_keep_too_much(play: type["Play"]) -> None:
    bounds, kept = Bounds(max_kept_bytes=1000), Kept()
    slow, late, later = (play(Modes(), bounds, kept) for _ in range(3))
    for played in (slow, late):
        played.hear(POST)
        played.hear(RequestBody(b"a" * 600, end=False))
    assert not slow.asked
    [asked] = late.asked
    assert (asked.body, asked.body_bytes, late.stream.holding) == (None, 600, True)
    late.pick(PICK)
    assert late.chunks("request_body") == [(b"a" * 600, False)]
    assert kept.size == 600
    later.hear(POST)
    later.hear(RequestBody(b"a" * 300, end=False))
    later.hear(RequestBody(b"b", end=True))
    assert [asked.body for asked in later.asked] == [b"a" * 300 + b"b"]
    slow.close()
    later.close()
    assert kept.size == 0


@pytest.mark.parametrize("mode", list(BodyMode))
def test_destinations_that_a_client_names_are_removed_from_its_headers(mode: BodyMode, play: type["Play"]) -> None:
    played = play(Modes(mode))
    theirs = ["x-gateway-destination-endpoint", "x-gateway-destination-endpoint-subset"]
    played.hear(RequestHeaders({":path": "/", "x-mine": "1", **dict.fromkeys(theirs, "10.6.6.6:1")}, end=False))
    played.hear(RequestBody(b"{}", end=True))
    played.pick(None)
    [reply] = [reply for reply in played.sent if reply.HasField("request_headers")]
    assert list(reply.request_headers.response.header_mutation.remove_headers) == theirs


def test_a_response_that_began_before_the_pick_cannot_be_refused_any_more(picking: "Play") -> None:
    picking.hear(ResponseHeaders(end=False))
    picking.pick(NoPick(503, b"{}", "no_endpoint"))
    assert picking.kinds == ["response_headers", "request_headers", "request_body"]
    assert not picking.ended


def test_a_response_that_ended_before_the_pick_frees_it_at_once(picking: "Play") -> None:
    picking.hear(ResponseHeaders(end=True))
    picking.pick(PICK)
    assert picking.told == [Release(ReservationId("r"), Ended.WHOLE)]


def test_stopping_before_the_body_was_sent_on_refuses(picking: "Play") -> None:
    picking.stop()
    assert picking.kinds == ["immediate_response"]
    assert picking.sent[0].immediate_response.status.code == 503
    assert picking.ended


def test_stopping_once_there_is_a_response_only_ends(picking: "Play") -> None:
    picking.hear(ResponseHeaders(end=False))
    picking.stop()
    assert picking.kinds == ["response_headers"]
    assert picking.ended


def test_stopping_where_the_gateway_keeps_the_body_only_ends(play: type["Play"]) -> None:
    for mode in (BodyMode.NONE, BodyMode.STREAMED, BodyMode.BUFFERED):
        played = play(Modes(mode))
        played.hear(POST)
        played.stop()
        assert "immediate_response" not in played.kinds
        assert played.ended


def test_the_end_of_the_response_frees_the_reservation_before_the_stream_closes(picking: "Play") -> None:
    picking.pick(PICK)
    picking.hear(ResponseHeaders(end=False))
    picking.hear(ResponseBody(b"data: 1", end=False))
    assert picking.released == []
    picking.hear(ResponseBody(b"", end=True))
    assert picking.released == ["r"]


def test_how_a_request_ended_is_told_as_far_as_the_gateway_tells(play: type["Play"]) -> None:
    begun = ResponseHeaders(end=False)
    cases: list[tuple[list[ResponseHeaders | ResponseBody | ResponseTrailers], Ended]] = [
        ([], Ended.ABORTED),
        ([begun], Ended.CLOSED),
        ([begun, ResponseBody(b"data: 1", end=False)], Ended.CLOSED),
        ([begun, ResponseBody(b"", end=True)], Ended.WHOLE),
        ([ResponseHeaders(end=True)], Ended.WHOLE),
        ([begun, ResponseTrailers()], Ended.WHOLE),
    ]
    for said, ended in cases:
        played = play(Modes())
        played.hear(POST)
        played.hear(RequestBody(b"{}", end=True))
        played.pick(PICK)
        for part in said:
            played.hear(part)
        played.close()
        assert played.told[-1] == Release(ReservationId("r"), ended)


def test_an_unread_body_is_never_replaced(play: type["Play"]) -> None:
    played = play(Modes(), Bounds(max_read_bytes=4))
    played.hear(POST)
    played.hear(RequestBody(b"too long", end=True))
    played.pick(Pick(PICK.endpoints, body=b"other"))
    assert played.chunks("request_body") == [(b"too long", True)]


@pytest.mark.parametrize("mode", [BodyMode.FULL_DUPLEX_STREAMED, BodyMode.STREAMED])
def test_a_responses_chunks_but_the_first_and_the_last_go_the_short_way(play: type["Play"], mode: BodyMode) -> None:
    played = play(Modes(response_body=mode))
    played.hear(POST)
    played.hear(RequestBody(b"{}", end=True))
    played.pick(PICK)
    played.hear(ResponseHeaders(end=False))
    assert played.stream.pass_on("response_body", b"first", False) is None
    played.hear(ResponseBody(b"first", end=False))
    assert played.stream.pass_on("response_body", b"last", True) is None
    assert played.stream.pass_on("request_body", b"x", False) is None
    short = played.stream.pass_on("response_body", b"second", False)
    played.hear(ResponseBody(b"second", end=False))
    assert short is not None
    assert played.sent[-1].SerializeToString() == short
    played.close()
    assert played.stream.pass_on("response_body", b"late", False) is None


@pytest.mark.parametrize(
    ("parts", "tokens"),
    [
        (
            [b'{"choices":[{"text":"\\"completion_tokens\\": 9"}],"usage":{"prompt_tokens":7,"completion_tokens":12}}'],
            12,
        ),
        ([b"data: {}\n\n" * 900, b'data: {"usage":{"completion_to', b'kens": 345}}\n\ndata: [DONE]\n\n'], 345),
        (
            [b'event: message_delta\ndata: {"usage":{"output_tokens":1}}\n', b'data: {"usage":{"output_tokens":21}}\n'],
            21,
        ),
        ([b'{"usage":{"completion_tokens":99999999}}'], 1 << 18),
        ([b'{"usage":{"completion_tokens":-3}}'], None),
        ([b"\x1f\x8b compressed"], None),
        ([], None),
    ],
)
def test_the_engines_count_of_an_answer_is_told_before_its_end_where_it_passes(
    parts: list[bytes], tokens: int | None, play: type["Play"]
) -> None:
    played = play(Modes(response_body=BodyMode.FULL_DUPLEX_STREAMED), counts_output=True)
    played.hear(POST)
    played.hear(RequestBody(b"{}", end=True))
    played.pick(PICK)
    played.hear(ResponseHeaders(end=False, served=None, status=200))
    for data in parts:  # as the driver does it: most chunks go the short way
        if played.stream.pass_on("response_body", data, False) is None:
            played.hear(ResponseBody(data, end=False))
    played.hear(ResponseTrailers())
    told = [each for each in played.told if not isinstance(each, FirstByte)]
    assert [each.usage.output for each in told if isinstance(each, Counted)] == ([] if tokens is None else [tokens])
    assert told[-1] == Release(ReservationId("r"), Ended.WHOLE)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            b'{"choices":[],"usage":{"prompt_tokens":70,"total_tokens":82,"completion_tokens":12,'
            b'"prompt_tokens_details":{"cached_tokens":64}}}',
            Usage(12, 70, 64),
        ),
        (
            b'{"usage":{"input_tokens":70,"input_tokens_details":{"cached_tokens":0},"output_tokens":3}}',
            Usage(3, 70, 0),
        ),
        (b'{"usage":{"prompt_tokens":70,"prompt_tokens_details":null}}', Usage(None, 70, None)),
        (b'{"text":"\\"cached_tokens\\": 5, \\"prompt_tokens\\": 6"}', None),
        (b'{"cached_tokens": 123456789012345}', None),
    ],
)
def test_a_pick_that_wants_it_is_told_what_the_engine_says_of_the_prompt(
    body: bytes, usage: Usage | None, play: type["Play"]
) -> None:
    played = play(Modes(response_body=BodyMode.FULL_DUPLEX_STREAMED))
    played.hear(POST)
    played.hear(RequestBody(b"{}", end=True))
    played.pick(msgspec.structs.replace(PICK, counts=True))
    played.hear(ResponseHeaders(end=False, served=None, status=200))
    played.hear(ResponseBody(body, end=True))
    assert [each.usage for each in played.told if isinstance(each, Counted)] == ([usage] if usage else [])


def test_nobody_looks_into_a_response_unless_asked_to(play: type["Play"]) -> None:
    played = play(Modes(response_body=BodyMode.FULL_DUPLEX_STREAMED))
    played.hear(POST)
    played.hear(RequestBody(b"{}", end=True))
    played.pick(PICK)
    played.hear(ResponseBody(b'{"usage":{"completion_tokens":5}}', end=True))
    assert not [each for each in played.told if isinstance(each, Counted)]
