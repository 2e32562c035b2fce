"""Each conversation of the real Envoy, cut, interleaved, delayed and broken off as far as the protocol allows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from multipick_epp.extproc.effects import FirstByte, Release, Served
from multipick_epp.extproc.messages import (
    BodyMode,
    GatewayMessage,
    Modes,
    Part,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from multipick_epp.extproc.pick import NoPick, Pick
from multipick_epp.extproc.replies import CHUNK_BYTES
from multipick_epp.types import Endpoint, ReservationId

if TYPE_CHECKING:
    from tests.unit.extproc.conftest import Play

NAMES = [
    "gateway-chat",
    "gateway-get",
    "gateway-trailers",
    "standalone-chat",
    "standalone-get",
    "streamed-chat",
]
PICK = Pick(
    (Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000#1")),  # of a rank the address goes out
    ReservationId("r"),
    {"x-to-pod": "a"},
    {"x-to-client": "b"},
)
ANSWER = {
    RequestHeaders: "request_headers",
    RequestBody: "request_body",
    RequestTrailers: "request_trailers",
    ResponseHeaders: "response_headers",
    ResponseBody: "response_body",
    ResponseTrailers: "response_trailers",
}
REQUEST = (RequestHeaders, RequestBody, RequestTrailers)
fixtures_are_reused = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_all_recordings_are_played(recorded: dict[str, list[GatewayMessage]]) -> None:
    assert sorted(recorded) == NAMES


@pytest.mark.parametrize("name", NAMES)
@fixtures_are_reused
@given(data=st.data())
@pytest.mark.requirement("protocol: The endpoint is told in dynamic metadata envoy.lb, too, as the very same value.")
@pytest.mark.requirement(
    "ext_proc: Each message is answered by its kind and mode, in order; chunks end at 62,000 bytes."
)
def test_a_request_is_picked_once_and_everything_answered(
    name: str, data: st.DataObject, recorded: dict[str, list[GatewayMessage]], play: type["Play"]
) -> None:
    modes, parts = vary(data, recorded[name])
    played = play(modes)
    before_pick = perform(played, parts, data, PICK)
    played.close()

    [asked] = played.asked
    check_request(played, modes, [part for part in parts if isinstance(part, REQUEST)])
    check_response(played, modes, [part for part in parts if not isinstance(part, REQUEST)])
    if asked.body is not None:
        assert asked.body == body_of(parts)
    assert played.released == ["r"]
    # A response that began before the pick is not the picked endpoint's.
    begins = next(n for n, part in enumerate(parts) if isinstance(part, ResponseHeaders))
    first_byte = next((n for n, part in enumerate(parts) if isinstance(part, ResponseBody) and part.data), -1)
    expected = [Served] * (begins >= before_pick) + [FirstByte] * (first_byte >= before_pick) + [Release]
    assert [type(effect) for effect in played.told] == expected


@pytest.mark.parametrize("name", NAMES)
@fixtures_are_reused
@given(data=st.data())
def test_without_a_pick_the_same_is_said_but_for_the_destination(
    name: str, data: st.DataObject, recorded: dict[str, list[GatewayMessage]], play: type["Play"]
) -> None:
    modes, parts = vary(data, recorded[name])
    with_pick, without = play(modes), play(modes)
    delay = data.draw(st.integers(0, len(parts)))
    for played, outcome in ((with_pick, PICK), (without, None)):
        perform(played, parts, data, outcome, delay)
    assert without.kinds == with_pick.kinds
    assert without.chunks("request_body") == with_pick.chunks("request_body")
    assert not any(b"x-gateway" in reply.SerializeToString() for reply in without.sent)
    without.close()
    assert not without.told


@pytest.mark.parametrize("name", NAMES)
@fixtures_are_reused
@given(data=st.data())
@pytest.mark.requirement("ext_proc: Nothing follows an ImmediateResponse.")
def test_a_refusal_is_the_last_word(
    name: str, data: st.DataObject, recorded: dict[str, list[GatewayMessage]], play: type["Play"]
) -> None:
    modes, parts = vary(data, recorded[name])
    requests = [part for part in parts if isinstance(part, REQUEST)]
    played = play(modes)
    perform(played, requests, data, NoPick(503, b"{}", "no_endpoint", {"retry-after": "2"}))
    assert played.kinds[-1] == "immediate_response"
    assert played.ended
    said = len(played.sent)
    for part in parts:
        played.hear(part)
    played.close()
    assert len(played.sent) == said
    response = played.sent[-1].immediate_response
    headers = {option.header.key: option.header.raw_value for option in response.headers.set_headers}
    assert (response.status.code, response.body) == (503, b"{}")
    assert headers == {
        "content-type": b"application/json",
        "retry-after": b"2",
        "x-multipick-drop-reason": b"no_endpoint",
    }


@pytest.mark.parametrize("name", NAMES)
@fixtures_are_reused
@given(data=st.data())
@pytest.mark.requirement("ext_proc: Wherever a stream breaks off, its request is uncharged once.")
def test_a_reservation_is_released_once_wherever_the_stream_breaks_off(
    name: str, data: st.DataObject, recorded: dict[str, list[GatewayMessage]], play: type["Play"]
) -> None:
    modes, parts = vary(data, recorded[name])
    parts = parts[: data.draw(st.integers(0, len(parts)))]
    played = play(modes)
    picked = perform(played, parts, data, PICK, at_the_end=False)
    ends = data.draw(st.lists(st.sampled_from([played.stop, played.close]), min_size=1, max_size=3))
    for end in ends:
        end()
    if played.asked and not picked:
        played.pick(PICK)  # too late
    assert played.released == ["r"] * len(played.asked)
    if ends[0] == played.stop:
        assert played.ended


def vary(data: st.DataObject, conversation: list[GatewayMessage]) -> tuple[Modes, list[Part]]:
    """The conversation with its bodies cut anew and its two directions interleaved anew."""
    modes = conversation[0].modes
    assert modes is not None
    parts = [message.part for message in conversation]
    requests = cut(data, [part for part in parts if isinstance(part, REQUEST)], modes.request_body)
    responses = cut(data, [part for part in parts if not isinstance(part, REQUEST)], modes.response_body)
    mixed: list[Part] = [requests.pop(0)]  # the stream opens with it
    while requests or responses:
        mixed.append((requests if not responses or (requests and data.draw(st.booleans())) else responses).pop(0))
    return modes, mixed


def cut(data: st.DataObject, parts: list[Part], mode: BodyMode) -> list[Part]:
    if mode not in (BodyMode.STREAMED, BodyMode.FULL_DUPLEX_STREAMED):
        return parts
    varied: list[Part] = []
    for part in parts:
        if isinstance(part, RequestBody | ResponseBody):
            at = sorted(data.draw(st.lists(st.integers(0, len(part.data)), max_size=3)))
            pieces = [part.data[a:b] for a, b in zip([0, *at], [*at, len(part.data)], strict=True)]
            varied += [replace(part, data=piece, end=False) for piece in pieces[:-1]]
            varied.append(replace(part, data=pieces[-1]))
        else:
            varied.append(part)
    return varied


def perform(
    played: "Play",
    parts: Sequence[Part],
    data: st.DataObject,
    outcome: Pick | NoPick | None,
    delay: int | None = None,
    at_the_end: bool = True,
) -> int:
    """Say all parts; the pick comes some messages after it was asked for. Returns how many were said before it."""
    wait = data.draw(st.integers(0, len(parts))) if delay is None else delay
    picked_after = 0
    for said, part in enumerate(parts, 1):
        played.hear(part)
        if played.asked and not picked_after:
            if wait == 0:
                picked_after = said
                played.pick(outcome)
            wait -= 1
    if played.asked and not picked_after and at_the_end:
        picked_after = len(parts)
        played.pick(outcome)
    return picked_after


def body_of(parts: list[Part]) -> bytes:
    return b"".join(part.data for part in parts if isinstance(part, RequestBody))


def check_request(played: "Play", modes: Modes, parts: list[Part]) -> None:
    answers = [name for name in played.kinds if name.startswith("request")]
    if modes.request_body is BodyMode.FULL_DUPLEX_STREAMED:
        chunks = played.chunks("request_body")
        assert b"".join(data for data, _ in chunks) == body_of(parts)
        assert all(len(data) <= CHUNK_BYTES for data, _ in chunks)
        by_body = any(isinstance(part, RequestBody) and part.end for part in parts)
        assert [end for _, end in chunks] == [False] * (len(chunks) - 1) + [by_body] * bool(chunks)
        trailers = ["request_trailers"] * any(isinstance(part, RequestTrailers) for part in parts)
        assert answers == ["request_headers", *["request_body"] * len(chunks), *trailers]
    else:
        assert answers == [ANSWER[type(part)] for part in parts]
    [pick] = [reply for reply in played.sent if reply.HasField("dynamic_metadata")]
    common = pick.request_headers.response if pick.HasField("request_headers") else pick.request_body.response
    headers = {option.header.key: option.header.raw_value for option in common.header_mutation.set_headers}
    value = "10.0.0.1:8000,10.0.0.2:8000"
    assert headers == {"x-to-pod": b"a", "x-gateway-destination-endpoint": value.encode()}
    metadata = pick.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    assert metadata["x-gateway-destination-endpoint"].string_value == value
    assert common.clear_route_cache


def check_response(played: "Play", modes: Modes, parts: list[Part]) -> None:
    answers = [name for name in played.kinds if name.startswith("response")]
    bodies = [part for part in parts if isinstance(part, ResponseBody)]
    if modes.response_body is BodyMode.FULL_DUPLEX_STREAMED:
        chunks = played.chunks("response_body")
        assert b"".join(data for data, _ in chunks) == b"".join(part.data for part in bodies)
        assert [end for _, end in chunks] == [False] * (len(chunks) - 1) + [True] * bool(chunks)
        assert answers == ["response_headers"] + ["response_body"] * len(chunks)
    else:
        assert answers == [ANSWER[type(part)] for part in parts]
