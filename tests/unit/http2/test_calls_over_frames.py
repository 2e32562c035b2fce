"""What a well-behaved client sees: messages cut and joined in any way, ends, pauses, windows."""

from random import Random

import hpack
import pytest
from multipick_epp.extproc.http2.bounds import Bounds
from multipick_epp.extproc.http2.grpc import CallError, Status

from tests.unit.http2.peer import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    Remembered,
    block,
    data,
    echo,
    fields,
    frame,
    headers,
    message,
    rst,
    settings,
    window,
)


def test_the_server_introduces_itself_with_its_settings_only_to_who_speaks_http2() -> None:
    peer = Peer()
    assert peer.say(PREFACE[:10]) == []
    ours, credit, ack = peer.say(PREFACE[10:] + settings())
    assert (ours.kind, ours.flags, ack.kind, ack.flags) == (SETTINGS, 0, SETTINGS, ACK)
    assert ours.payload[:6] == b"\0\x01\0\0\0\0"  # no table
    assert (credit.kind, credit.stream) == (WINDOW_UPDATE, 0)
    other = Peer()
    assert other.say(b"GET / HTTP/1.1\r\nhost: me\r\n\r\n") == []
    assert other.connection.closing


@pytest.mark.parametrize("cut", [1, 2, 7, 1000, 100_000])
def test_a_conversation_may_be_cut_anywhere(cut: int) -> None:
    peer = Peer(react=echo).greet()
    bodies = [b"", b"a", b"b" * 40_000, b"c" * 5]
    said = headers(1) + b"".join(
        data(1, piece) for piece in pieces(b"".join(map(message, bodies)), 16_384, 4, 3, 1, 9_000)
    )
    said += data(1, b"", END_STREAM)
    for at in range(0, len(said), cut):
        peer.say(said[at : at + cut])
    [call] = peer.calls
    assert call.messages == bodies
    assert (call.half, call.over) == (True, 0)
    call.stream.end()
    peer.heard()
    assert (call.half, call.over) == (True, 1)
    assert peer.body(1) == b"".join(map(message, bodies))
    assert peer.trailers(1) == {"grpc-status": "0"}
    assert not peer.named(RST_STREAM)
    assert not peer.connection.streams.open


def pieces(whole: bytes, *sizes: int) -> list[bytes]:
    cut, at, turn = [], 0, 0
    while at < len(whole):
        cut.append(whole[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return cut


def test_frames_of_one_message_carry_at_most_what_every_peer_takes() -> None:
    peer = Peer(react=echo).greet(window=1 << 20)
    peer.say(window(0, 1 << 20) + headers(1))
    for piece in pieces(message(b"x" * 100_000), 16_384):
        peer.say(data(1, piece))
    assert max(len(each.payload) for each in peer.named(DATA)) == 16_384
    assert peer.body(1) == message(b"x" * 100_000)


def test_padding_priority_and_continuations_change_nothing(peer: Peer) -> None:
    whole = block()
    first = b"\x03" + b"\0\0\0\x01\xff" + whole[:5] + b"\0\0\0"
    peer.say(frame(HEADERS, PADDED | PRIORITISED, 3, first))
    peer.say(frame(CONTINUATION, 0, 3, whole[5:9]) + frame(CONTINUATION, END_HEADERS, 3, whole[9:]))
    peer.say(frame(PRIORITY, 0, 9, b"\0\0\0\0\x10") + frame(99, 5, 3, b"unknown"))
    peer.say(frame(PRIORITY, 0, 3, b"\0\0\0\0\1"))
    peer.say(data(3, b"\x05" + message(b"padded") + b"\0" * 5, PADDED))
    assert peer.calls[0].messages == [b"padded"]
    assert peer.fault is None


def test_our_end_before_the_clients_tells_it_to_say_no_more(peer: Peer) -> None:
    peer.say(headers(1))
    peer.calls[0].stream.send(b"first")
    peer.calls[0].stream.end()
    peer.heard()
    assert peer.trailers(1) == {"grpc-status": "0"}
    assert [each.code for each in peer.named(RST_STREAM)] == [NO_ERROR]
    peer.say(data(1, message(b"sent before it knew")) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(headers=[])))
    assert peer.fault is None
    assert len(peer.named(RST_STREAM)) == 1
    assert peer.calls[0].messages == []


def test_an_end_without_an_answer_is_headers_and_trailers_in_one(peer: Peer) -> None:
    peer.say(headers(1))
    peer.calls[0].stream.fail(CallError(Status.NOT_FOUND, "not here"))
    peer.heard()
    assert peer.trailers(1) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "not here",
    }


