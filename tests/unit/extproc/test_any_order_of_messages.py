"""Messages that no gateway should send, or not now: never an exception, never a message without its answer."""

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.messages import (
    BodyMode,
    Modes,
    Part,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Unknown,
)
from multipick_epp.extproc.pick import NoPick, Pick
from multipick_epp.types import Endpoint, ReservationId

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

PICK = Pick((Endpoint("10.0.0.1:8000"),), ReservationId("r"), {}, {}, b"replaced")
OUTCOMES = (PICK, Pick(()), NoPick(429, b"{}", "saturated"), None)
OTHERS = ("half-close", "check", "stop", "close")
ANSWERS = {
    RequestHeaders: "request_headers",
    RequestBody: "request_body",
    RequestTrailers: "request_trailers",
    ResponseHeaders: "response_headers",
    ResponseBody: "response_body",
    ResponseTrailers: "response_trailers",
}
headers = st.dictionaries(
    st.sampled_from([":path", ":method", "content-length", "x-gateway-destination-endpoint"]), st.text(max_size=8)
) | st.just({"expect": "100-continue"})
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(RequestHeaders, headers, st.booleans()),
    st.builds(RequestBody, st.binary(max_size=40), st.booleans()),
    st.just(RequestTrailers()),
    st.builds(ResponseHeaders, st.booleans(), st.none() | st.just(Endpoint("10.0.0.2:1"))),
    st.builds(ResponseBody, st.binary(max_size=40), st.booleans()),
    st.just(ResponseTrailers()),
    st.just(Unknown()),
)
modes = st.none() | st.builds(Modes, st.sampled_from(BodyMode), st.sampled_from(BodyMode))
reused = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@reused
@given(
    modes=modes,
    events=st.lists(
        parts | st.sampled_from(OUTCOMES) | st.sampled_from(["half-close", "check", "stop", "close"]), max_size=30
    ),
)
def test_nothing_raises_and_reservations_balance(modes: Modes | None, events: list[object], play: type["Play"]) -> None:
    played = play(modes, Bounds(max_read_bytes=50, max_body_bytes=100, max_kept_bytes=70))
    given_out = 0
    for event in events:
        if event == "stop":
            played.stop()
        elif event == "close":
            played.close()
        elif event == "half-close":
            played.half_close()
        elif event == "check":
            if played.to_check:
                played.check()
        elif event is None or isinstance(event, Pick | NoPick):
            given_out += isinstance(event, Pick) and event.reservation is not None
            played.pick(event)
        else:
            played.hear(event)  # type: ignore[arg-type]
    played.close()
    assert played.released == ["r"] * given_out
    assert played.kept.size == 0


@reused
@given(modes=modes, said=st.lists(parts, max_size=20))
def test_every_message_is_answered_in_its_kind_where_the_mode_wants_it(
    modes: Modes | None, said: list[Part], play: type["Play"]
) -> None:
    played = play(modes)
    for part in said:
        played.hear(part)
    if played.asked:
        played.pick(PICK)
    if played.to_check:
        played.check()
    used = modes or Modes()
    streamed = {
        name
        for name, mode in (("request_body", used.request_body), ("response_body", used.response_body))
        if mode is BodyMode.FULL_DUPLEX_STREAMED
    }
    wanted = [ANSWERS[type(part)] for part in said if not isinstance(part, Unknown)]
    got = played.kinds
    if not played.asked:  # a request that is not complete is owed its answers still
        wanted = [name for name in wanted if name.startswith("response")]
        got = [name for name in got if name.startswith("response")]
    assert sorted(name for name in got if name not in streamed) == sorted(
        name for name in wanted if name not in streamed
    )


@pytest.mark.parametrize("mode", list(BodyMode))
def test_a_gateway_that_counts_wrong_gets_no_second_pick(mode: BodyMode, play: type["Play"]) -> None:
    played = play(Modes(mode, mode))
    for _ in range(3):
        played.hear(RequestHeaders({}, end=False))
        played.hear(RequestBody(b"{}", end=True))
        played.pick(PICK)
    assert len(played.asked) == 1
    assert sum(reply.HasField("dynamic_metadata") for reply in played.sent) == 1


@pytest.mark.requirement("ext_proc: protocol_config tells the modes; without it they are full duplex.")
def test_a_gateway_that_names_no_modes_is_taken_for_full_duplex(play: type["Play"]) -> None:
    played = play(None)
    played.hear(RequestHeaders({}, end=False))
    assert played.kinds == []
    played.hear(RequestBody(b"{}", end=True))
    played.pick(Pick((Endpoint("10.0.0.1:8000"),)))
    assert played.kinds == ["request_headers", "request_body"]
    assert played.chunks("request_body") == [(b"{}", True)]


def test_streamed_bodies_that_do_not_wait_are_answered_behind_the_pick(play: type["Play"]) -> None:
    played = play(Modes(BodyMode.STREAMED, BodyMode.NONE))
    played.hear(RequestHeaders({"content-length": "4"}, end=False))
    played.hear(RequestBody(b"ab", end=False))
    played.hear(RequestBody(b"cd", end=True))
    assert (played.kinds, played.asked[0].body, played.asked[0].body_bytes) == ([], None, 4)
    played.pick(PICK)
    assert played.kinds == ["request_headers", "request_body", "request_body"]
    assert not any(reply.request_body.response.HasField("body_mutation") for reply in played.sent)


def test_a_partial_body_is_not_taken_for_the_whole(play: type["Play"]) -> None:
    for end, body in ((False, None), (True, b'{"model":"m"}')):
        played = play(Modes(BodyMode.BUFFERED_PARTIAL, BodyMode.NONE))
        played.hear(RequestHeaders({}, end=False))
        played.hear(RequestBody(b'{"model":"m"}', end=end))
        assert (played.asked[0].body, played.asked[0].body_bytes) == (body, 13)


@pytest.mark.parametrize("length", ["", "-1", "1e9", "٣", "9" * 30, "0x10", " 7"])
def test_a_length_that_is_none_counts_as_unknown(length: str, play: type["Play"]) -> None:
    played = play(Modes(BodyMode.NONE, BodyMode.NONE))
    played.hear(RequestHeaders({"content-length": length}, end=False))
    assert played.asked[0].body_bytes == 0
