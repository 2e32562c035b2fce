"""Peers that want to cost us much for little: each kind has its bound, and hits only itself.

The clock stands still unless a test moves it, so the bounds on what may come at once are exact.
"""

from collections.abc import Callable, Iterator
from itertools import count
from struct import pack

import hpack
import pytest
from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.http2.bounds import Allowance, Bounds

from tests.unit.http2.peer import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    Peer,
    block,
    data,
    echo,
    fields,
    frame,
    frames,
    headers,
    message,
    rst,
    settings,
    window,
)

BURST, PER_S = 1_000, 100
BOUNDS = Bounds(idle_work=BURST, idle_work_per_s=PER_S)


@pytest.fixture
def peer() -> Peer:
    return Peer(BOUNDS).greet()


def odd() -> Iterator[int]:
    return count(3, 2)


def pings() -> Iterator[bytes]:
    return (frame(PING, 0, 0, b"12345678") for _ in count())


def pongs() -> Iterator[bytes]:
    return (frame(PING, ACK, 0, b"12345678") for _ in count())


def setting() -> Iterator[bytes]:
    return (settings() for _ in count())


def acks() -> Iterator[bytes]:
    return (frame(SETTINGS, ACK) for _ in count())


def empty_data() -> Iterator[bytes]:
    return (data(1, b"") for _ in count())


def padding_only() -> Iterator[bytes]:
    return (data(1, b"\x05" + b"\0" * 5, 8) for _ in count())


def a_byte_at_a_time() -> Iterator[bytes]:
    yield data(1, message(b"x" * 100_000)[:5])
    yield from (data(1, b"x") for _ in count())


def priorities() -> Iterator[bytes]:
    return (frame(PRIORITY, 0, stream, b"\0\0\0\1\x10") for stream in odd())


def tiny_credit() -> Iterator[bytes]:
    return (window(1, 1) for _ in count())


def unknown_frames() -> Iterator[bytes]:
    return (frame(77, 0, 0, b"") for _ in count())


def goaways() -> Iterator[bytes]:
    return (frame(GOAWAY, 0, 0, pack(">LL", 0, 0)) for _ in count())


def late_resets() -> Iterator[bytes]:
    yield rst(1)
    yield from (rst(1) for _ in count())


def late_data() -> Iterator[bytes]:
    yield rst(1)
    yield from (data(1, b"x" * 100) for _ in count())


@pytest.mark.parametrize(
    "flood",
    [
        pings,
        pongs,
        setting,
        acks,
        empty_data,
        padding_only,
        a_byte_at_a_time,
        priorities,
        tiny_credit,
        unknown_frames,
        goaways,
        late_resets,
        late_data,
    ],
)
def test_frames_that_carry_nothing_are_taken_up_to_a_bound(peer: Peer, flood: Callable[[], Iterator[bytes]]) -> None:
    peer.say(headers(1))
    taken = until_cut(peer, flood(), 2 * BURST)
    assert BURST // 6 < taken <= BURST + 10
    assert peer.fault == ENHANCE_YOUR_CALM
    assert peer.calls[0].over == 1


def until_cut(peer: Peer, flood: Iterator[bytes], at_most: int) -> int:
    for number, each in zip(range(at_most), flood, strict=False):
        peer.say(each)
        if peer.connection.closing:
            return number
    return at_most