def test_what_is_no_call_is_told_so(peer: Peer) -> None:
    peer.say(frame(HEADERS, 5, 1, plain("GET", "text/html")))
    peer.say(frame(HEADERS, 5, 3, plain("GET", "application/grpc")))
    peer.say(frame(HEADERS, 5, 5, block(headers=path("/no/such"))))
    peer.say(frame(HEADERS, 5, 7, block(("grpc-encoding", "gzip"))))
    statuses = [hpack_status(peer, stream) for stream in (1, 3, 5, 7)]
    assert statuses == [("415", None), ("405", None), ("200", "12"), ("200", "12")]
    assert not peer.calls
    assert not peer.connection.streams.open


def plain(method: str, content_type: str) -> bytes:
    return block(headers=[(":method", method), (":scheme", "http"), (":path", "/"), ("content-type", content_type)])


def path(name: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", name),
        ("content-type", "application/grpc+proto"),
    ]


def hpack_status(peer: Peer, stream: int) -> tuple[str, str | None]:
    found = fields(peer.named(HEADERS, stream)[0].payload)
    return found[":status"], found.get("grpc-status")


def test_a_compressed_or_oversized_message_ends_its_call_only() -> None:
    peer = Peer(Bounds(message=1000)).greet()
    peer.say(headers(1) + data(1, b"\1\0\0\0\1x"))
    peer.say(headers(3) + data(3, message(b"x" * 1001)[:10]))  # known by its length, before its bytes are there
    peer.say(headers(5) + data(5, message(b"x" * 1000)))
    assert peer.trailers(1)["grpc-status"] == "13"
    assert peer.trailers(3)["grpc-status"] == "8"
    assert [call.over for call in peer.calls] == [1, 1, 0]
    assert peer.calls[2].messages == [b"x" * 1000]


def test_half_a_message_at_the_end_is_an_error_of_the_call(peer: Peer) -> None:
    peer.say(headers(1) + data(1, message(b"whole") + message(b"cut")[:6], END_STREAM))
    assert peer.calls[0].messages == [b"whole"]
    assert peer.trailers(1)["grpc-status"] == "13"
    assert peer.calls[0].over == 1


def test_a_call_that_the_client_resets_is_closed_once(peer: Peer) -> None:
    peer.say(headers(1) + rst(1) + rst(1) + window(1, 10))
    assert peer.calls[0].over == 1
    peer.calls[0].stream.send(b"too late")
    peer.calls[0].stream.end()
    peer.calls[0].stream.resume()
    assert peer.heard() == []


def test_a_lost_connection_closes_its_calls(peer: Peer) -> None:
    peer.say(headers(1) + headers(3))
    peer.connection.lost()
    assert [call.over for call in peer.calls] == [1, 1]
    assert peer.shared.streams == 0


def test_a_timeout_of_the_client_ends_the_call() -> None:
    peer = Peer().greet()
    peer.say(headers(1, ("grpc-timeout", "5S")) + headers(3))
    assert peer.calls[0].request.timeout_s == 5.0
    peer.tick(4.9)
    assert not peer.calls[0].over
    peer.tick(0.2)
    assert peer.trailers(1)["grpc-status"] == "4"
    assert [call.over for call in peer.calls] == [1, 0]


def test_pings_are_answered(peer: Peer) -> None:
    [pong] = peer.say(frame(PING, 0, 0, b"12345678"))
    assert (pong.kind, pong.flags, pong.payload) == (PING, ACK, b"12345678")


def test_answers_wait_for_the_window_of_the_stream_and_go_on_in_order() -> None:
    peer = Peer(react=echo).greet(window=10)
    peer.say(headers(1) + data(1, message(b"0123456789")) + data(1, message(b"ab")))
    assert peer.body(1) == message(b"0123456789")[:10]
    peer.calls[0].stream.end()
    peer.say(window(1, 4))
    assert peer.body(1) == message(b"0123456789")[:14]
    peer.say(settings(window=30))
    assert peer.body(1) == message(b"0123456789") + message(b"ab")
    assert peer.trailers(1) == {"grpc-status": "0"}


def test_a_window_made_smaller_is_made_up_for_before_more_is_sent() -> None:
    peer = Peer(react=echo).greet(window=20)
    peer.say(headers(1) + data(1, message(b"x" * 15)))
    peer.say(settings(window=5) + data(1, message(b"y" * 5)))
    assert peer.body(1) == message(b"x" * 15)
    peer.say(window(1, 15))
    assert peer.body(1) == message(b"x" * 15)
    peer.say(window(1, 10))
    assert peer.body(1) == message(b"x" * 15) + message(b"y" * 5)


