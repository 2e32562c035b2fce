from typing import TYPE_CHECKING

import pytest
from multipick_epp.extproc.messages import BodyMode, Modes, RequestBody, RequestHeaders
from multipick_epp.extproc.pick import Pick
from multipick_epp.extproc.waiting import awaits_an_answer
from multipick_epp.types import Endpoint, ReservationId

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

DUPLEX = Modes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)
WAITING = {
    "expect": {":method": "POST", "expect": "100-continue"},
    "expect in capitals": {":method": "POST", "expect": "100-Continue"},
    "websocket": {":method": "GET", "upgrade": "websocket", "connection": "Upgrade"},
    "any upgrade": {":method": "GET", "upgrade": "h2c, other/2", "connection": "keep-alive, Upgrade"},
    "extended connect": {":method": "CONNECT", ":protocol": "websocket"},
    "connect": {":method": "CONNECT"},
}
GOING_ON = {
    "plain": {":method": "POST", "content-type": "application/json"},
    "an upgrade that no hop wants": {":method": "POST", "upgrade": "h2c"},
    "another expectation": {":method": "POST", "expect": "miracles"},
    "connect by name only": {":method": "POST", ":protocol": ""},
}


@pytest.mark.parametrize("headers", WAITING.values(), ids=WAITING)
def test_a_client_that_waits_is_decided_by_its_headers(headers: dict[str, str], play: type["Play"]) -> None:
    assert awaits_an_answer(headers)
    played = play(DUPLEX)
    played.hear(RequestHeaders({":path": "/v1/realtime", **headers}, end=False))
    [asked] = played.asked
    assert asked.body is None
    played.hear(RequestBody(b"early", end=False))  # one that did not wait: its words stay behind the pick
    played.pick(Pick((Endpoint("10.0.0.1:8000"),), ReservationId("r")))
    assert played.kinds == ["request_headers", "request_body"]
    played.hear(RequestBody(b"late", end=True))
    assert played.chunks("request_body") == [(b"early", False), (b"late", True)]


@pytest.mark.parametrize("headers", GOING_ON.values(), ids=GOING_ON)
def test_others_are_decided_by_their_body(headers: dict[str, str], play: type["Play"]) -> None:
    assert not awaits_an_answer(headers)
    played = play(DUPLEX)
    played.hear(RequestHeaders({":path": "/v1/completions", **headers}, end=False))
    assert played.asked == []
    played.hear(RequestBody(b"{}", end=True))
    assert [asked.body for asked in played.asked] == [b"{}"]