def test_the_same_frames_at_a_rate_that_clients_have_are_welcome_for_ever(peer: Peer) -> None:
    for _ in range(200):
        for each in zip(range(PER_S // 2), pings(), strict=False):
            peer.say(each[1])
        peer.now += 1.0
    assert peer.fault is None
    assert len(peer.named(PING)) == 200 * (PER_S // 2)


def rapid_resets() -> Iterator[bytes]:
    """CVE-2023-44487."""
    return (headers(stream) + rst(stream) for stream in odd())


def requests_taken_back() -> Iterator[bytes]:
    """As a gateway whose clients all leave at once."""
    return (headers(stream) + data(stream, message(b"request")) + rst(stream) for stream in odd())


def half_closed_resets() -> Iterator[bytes]:
    return (headers(stream, flags=END_HEADERS | END_STREAM) + rst(stream) for stream in odd())


def provoked_resets() -> Iterator[bytes]:
    """CVE-2025-8671: it makes us reset what it opened."""
    return (headers(stream) + window(stream, 2**31 - 1) for stream in odd())


def malformed_requests() -> Iterator[bytes]:
    bad = block(headers=[(":method", "POST")])
    return (frame(HEADERS, END_HEADERS, stream, bad) for stream in odd())


def large_requests() -> Iterator[bytes]:
    large = block(*((f"x-{number}", "y" * 100) for number in range(300)))
    for stream in odd():
        yield frame(HEADERS, 0, stream, large[:16_000])
        yield frame(CONTINUATION, END_HEADERS, stream, large[16_000:])


def ever_new_headers() -> Iterator[bytes]:
    """Answered, and each takes us time to decode."""
    for stream in odd():
        yield headers(stream, (f"x-{stream}", f"{stream}" * 100)) + data(stream, message(b"x"))
        yield rst(stream)


@pytest.mark.parametrize(
    "flood",
    [
        rapid_resets,
        requests_taken_back,
        half_closed_resets,
        provoked_resets,
        malformed_requests,
        large_requests,
        ever_new_headers,
    ],
)
def test_requests_that_are_taken_back_are_served_up_to_a_bound(
    peer: Peer, flood: Callable[[], Iterator[bytes]]
) -> None:
    peer.connection.streams.headers._decoder.header_table_size = 0
    until_cut(peer, flood(), 8 * BURST)
    assert peer.fault == ENHANCE_YOUR_CALM
    said_something = flood in (requests_taken_back, ever_new_headers)
    assert len(peer.calls) <= BURST / (Allowance.TAKEN_BACK if said_something else Allowance.RESET) + 1
    assert all(call.over == 1 for call in peer.calls)
    assert peer.shared.streams == 0


def test_envoys_way_to_end_each_answered_stream_by_a_reset_is_no_flood() -> None:
    peer = Peer(BOUNDS, react=echo).greet(window=1 << 20)
    peer.say(window(0, 1 << 30))
    for stream, _ in zip(odd(), range(2 * BURST), strict=False):
        peer.connection.receive(headers(stream) + data(stream, message(b"request")))
        peer.connection.take()
        peer.connection.receive(rst(stream))
    assert not peer.connection.closing
    assert len(peer.calls) == 2 * BURST


def test_a_header_block_has_a_bound_in_frames_and_bytes() -> None:
    """CVE-2024-27316."""
    peer = Peer(Bounds(header_frames=8)).greet()
    peer.say(frame(HEADERS, 0, 1, b""))
    taken = until_cut(peer, (frame(CONTINUATION, 0, 1, b"") for _ in count()), 100)
    assert (peer.fault, taken) == (ENHANCE_YOUR_CALM, 7)
    other = Peer(Bounds(header_list=10_000)).greet()
    other.say(frame(HEADERS, 0, 1, b"\0" * 16_000) + frame(CONTINUATION, 0, 1, b"\0" * 16_000))
    assert other.fault == ENHANCE_YOUR_CALM


def test_a_header_list_above_the_bound_costs_its_stream_where_no_table_is_touched() -> None:
    peer = Peer(Bounds(header_list=2000)).greet()
    peer.say(frame(HEADERS, END_HEADERS, 1, b"\x20" + block()))  # the table is off from here on
    peer.say(headers(3, *((f"x-{number}", "y" * 50) for number in range(30))))
    [answer] = peer.named(HEADERS, 3)
    assert fields(answer.payload) == {":status": "431"}
    peer.say(headers(5))
    assert len(peer.calls) == 2
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, 5, block(("x", "y" * 3000), headers=[]))
    peer.say(trailers)
    assert [each.code for each in peer.named(RST_STREAM, 5)] == [PROTOCOL_ERROR]
    assert peer.fault is None


def test_a_small_block_that_unpacks_to_much_is_cut_off() -> None:
    """The HPACK bomb: one large field in the table, then references of a byte each."""
    peer = Peer()
    peer.say(PREFACE + settings())
    encoder = hpack.Encoder()
    bomb = encoder.encode([("x-bomb", "b" * 3000)]) + b"\xbe" * 10_000
    peer.say(frame(HEADERS, END_HEADERS, 1, bytes(bomb)))
    assert peer.fault == ENHANCE_YOUR_CALM
    assert not peer.calls


@pytest.mark.parametrize(
    "bad",
    [
        b"\x20" * 3 + block(),  # more table size updates than have a use
        b"\x3f\xe1\x1f" + block(),  # a table larger than we allow
        b"\x80",  # no such index
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # an integer without end
        b"\x00\x7f\xff\xff\xff\xff\x0f",  # a length beyond all that is there
        b"\x40\x05ab",  # cut
        b"\x00\x81\xff\x01a",  # Huffman padding
    ],
)
def test_a_block_that_cannot_be_read_ends_the_connection(peer: Peer, bad: bytes) -> None:
    peer.say(frame(HEADERS, END_HEADERS, 1, bad))
    assert peer.fault == COMPRESSION_ERROR
    other = Peer().greet()
    other.say(frame(HEADERS, END_HEADERS, 1, b"\x20" + block()))
    other.say(frame(HEADERS, END_HEADERS, 3, bad))
    assert other.fault == COMPRESSION_ERROR


@pytest.mark.parametrize(
    "extra",
    [
        [("X-Upper", "case")],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("te", "gzip")],
        [(":path", "/again")],
        [(":unknown", "pseudo")],
        [("content-length", "5"), ("content-length", "6")],
        [("content-length", "+5")],
        [("content-length", "9" * 40)],
        [("grpc-timeout", "5 parsecs")],
        [("x", "a\r\nb: c")],
        [("x", " padded ")],
        [("", "no name")],
        [("x y", "space")],
    ],
)
def test_a_malformed_request_costs_its_stream(peer: Peer, extra: list[tuple[str, str]]) -> None:
    peer.say(headers(1, *extra) + headers(3))
    assert [(each.stream, each.code) for each in peer.named(RST_STREAM)] == [(1, PROTOCOL_ERROR)]
    assert len(peer.calls) == 1


def test_more_streams_than_the_bound_are_refused_and_may_be_tried_again() -> None:
    peer = Peer(Bounds(streams=2)).greet()
    peer.say(headers(1) + headers(3) + headers(5))
    assert [(each.stream, each.code) for each in peer.named(RST_STREAM)] == [(5, REFUSED_STREAM)]
    peer.say(rst(1) + headers(7))
    assert len(peer.calls) == 3


def test_all_connections_together_have_a_bound_of_streams() -> None:
    peer = Peer(Bounds(all_streams=3)).greet()
    peer.say(headers(1) + headers(3))
    other = Peer(Bounds(all_streams=3))
    other.shared = peer.shared
    other.connection = other.connect()
    other.greet().say(headers(1) + headers(3))
    assert [(each.stream, each.code) for each in other.named(RST_STREAM)] == [(3, REFUSED_STREAM)]
    peer.connection.lost()
    other.say(headers(5))
    assert len(other.calls) == 2


def test_more_than_the_window_ends_stream_or_connection() -> None:
    bounds = Bounds(stream_window=20_000, connection_window=70_000)
    peer = Peer(bounds).greet()
    peer.say(headers(1) + data(1, b"\0\0\1\0\0" + b"x" * 9_000) + data(1, b"x" * 9_000) + data(1, b"x" * 9_000))
    # Credit is returned for what is taken, which bytes of a message in the making are.
    assert peer.fault is None
    peer.calls[0].stream.pause()
    for _ in range(4):
        peer.say(data(1, b"x" * 9_000))
    assert [each.code for each in peer.named(RST_STREAM, 1)] == [FLOW_CONTROL_ERROR]
    greedy = Peer(Bounds(stream_window=1 << 20, connection_window=70_000)).greet()
    greedy.say(headers(1) + b"".join(data(1, b"\0\0\2\0\0" + b"x" * 16_000) for _ in range(5)))
    assert greedy.fault == FLOW_CONTROL_ERROR


def test_credit_of_a_connection_waits_where_its_streams_hold_much() -> None:
    bounds = Bounds(stream_window=100_000, connection_window=200_000)
    peer = Peer(bounds).greet()
    for stream in range(1, 9, 2):
        peer.say(headers(stream))
        peer.calls[-1].stream.pause()
        peer.say(b"".join(data(stream, message(b"x" * 16_000)) for _ in range(5)))
    given = sum(int.from_bytes(each.payload, "big") for each in peer.named(8, 0))
    assert given < 320_000  # not for all that came
    assert peer.connection.streams.held == 320_000
    peer.calls[0].stream.resume()
    peer.calls[1].stream.resume()
    peer.heard()
    assert sum(int.from_bytes(each.payload, "big") for each in peer.named(8, 0)) > given


def test_messages_that_are_never_completed_have_a_bound_together() -> None:
    peer = Peer(Bounds(held=100_000)).greet()
    for stream in range(1, 21, 2):
        peer.say(headers(stream))
        peer.say(data(stream, b"\0\0\2\0\0" + b"x" * (15_000 + stream)))
    assert peer.shared.held <= 100_000
    assert peer.sheds == 4
    shed = [each.stream for each in peer.named(RST_STREAM)]
    assert shed == [13, 15, 17, 19]  # the largest at that moment
    assert sum(call.over for call in peer.calls) == 4


def test_answers_that_nobody_takes_have_a_bound_together_and_in_time() -> None:
    peer = Peer(Bounds(held=100_000, stalled_s=300, first_message_s=1e9)).greet(window=0)
    for stream in range(1, 21, 2):
        peer.say(headers(stream))
        if peer.calls[-1].over == 0:
            peer.calls[-1].stream.send(b"x" * 30_000)
            peer.heard()
    assert peer.shared.held <= 100_000
    waiting = len(peer.connection.streams.open)
    assert waiting == 3
    for _ in range(15):
        assert alive(peer, 20)
    assert len(peer.connection.streams.open) == waiting
    assert alive(peer, 21)
    assert not peer.connection.streams.open
    assert {each.code for each in peer.named(RST_STREAM)} == {CANCEL, ENHANCE_YOUR_CALM}


def alive(peer: Peer, seconds: float) -> bool:
    """It answers our question for a sign of life, whatever else it does."""
    for _ in range(int(seconds)):
        if not peer.tick(1.0):
            return False
        peer.say(frame(PING, ACK, 0, b"alive?  "))
    return True


def test_a_stream_that_makes_progress_is_not_stalled() -> None:
    peer = Peer(Bounds(stalled_s=30, first_message_s=1e9)).greet(window=0)
    peer.say(headers(1))
    peer.calls[0].stream.send(b"x" * 1000)
    for _ in range(20):
        assert alive(peer, 20)
        peer.say(window(1, 10))
    assert peer.connection.streams.open


@pytest.mark.parametrize("credit", [window(1, 10_000), settings(window=10_000)], ids=["its own", "every stream's"])
def test_a_stream_that_waited_once_and_has_nothing_to_send_is_not_stalled(credit: bytes) -> None:
    peer = Peer(Bounds(stalled_s=30, first_message_s=1e9)).greet(window=0)
    peer.say(headers(1))
    peer.calls[0].stream.send(b"x" * 1000)
    peer.heard()
    peer.say(credit)
    assert peer.connection.output.blocked == []
    for _ in range(20):
        assert alive(peer, 20)
        peer.calls[0].stream.send(b"x" * 10)
        peer.heard()
    assert peer.connection.streams.open
    assert peer.named(RST_STREAM) == []


def test_windows_that_grow_by_a_byte_are_no_way_to_make_us_write_for_ever() -> None:
    peer = Peer(BOUNDS).greet(window=0)
    peer.say(headers(1))
    peer.calls[0].stream.send(b"x" * 1_000_000)
    taken = until_cut(peer, (window(1, 1) for _ in count()), 2 * BURST)
    assert taken <= BURST + 10
    assert peer.fault == ENHANCE_YOUR_CALM


def test_settings_that_change_all_windows_again_and_again_are_cut_off() -> None:
    peer = Peer(BOUNDS).greet(window=0)
    for stream in range(1, 2001, 2):
        peer.say(headers(stream))
        peer.calls[-1].stream.send(b"x")
    taken = until_cut(peer, (settings(window=number % 2) for number in count()), BURST)
    assert peer.fault == ENHANCE_YOUR_CALM
    assert taken < 2 * BURST / 100 + 10  # a unit for ten streams that have to look


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (settings(window=2**31), FLOW_CONTROL_ERROR),
        (settings(frame=100), PROTOCOL_ERROR),
        (settings(push=2), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, b"123456"), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"1234"), FRAME_SIZE_ERROR),
        (frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
        (window(0, 0), PROTOCOL_ERROR),
        (window(0, 2**31 - 1), FLOW_CONTROL_ERROR),
        (window(9, 1), PROTOCOL_ERROR),  # a stream that isn't there
        (rst(9), PROTOCOL_ERROR),
        (rst(0), PROTOCOL_ERROR),
        (data(9, b"x"), PROTOCOL_ERROR),
        (data(0, b"x"), PROTOCOL_ERROR),
        (data(1, b"\x09abc", 8), PROTOCOL_ERROR),  # padding
        (data(1, b"", 8), FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS, 2, block()), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, block()), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | 32, 3, b"\0\0\0"), FRAME_SIZE_ERROR),
        (frame(HEADERS, 0, 3, b"") + headers(5), PROTOCOL_ERROR),  # amid a block
        (frame(HEADERS, 0, 3, b"") + frame(CONTINUATION, 0, 5, b""), PROTOCOL_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
        (frame(5, END_HEADERS, 1, b"\0\0\0\2"), PROTOCOL_ERROR),  # a push
        (frame(PRIORITY, 0, 0, b"12345"), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 1, b"12345678"), PROTOCOL_ERROR),
        (b"\xff\xff\xff\0\0\0\0\0\1", FRAME_SIZE_ERROR),
        (headers(7) + headers(5), PROTOCOL_ERROR),  # below the newest
    ],
)
def test_a_broken_rule_of_the_connection_ends_it_with_the_right_code(peer: Peer, bad: bytes, code: int) -> None:
    peer.say(headers(1))
    peer.say(bad)
    assert peer.fault == code
    assert peer.calls[0].over == 1
    assert peer.say(headers(11) + frame(PING, 0, 0, b"12345678")) == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (window(1, 0), PROTOCOL_ERROR),
        (window(1, 2**31 - 1), FLOW_CONTROL_ERROR),
        (frame(PRIORITY, 0, 1, b"1234"), FRAME_SIZE_ERROR),
        (headers(1), PROTOCOL_ERROR),  # trailers that end nothing
        (data(1, b"x", END_STREAM) + data(1, b"x"), STREAM_CLOSED),
        (frame(HEADERS, 5, 1, block(("UPPER", "x"), headers=[])), PROTOCOL_ERROR),
    ],
)
def test_a_broken_rule_of_a_stream_ends_that(peer: Peer, bad: bytes, code: int) -> None:
    peer.say(headers(1) + headers(3))
    peer.say(bad)
    assert code in [each.code for each in peer.named(RST_STREAM, 1)] or bad.startswith(data(1, b"x", END_STREAM))
    assert peer.fault is None
    assert peer.calls[0].over == 1
    peer.say(data(3, message(b"others go on")))
    assert peer.calls[1].messages == [b"others go on"]