def test_the_window_of_the_connection_is_shared_fairly() -> None:
    peer = Peer().greet(window=1 << 20)
    for stream in (1, 3, 5):
        peer.say(headers(stream))
    for call in peer.calls:
        call.stream.send(b"x" * 60_000)
    peer.heard()
    assert sum(len(each.payload) for each in peer.named(DATA)) == 65_535
    small = len(peer.body(5))
    peer.calls[2].stream.send(b"new")  # must not overtake those who wait
    peer.say(window(0, 60_000))
    assert len(peer.body(3)) == 60_005
    assert len(peer.body(5)) >= small
    peer.say(window(0, 1 << 20))
    assert peer.body(5) == message(b"x" * 60_000) + message(b"new")


def test_who_waited_for_the_window_and_is_gone_holds_up_nobody() -> None:
    peer = Peer(react=echo).greet(window=1 << 20)
    for stream in (1, 3, 5):
        peer.say(headers(stream) + data(stream, message(b"hello")))
    peer.calls[0].stream.send(b"x" * 100_000)
    peer.heard()
    peer.calls[1].stream.send(b"y")
    peer.say(rst(1) + rst(3) + window(0, 1 << 20))
    woken: list[bool] = []
    peer.connection.output.wake = lambda: woken.append(True)
    peer.calls[2].stream.send(b"new")
    assert woken
    peer.heard()
    assert peer.body(5) == message(b"hello") + message(b"new")


def test_a_pause_holds_messages_and_the_clients_credit_until_it_ends() -> None:
    peer = Peer(Bounds(stream_window=100_000)).greet()
    peer.say(headers(1))
    call = peer.calls[0]
    call.stream.pause()
    for _ in range(6):
        peer.say(data(1, message(b"x" * 16_000)))
    assert call.messages == []
    assert not peer.named(WINDOW_UPDATE, 1)
    assert peer.connection.streams.held == 96_000
    peer.say(headers(3) + data(3, message(b"others go on")))
    assert peer.calls[1].messages == [b"others go on"]
    call.stream.resume()
    assert call.messages == []  # not while whoever resumes is still at it
    peer.heard()
    assert len(call.messages) == 6
    assert [int.from_bytes(each.payload, "big") for each in peer.named(WINDOW_UPDATE, 1)] == [6 * 16_005]
    assert peer.connection.streams.held == 0


def test_a_half_close_comes_behind_what_waited(peer: Peer) -> None:
    peer.say(headers(1))
    call = peer.calls[0]
    call.stream.pause()
    peer.say(data(1, message(b"last"), END_STREAM))
    assert not call.half
    call.stream.resume()
    peer.heard()
    assert (call.messages, call.half) == ([b"last"], True)


def test_a_call_may_pause_again_amid_what_waited() -> None:
    def one_at_a_time(call: Remembered, data: bytes) -> None:
        call.stream.pause()

    peer = Peer(react=one_at_a_time).greet()
    peer.say(headers(1) + data(1, message(b"1") + message(b"2") + message(b"3"), END_STREAM))
    for number in (1, 2, 3):
        assert len(peer.calls[0].messages) == number
        assert not peer.calls[0].half
        peer.calls[0].stream.resume()
        peer.heard()
    assert peer.calls[0].messages == [b"1", b"2", b"3"]
    assert peer.calls[0].half


def test_credit_comes_back_as_messages_are_taken(peer: Peer) -> None:
    peer.say(headers(1))
    for _ in range(500):
        peer.say(data(1, message(b"x" * 16_000)))
    assert peer.calls[0].messages == [b"x" * 16_000] * 500
    for stream in (0, 1):
        given = sum(int.from_bytes(each.payload, "big") for each in peer.named(WINDOW_UPDATE, stream))
        assert 500 * 16_005 - (4 << 20) < given <= 500 * 16_005


def test_answers_that_are_not_taken_hold_the_clients_messages_too() -> None:
    peer = Peer(Bounds(outbox=50_000), react=echo).greet(window=0)
    peer.say(headers(1))
    for _ in range(20):
        peer.say(data(1, message(b"x" * 16_000)))
    call = peer.calls[0]
    assert len(call.messages) == 4  # 50,000 bytes of answers
    peer.say(window(0, 1 << 20) + window(1, 1 << 20))
    assert len(call.messages) == 20
    assert peer.body(1) == message(b"x" * 16_000) * 20
    assert peer.connection.streams.held == 0


