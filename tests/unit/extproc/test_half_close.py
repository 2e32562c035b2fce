"""A gateway that half-closes says no more, and listens on."""

from typing import TYPE_CHECKING

import pytest
from multipick_epp.extproc.effects import Release, Undecided
from multipick_epp.extproc.messages import (
    BodyMode,
    Modes,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
)
from multipick_epp.extproc.pick import Ended, NoPick, Pick
from multipick_epp.types import Endpoint, ReservationId

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

ENDPOINT = Endpoint("10.0.0.1:8000")
PICK = Pick((ENDPOINT,), ReservationId("r"))
ENVOYS = Modes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)
POST = RequestHeaders({":method": "POST", ":path": "/v1/completions"}, end=False)
NAMELESS = RequestHeaders({"content-type": "application/json"}, end=False)


@pytest.mark.parametrize("headers", [POST, NAMELESS], ids=["pseudo-headers", "none"])
def test_what_was_asked_is_answered_and_then_the_stream_ends(headers: RequestHeaders, play: type["Play"]) -> None:
    played = play(None)
    played.hear(headers)
    played.hear(RequestBody(b"{}", end=True))
    played.half_close()
    assert (len(played.asked), played.sent, played.ended) == (1, [], False)
    played.pick(PICK)
    assert played.kinds == ["request_headers", "request_body"]
    assert played.ended
    assert played.missed == []


def test_a_pick_that_was_there_before_is_the_same(play: type["Play"]) -> None:
    played = play(None)
    played.hear(NAMELESS)
    played.hear(RequestBody(b"{}", end=True))
    played.pick(PICK)
    played.half_close()
    assert played.kinds == ["request_headers", "request_body"]
    assert played.ended
    assert played.told == [Release(ReservationId("r"), Ended.UNSEEN)]


def test_a_gateway_that_shows_no_response_goes_on_with_its_pick_unseen(play: type["Play"]) -> None:
    played = play(None)
    played.hear(RequestHeaders({}, end=True))
    played.half_close()
    played.pick(PICK)
    assert played.told == [Release(ReservationId("r"), Ended.UNSEEN)]


@pytest.mark.parametrize("said", [0, 1, 3])
def test_a_body_without_its_end_ends_with_the_stream_where_no_envoy_speaks(said: int, play: type["Play"]) -> None:
    played = play(None)
    played.hear(NAMELESS)
    for _ in range(said):
        played.hear(RequestBody(b"{}", end=False))
    played.half_close()
    [asked] = played.asked
    assert asked.body == (b"{}" * said or None)
    played.pick(PICK)
    assert played.chunks("request_body") == ([(b"{}" * said, True)] if said else [])
    assert played.ended


def test_envoy_amid_a_body_has_lost_its_client(play: type["Play"]) -> None:
    played = play(ENVOYS)
    played.hear(POST)
    played.hear(RequestBody(b"{", end=False))
    played.half_close()
    assert (played.asked, played.sent, played.ended) == ([], [], True)
    assert played.missed == [Undecided.LEFT]


def test_envoy_during_the_pick_is_answered_and_its_pick_given_back(play: type["Play"]) -> None:
    played = play(ENVOYS)
    played.hear(POST)
    played.hear(RequestBody(b"{}", end=True))
    played.half_close()
    assert played.missed == [Undecided.LEFT]
    played.pick(PICK)
    assert played.kinds == ["request_headers", "request_body"]
    assert played.told == [Release(ReservationId("r"), Ended.ABORTED)]
    played.close()
    assert played.missed == [Undecided.LEFT]


def test_a_refusal_is_told_as_well(play: type["Play"]) -> None:
    played = play(None)
    played.hear(NAMELESS)
    played.hear(RequestTrailers())
    played.half_close()
    played.pick(NoPick(503, b"{}", "no-ready-endpoint"))
    assert played.kinds == ["immediate_response"]
    assert played.ended


def test_a_picker_that_failed_still_lets_the_gateway_go_on(play: type["Play"]) -> None:
    played = play(None)
    played.hear(NAMELESS)
    played.hear(RequestBody(b"{}", end=True))
    played.half_close()
    played.pick(None)
    assert played.kinds == ["request_headers", "request_body"]
    assert played.ended


def test_a_response_that_has_begun_is_over(play: type["Play"]) -> None:
    played = play(ENVOYS)
    played.hear(RequestHeaders({":method": "GET", ":path": "/"}, end=True))
    played.pick(PICK)
    played.hear(ResponseHeaders(end=False, served=ENDPOINT, status=200))
    played.hear(ResponseBody(b"data: 1\n\n", end=False))
    played.half_close()
    assert played.ended
    assert played.released == ["r"]
    assert Release(ReservationId("r"), Ended.CLOSED) in played.told


def test_a_stream_on_which_nothing_was_said_just_ends(play: type["Play"]) -> None:
    played = play(None)
    played.half_close()
    assert (played.sent, played.ended, played.missed) == ([], True, [])