def test_a_length_that_is_not_true_ends_the_stream(peer: Peer) -> None:
    peer.say(headers(1, ("content-length", "7")) + data(1, message(b"ab"), END_STREAM))
    assert peer.calls[0].half
    peer.say(headers(3, ("content-length", "8")) + data(3, message(b"ab"), END_STREAM))
    assert [(each.stream, each.code) for each in peer.named(RST_STREAM)] == [(3, PROTOCOL_ERROR)]


# Time.


@pytest.mark.parametrize("said", [b"", PREFACE[:-1], PREFACE, PREFACE + settings(window=1)[:-1]])
def test_a_handshake_that_is_not_completed_ends_in_time(said: bytes) -> None:
    peer = Peer(Bounds(Connections(handshake_s=10)))
    peer.say(said)
    assert peer.tick(9.9)
    assert not peer.tick(0.2)


def test_a_frame_or_header_block_that_is_not_completed_ends_in_time() -> None:
    for said in (headers(1)[:-1], b"\0", frame(HEADERS, 0, 1, b"")):
        peer = Peer(Bounds(frame_s=30)).greet()
        peer.say(said)
        for second in range(40):
            if said[3:4] != b"\1" or len(said) > 9:  # one more byte now and then is no progress
                peer.say(b"\0" if second % 10 == 0 and len(said) < 9 and second < 30 else b"")
            if not peer.tick(1.0):
                break
        assert 29 <= second <= 31


