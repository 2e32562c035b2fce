"""An answer is read the same however it is cut, and what isn't one costs no more than its bounds."""

import pytest
from multipick_epp.engines import Unanswered, Why, bounds
from multipick_epp.engines.http_answer import AnswerReader

BODY = b"vllm:num_requests_running 3.0\n"
OK = b"HTTP/1.1 200 OK\r\n"
LIMIT = 100_000

WHOLE = {
    "with a length": OK + b"Content-Length: 30\r\n\r\n" + BODY,
    "in one chunk": OK + b"transfer-encoding: chunked\r\n\r\n1e\r\n" + BODY + b"\r\n0\r\n\r\n",
    "in chunks": OK
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in BODY)
    + b"0\r\ntrailer: 1\r\n\r\n",
    "after interim ones": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    + OK
    + b"content-length: 30\r\ncontent-encoding: identity\r\n\r\n"
    + BODY,
}


def read(reader: AnswerReader, data: bytes, size: int) -> bytes | Unanswered | None:
    answers = [reader.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert answers[:-1] == [None] * (len(answers) - 1)
    return answers[-1]


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
def test_an_answer_is_whole_however_it_is_cut(data: bytes, size: int) -> None:
    reader = AnswerReader(LIMIT)
    for _ in range(3):  # one after the other, over the same connection
        reader.begin()
        assert read(reader, data, size) == BODY
        assert reader.stays


@pytest.mark.parametrize("first", [b"HTTP/1.0 200 OK\r\n", OK + b"connection: close\r\n", OK])
def test_an_answer_without_a_length_ends_with_the_connection(first: bytes) -> None:
    reader = AnswerReader(LIMIT)
    assert reader.feed(first + b"\r\n" + BODY) is None
    assert reader.end() == BODY
    assert not reader.stays


def test_a_server_that_closes_after_its_answer_is_not_asked_again_there() -> None:
    reader = AnswerReader(LIMIT)
    assert reader.feed(OK + b"connection: close\r\ncontent-length: 30\r\n\r\n" + BODY) == BODY
    assert not reader.stays


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
def test_a_connection_that_ends_within_an_answer_has_none(data: bytes) -> None:
    for size in range(1, len(data)):
        reader = AnswerReader(LIMIT)
        assert reader.feed(data[:size]) is None
        assert isinstance(reader.end(), Unanswered)
        assert not reader.stays


def test_a_connection_that_ends_before_anything_came_says_nothing() -> None:
    reader = AnswerReader(LIMIT)
    assert reader.end() is None
    assert reader.lost() is None


def test_a_connection_that_breaks_has_no_answer_even_where_its_end_would_be_one() -> None:
    reader = AnswerReader(LIMIT)
    assert reader.feed(OK + b"\r\n" + BODY) is None
    assert isinstance(reader.lost(), Unanswered)


def test_another_status_is_refused_before_its_body() -> None:
    reader = AnswerReader(LIMIT)
    refused = reader.feed(b"HTTP/1.1 503 Busy\r\ncontent-length: 30\r\n\r\n")
    assert refused == Unanswered(Why.REFUSED, "status 503", 503)
    assert not reader.stays


@pytest.mark.parametrize(
    ("head", "piece", "why"),
    [
        (OK, b"x: " + b"y" * 1_000 + b"\r\n", Why.AWAY),
        (OK + b"x: ", b"y" * 1_000, Why.AWAY),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", Why.AWAY),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", Why.AWAY),
        (OK + b"transfer-encoding: chunked\r\n\r\n1", b";extension" * 100, Why.AWAY),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"trailer: 1\r\n", Why.AWAY),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"400\r\n" + b"x" * 1_024 + b"\r\n", Why.TOO_LONG),
        (OK + b"content-length: 99999999\r\n\r\n", b"x" * 1_000, Why.TOO_LONG),
        (OK + b"\r\n", b"x" * 1_000, Why.TOO_LONG),
    ],
)
def test_what_has_no_end_is_cut_off(head: bytes, piece: bytes, why: Why) -> None:
    reader = AnswerReader(LIMIT)
    answer, size = reader.feed(head) if head else None, len(head)
    while answer is None:
        answer, size = reader.feed(piece), size + len(piece)
        assert size < LIMIT + bounds.AROUND_BODY_BYTES + len(piece) + len(head)
    assert isinstance(answer, Unanswered)
    assert answer.why is why
    assert not reader.stays


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/3.7 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        OK + b"content-length: 99999999999999999999999\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        OK + b"no colon\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        OK + b"content-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n",
    ],
)
def test_what_is_no_answer_is_none(data: bytes) -> None:
    reader = AnswerReader(LIMIT)
    answer = reader.feed(data)
    assert isinstance(answer, Unanswered)
    assert answer.why is Why.AWAY
    assert len(str(answer)) < 300
    assert not reader.stays
