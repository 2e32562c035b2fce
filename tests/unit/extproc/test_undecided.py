"""Requests that leave without a pick are counted, each once."""

from typing import TYPE_CHECKING

import pytest
from multipick_epp.extproc.effects import Undecided
from multipick_epp.extproc.messages import BodyMode, Modes, RequestBody, RequestHeaders, ResponseHeaders
from multipick_epp.extproc.pick import NoPick, Pick
from multipick_epp.types import Endpoint

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

ENDPOINT = Endpoint("10.0.0.1:8000")
BUFFERED = Modes(BodyMode.BUFFERED, BodyMode.NONE)
POST = RequestHeaders({":method": "POST", ":path": "/v1/completions"}, end=False)
WHOLE = RequestBody(b"{}", end=True)
OK = ResponseHeaders(end=False, served=ENDPOINT, status=200)


@pytest.mark.parametrize("outcome", [None, Pick(())], ids=["failed", "nobody"])
def test_an_endpoint_that_answers_although_none_was_picked(outcome: Pick | None, play: type["Play"]) -> None:
    played = play(BUFFERED)
    for part in (POST, WHOLE):
        played.hear(part)
    played.pick(outcome)
    played.hear(OK)
    played.close()
    assert played.missed == [Undecided.SERVED]


def test_an_endpoint_that_answers_before_the_pick(play: type["Play"]) -> None:
    played = play(BUFFERED)
    for part in (POST, WHOLE, OK):
        played.hear(part)
    played.close()
    assert played.missed == [Undecided.SERVED]


def test_a_gateway_that_ends_the_stream_before_the_pick(play: type["Play"]) -> None:
    played = play(BUFFERED)
    for part in (POST, WHOLE):
        played.hear(part)
    played.close()
    played.close()
    assert played.missed == [Undecided.LEFT]


@pytest.mark.parametrize("outcome", [Pick((ENDPOINT,)), NoPick(503, b"{}", "none")], ids=["picked", "refused"])
def test_what_was_decided_is_none_of_them(outcome: Pick | NoPick, play: type["Play"]) -> None:
    played = play(BUFFERED)
    for part in (POST, WHOLE):
        played.hear(part)
    played.pick(outcome)
    played.hear(OK)
    played.close()
    assert played.missed == []


def test_the_gateways_own_error_page_is_none_of_them(play: type["Play"]) -> None:
    played = play(BUFFERED)
    played.hear(POST)
    played.hear(ResponseHeaders(end=True, served=None, status=413))
    played.close()
    assert played.missed == []