def test_a_preface_that_comes_alone_is_no_slow_frame() -> None:
    peer = Peer(Bounds(frame_s=30))
    for said in (PREFACE, settings(), frame(SETTINGS, ACK)):
        peer.say(said)
    assert alive(peer, 40)


def test_many_frames_in_a_row_that_end_amid_the_next_one_are_no_slow_frame() -> None:
    peer = Peer(Bounds(frame_s=30)).greet()
    ping = frame(PING, 0, 0, b"12345678")
    peer.say(ping[:5])
    for _ in range(100):
        peer.say(ping[5:] + ping[:5])
        assert peer.tick(1.0)


def test_a_call_without_a_message_ends_in_time_and_a_quiet_one_after_it_does_not() -> None:
    peer = Peer(Bounds(first_message_s=60)).greet()
    peer.say(headers(1) + headers(3) + data(3, message(b"hello")))
    peer.say(frame(HEADERS, END_HEADERS, 5, block(headers=[*block_of("GET")])))  # refused, and never ended
    assert alive(peer, 59)
    assert len(peer.connection.streams.open) == 3
    assert alive(peer, 3)
    assert list(peer.connection.streams.open) == [3]
    assert [each.code for each in peer.named(RST_STREAM)] == [CANCEL, CANCEL]
    assert alive(peer, 3600)
    assert list(peer.connection.streams.open) == [3]


