"""Clients that wait for an answer are picked by their headers, in full duplex; what they say then is looked at."""

from typing import TYPE_CHECKING

import pytest
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.effects import Check
from multipick_epp.extproc.messages import (
    BodyMode,
    Modes,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
)
from multipick_epp.extproc.pick import NoPick, Pick
from multipick_epp.types import Endpoint, ReservationId

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

DUPLEX = Modes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)
BUFFERED = Modes(BodyMode.BUFFERED, BodyMode.NONE)
PICK = Pick((Endpoint("10.0.0.1:8000"),), ReservationId("r"))
UPGRADES = {
    "websocket": {":method": "GET", "upgrade": "websocket", "connection": "Upgrade"},
    "any upgrade": {":method": "GET", "upgrade": "h2c, other/2", "connection": "keep-alive, Upgrade"},
    "extended connect": {":method": "CONNECT", ":protocol": "websocket"},
    "connect": {":method": "CONNECT"},
}
EXPECTING = {
    "expect": {":method": "POST", "expect": "100-continue"},
    "expect in capitals": {":method": "POST", "expect": "100-Continue"},
}
GOING_ON = {
    "plain": {":method": "POST", "content-type": "application/json"},
    "an upgrade that no hop wants": {":method": "GET", "upgrade": "h2c"},
    "an upgrade behind a body": {":method": "POST", "upgrade": "websocket", "connection": "upgrade"},
    "another expectation": {":method": "POST", "expect": "miracles"},
    "connect by name only": {":method": "POST", ":protocol": ""},
}


def heard(play: type["Play"], headers: dict[str, str], modes: Modes | None = DUPLEX) -> "Play":
    played = play(modes, Bounds(max_read_bytes=20, max_body_bytes=40))
    played.hear(RequestHeaders({":path": "/v1/x", **headers}, end=False))
    return played


@pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES)
def test_what_follows_an_upgrade_is_passed_on(headers: dict[str, str], play: type["Play"]) -> None:
    played = heard(play, headers)
    [asked] = played.asked
    assert asked.body is None
    played.hear(RequestBody(b"early", end=False))  # one that did not wait: its words stay behind the pick
    played.pick(PICK)
    assert played.kinds == ["request_headers", "request_body"]
    played.hear(RequestBody(b"late", end=True))
    assert played.chunks("request_body") == [(b"early", False), (b"late", True)]


@pytest.mark.parametrize("headers", EXPECTING.values(), ids=EXPECTING)
@pytest.mark.parametrize("early", [False, True])
def test_a_body_that_was_waited_for_is_looked_through_before_it_goes_on(
    headers: dict[str, str], early: bool, play: type["Play"]
) -> None:
    played = heard(play, headers)
    assert [asked.body for asked in played.asked] == [None]
    if early:
        played.hear(RequestBody(b"{1", end=False))
    played.pick(PICK)
    assert played.kinds == ["request_headers"]
    if not early:
        played.hear(RequestBody(b"{1", end=False))
    played.hear(RequestBody(b"2}", end=True))
    assert played.kinds == ["request_headers"]
    assert played.to_check == Check("/v1/x", b"{12}")
    played.check(b"{}")
    assert played.chunks("request_body") == [(b"{}", True)]
    assert played.kept.size == 0


def test_a_body_that_is_there_before_the_pick_is_the_same(play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"])
    played.hear(RequestBody(b"{}", end=True))
    assert played.to_check is None
    played.pick(PICK)
    assert played.kinds == ["request_headers"]
    played.check()
    assert played.chunks("request_body") == [(b"{}", True)]


def test_trailers_follow_the_body(play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"])
    played.pick(PICK)
    played.hear(RequestBody(b"{}", end=False))
    played.hear(RequestTrailers())
    played.check()
    assert played.kinds == ["request_headers", "request_body", "request_trailers"]
    assert played.chunks("request_body") == [(b"{}", False)]


def test_a_body_that_may_not_go_on_is_refused(play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"])
    played.pick(PICK)
    played.hear(RequestBody(b"{}", end=True))
    played.check(NoPick(400, b"{}", "body_uncheckable"))
    assert played.kinds == ["request_headers", "immediate_response"]
    assert (played.ended, played.released) == (True, ["r"])


def test_or_cut_where_the_answer_has_begun(play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"])
    played.pick(PICK)
    played.hear(RequestBody(b"{}", end=True))
    played.hear(ResponseHeaders(end=False, status=401))
    played.check(NoPick(400, b"{}", "body_uncheckable"))
    assert played.kinds == ["request_headers", "response_headers"]
    assert played.ended


def test_one_that_is_too_large_to_be_read_goes_on_unread_and_one_too_large_at_all_does_not(play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"])
    played.pick(PICK)
    played.hear(RequestBody(b"x" * 21, end=False))
    assert played.to_check == Check("/v1/x", b"x" * 21, unread=True)
    played.check()
    played.hear(RequestBody(b"y", end=True))
    assert played.chunks("request_body") == [(b"x" * 21, False), (b"y", True)]
    played = heard(play, EXPECTING["expect"])
    played.pick(PICK)
    played.hear(RequestBody(b"x" * 41, end=False))
    assert played.kinds == ["request_headers", "immediate_response"]


@pytest.mark.parametrize("said", [0, 1])
@pytest.mark.parametrize("late", [False, True])
def test_a_half_close_is_the_end_of_it_where_no_envoy_speaks(said: int, late: bool, play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"], modes=None)
    if late:
        played.pick(PICK)
    for _ in range(said):
        played.hear(RequestBody(b"{}", end=False))
    played.half_close()
    if not late:
        played.pick(PICK)
    played.check()
    assert played.chunks("request_body") == [(b"{}", True)] * said
    assert (played.ended, played.missed) == (True, [])


@pytest.mark.parametrize("headers", GOING_ON.values(), ids=GOING_ON)
def test_others_are_decided_by_their_body(headers: dict[str, str], play: type["Play"]) -> None:
    played = heard(play, headers)
    assert played.asked == []
    played.hear(RequestBody(b"{}", end=True))
    assert [asked.body for asked in played.asked] == [b"{}"]


def test_where_the_gateway_keeps_the_body_it_is_waited_for_as_ever(play: type["Play"]) -> None:
    played = heard(play, EXPECTING["expect"], BUFFERED)
    assert played.asked == []
    played.hear(RequestBody(b"{}", end=True))
    assert [asked.body for asked in played.asked] == [b"{}"]