def test_nothing_is_written_while_the_peer_does_not_read() -> None:
    peer = Peer(react=echo).greet(window=1 << 30)
    peer.say(window(0, 1 << 30) + headers(1))
    peer.connection.writable(False)
    peer.out.clear()
    for _ in range(50):
        peer.say(data(1, message(b"x" * 16_000)))
    assert peer.out == []
    assert peer.connection.streams.held > 700_000
    peer.connection.writable(True)
    peer.heard()
    assert peer.body(1) == message(b"x" * 16_000) * 50


def test_a_thousand_calls_at_once_and_one_connection() -> None:
    peer = Peer(react=echo).greet(window=1 << 20)
    peer.say(window(0, 1 << 30))
    streams = range(1, 2001, 2)
    for stream in streams:
        peer.say(headers(stream))
    rng = Random(1)
    for stream in rng.sample(streams, len(streams)):
        peer.say(data(stream, message(b"%d" % stream)))
    assert all(peer.body(stream) == message(b"%d" % stream) for stream in streams)
    for call in peer.calls:
        call.stream.end()
    peer.heard()
    assert not peer.connection.streams.open
    assert not peer.connection.closing


def test_a_peer_that_begins_with_a_table_may_turn_it_off_later() -> None:
    peer = Peer()
    encoder = hpack.Encoder()
    first, second = (encoder.encode([*path("/test/Echo"), ("x-trace", "a")]) for _ in range(2))
    assert len(second) < len(first) / 2  # it uses its table
    peer.say(PREFACE + settings() + frame(HEADERS, END_HEADERS, 1, first) + frame(HEADERS, END_HEADERS, 3, second))
    peer.say(frame(SETTINGS, ACK))
    encoder.header_table_size = 0
    for number in range(5, 15, 2):
        peer.say(frame(HEADERS, END_HEADERS, number, encoder.encode([*path("/test/Echo"), ("x-trace", str(number))])))
    assert len(peer.calls) == 7
    assert {call.request.path for call in peer.calls} == {"/test/Echo"}
    assert peer.fault is None


def test_a_draining_server_serves_what_is_on_its_way_and_closes_when_all_is_done(peer: Peer) -> None:
    peer.say(headers(1))
    peer.connection.drain()
    goaway, question = peer.heard()
    assert (int.from_bytes(goaway.payload[:4], "big"), goaway.code) == (2**31 - 1, NO_ERROR)
    peer.say(headers(3))  # sent before it knew
    assert len(peer.calls) == 2
    [last] = peer.say(frame(PING, ACK, 0, question.payload))
    assert (int.from_bytes(last.payload[:4], "big"), last.code) == (3, NO_ERROR)
    peer.say(headers(5) + data(5, message(b"never")))
    assert len(peer.calls) == 2
    peer.calls[0].stream.end()
    peer.heard()
    assert not peer.connection.closing
    peer.calls[1].stream.end()
    peer.heard()
    assert peer.connection.closing


def test_a_drain_does_not_wait_for_a_peer_that_answers_no_ping(peer: Peer) -> None:
    peer.connection.drain()
    peer.heard()
    peer.tick(1.1)
    assert peer.connection.closing


def test_a_peer_that_came_while_we_drained_is_warned_before_its_streams_are_refused() -> None:
    peer = Peer()
    peer.connection.drain()
    peer.greet()
    peer.say(headers(1))
    assert peer.named(GOAWAY) == [], "one that is sent away at once comes again at once"
    peer.tick(1.1)
    goaway, question = peer.out[-2:]
    assert (int.from_bytes(goaway.payload[:4], "big"), goaway.code) == (2**31 - 1, NO_ERROR)
    peer.say(headers(3))  # sent before it knew
    assert len(peer.calls) == 2
    [last] = peer.say(frame(PING, ACK, 0, question.payload))
    assert (int.from_bytes(last.payload[:4], "big"), last.code) == (3, NO_ERROR)


def test_what_comes_behind_our_last_word_is_dropped_and_costs_little() -> None:
    """The peer knows by it that nothing became of them."""
    peer = Peer().greet()
    peer.say(headers(1))
    peer.connection.shut()
    peer.heard()
    for number in range(3, 4001, 2):
        peer.say(headers(number) + data(number, message(b"hello"), END_STREAM))
    assert (len(peer.calls), peer.fault) == (1, None)
    assert peer.named(RST_STREAM) == []


def test_finishing_ends_the_calls_that_are_left(peer: Peer) -> None:
    peer.say(headers(1))
    peer.connection.finish()
    peer.heard()
    assert peer.trailers(1)["grpc-status"] == "14"
    assert peer.connection.closing
    assert peer.fault == NO_ERROR
    assert CANCEL not in [each.code for each in peer.named(RST_STREAM)]