def block_of(method: str) -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "http"), (":path", "/")]


def test_a_silent_peer_is_asked_for_a_sign_of_life_and_cut_without_one() -> None:
    peer = Peer(Bounds(Connections(ping_s=30, pong_s=20))).greet()
    peer.say(headers(1))
    assert peer.tick(31)
    [question] = peer.named(PING)
    assert not question.flags
    assert peer.tick(19)
    peer.say(frame(PING, ACK, 0, question.payload))
    assert peer.tick(29)
    assert peer.tick(2)
    assert len(peer.named(PING)) == 2
    assert not peer.tick(21)


def test_a_peer_that_reads_nothing_for_long_is_dead() -> None:
    peer = Peer(Bounds(Connections(ping_s=30, pong_s=20))).greet()
    peer.connection.writable(False)
    assert peer.tick(31)
    assert not peer.tick(21)
    slow = Peer(Bounds(Connections(ping_s=30, pong_s=20))).greet()
    for _ in range(10):
        slow.connection.writable(False)
        assert slow.tick(31)
        slow.connection.writable(True)
        slow.heard()


def test_a_connection_without_streams_is_closed_in_good_order_after_long() -> None:
    peer = Peer(Bounds(Connections(idle_s=900))).greet()
    peer.say(headers(1) + data(1, message(b"x")))
    assert alive(peer, 2000)
    peer.say(rst(1))
    assert alive(peer, 899)
    assert not peer.named(GOAWAY)
    alive(peer, 5)
    assert [each.code for each in peer.named(GOAWAY)] == [0, 0]
    assert peer.connection.closing


