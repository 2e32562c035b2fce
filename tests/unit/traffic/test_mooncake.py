"""Mooncake-format traces: what is read from them, and what is said of those that can't be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multipick_sim.traffic.mooncake import BLOCK_TOKENS, MAX_LINE_BYTES, TraceError, read_trace
from multipick_sim.traffic.plan import ANSWER_OPENING_TOKENS, Session

Write = Callable[..., Path]
GOOD = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [0, 1]}


@pytest.fixture
def trace(tmp_path: Path) -> Write:
    def write(*lines: dict[str, Any] | str) -> Path:
        path = tmp_path / "trace.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    return write


def prompt_tokens(session: Session) -> int:
    return sum(message.tokens for message in session.turns[0].messages) + ANSWER_OPENING_TOKENS


@pytest.mark.parametrize("length", [9, 100, 511, 512, 521, 1024, 6758])
def test_a_prompt_has_its_input_length(trace: Write, length: int) -> None:
    ids = list(range(-(-length // BLOCK_TOKENS)))
    [session] = read_trace(trace({"timestamp": 5, "input_length": length, "output_length": 7, "hash_ids": ids}))
    assert prompt_tokens(session) == length
    assert session.turns[0].output_tokens == 7


@pytest.mark.parametrize("length", [1, 8, 513, 520])
def test_a_tail_too_short_for_a_message_becomes_the_shortest_one(trace: Write, length: int) -> None:
    ids = list(range(-(-length // BLOCK_TOKENS)))
    [session] = read_trace(trace({"timestamp": 0, "input_length": length, "output_length": 1, "hash_ids": ids}))
    assert prompt_tokens(session) == BLOCK_TOKENS * (len(ids) - 1) + 9


def test_every_id_but_the_last_takes_512_tokens(trace: Write) -> None:
    [session] = read_trace(trace({"timestamp": 0, "input_length": 1600, "output_length": 1, "hash_ids": [4, 9, 2, 7]}))
    assert [message.tokens for message in session.turns[0].messages][:-1] == [BLOCK_TOKENS] * 3


def test_equal_ids_are_equal_messages_and_others_are_not(trace: Write) -> None:
    first, second = read_trace(
        trace(
            {"timestamp": 0, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 3]},
            {"timestamp": 0, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 4]},
        )
    )
    mine, theirs = first.turns[0].messages, second.turns[0].messages
    assert mine[:2] == theirs[:2]
    assert mine[2] != theirs[2]


def test_requests_come_in_order_of_time_and_the_first_comes_at_zero(trace: Write) -> None:
    sessions = read_trace(trace({**GOOD, "timestamp": 9500}, {**GOOD, "timestamp": 8000}, {**GOOD, "timestamp": 8250}))
    assert [session.start_s for session in sessions] == [0, 0.25, 1.5]


def test_only_as_many_lines_are_read_as_asked_for(trace: Write) -> None:
    assert len(read_trace(trace(GOOD, GOOD, "no request"), requests=2)) == 2


def test_blank_lines_and_unknown_fields_are_skipped(trace: Write) -> None:
    assert len(read_trace(trace("", {**GOOD, "chat_id": "x"}, "  ", GOOD))) == 2


@pytest.mark.parametrize(
    "bad",
    [
        "no json",
        "[]",
        '{"timestamp": 0}',
        {**GOOD, "timestamp": -1},
        {**GOOD, "timestamp": "0"},
        {**GOOD, "input_length": 0},
        {**GOOD, "input_length": 1 << 40},
        {**GOOD, "output_length": 0},
        {**GOOD, "output_length": 1 << 40},
        {**GOOD, "hash_ids": []},
        {**GOOD, "hash_ids": [1]},
        {**GOOD, "hash_ids": [1, 2, 3]},
        {**GOOD, "hash_ids": [1, -2]},
        {**GOOD, "hash_ids": [1, 2.5]},
        {**GOOD, "hash_ids": list(range(4000))},
        "[" * 100_000,
        " " * (MAX_LINE_BYTES + 2),
        '{"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [0, "\udc80"]}'.encode(
            errors="surrogateescape"
        ).decode("latin-1"),
    ],
)
def test_a_bad_line_is_named_by_its_number(trace: Write, bad: dict[str, Any] | str) -> None:
    with pytest.raises(TraceError, match=r"trace\.jsonl, line 3: "):
        read_trace(trace(GOOD, GOOD, bad, GOOD))


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b'{"timestamp": 0, "x": "\xff\xfe"}\n')
    with pytest.raises(TraceError, match="line 1: "):
        read_trace(path)


def test_an_empty_file_is_refused(trace: Write) -> None:
    with pytest.raises(TraceError, match="no requests"):
        read_trace(trace())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"missing\.jsonl: No such file"):
        read_trace(tmp_path / "missing.jsonl")