def test_one_turn_of_the_loop_takes_a_bounded_number_of_frames() -> None:
    peer = Peer(Bounds(turn_frames=10)).greet()
    peer.connection.receive(b"".join(frame(PING, 0, 0, b"12345678") for _ in range(25)))
    counts = []
    while True:
        counts.append(len(list(frames(peer.connection.take()))))
        if not peer.connection.more:
            break
        peer.connection.receive(b"")
    assert counts == [10, 10, 5]


def test_a_call_that_raises_costs_its_stream_only(caplog: pytest.LogCaptureFixture) -> None:
    def fail(call: object, data: bytes) -> None:
        raise RuntimeError("a defect")

    peer = Peer(react=fail).greet()
    peer.say(headers(1) + data(1, message(b"x")) + headers(3))
    assert [(each.stream, each.code) for each in peer.named(RST_STREAM)] == [(1, 2)]
    assert peer.fault is None
    assert peer.calls[0].over == 1
    assert "a defect" in caplog.text


def test_a_call_that_raises_as_it_ends_keeps_no_other_open(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    peer.say(headers(1) + headers(3))
    peer.calls[0].closed = fail  # type: ignore[method-assign]
    peer.connection.lost()
    assert (peer.calls[1].over, peer.shared.streams) == (1, 0)
    assert "a defect" in caplog.text
