"""Streamed answers, cut anywhere: first token, text and usage come out the same."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from multipick_sim.traffic.sse import Answer, AnswerError, Usage

RECORDING = Path(__file__).parents[2] / "fixtures" / "A_sha256_bs32_31blocks" / "steps.jsonl"


def recorded(step: str) -> bytes:
    """A stream of the real engine."""
    for line in RECORDING.read_text().splitlines():
        record = json.loads(line)
        if record["step"] == step:
            return b"".join(text.encode() for _, text in record["sse"])
    raise LookupError(step)


CHAT = recorded("4 SSE stream include_usage")
COMPLETION = recorded("6 decode 80 from 100")


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


USAGE = event(
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    }
)
DONE = b"data: [DONE]\n\n"
SHORT = delta("") + delta(' "a\\') + delta("ü\n", "length") + USAGE + DONE


def answer(*chunks: bytes) -> Answer:
    collected = Answer()
    for number, chunk in enumerate(chunks):
        collected.feed(chunk, float(number))
    return collected


def first_token_offset(stream: bytes) -> int:
    """How many bytes must have come before the first token is known, found byte by byte."""
    collected = answer(*(stream[index : index + 1] for index in range(len(stream))))
    assert collected.first_token_at is not None
    return int(collected.first_token_at)


def halves(stream: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    for cut in range(len(stream) + 1):
        yield cut, stream[:cut], stream[cut:]


@pytest.mark.parametrize("stream", [SHORT, CHAT], ids=["short", "recorded"])
def test_a_stream_cut_at_any_byte_reads_the_same(stream: bytes) -> None:
    whole = answer(stream)
    known_at = first_token_offset(stream)
    for cut, before, after in halves(stream):
        parts = answer(before, after)
        assert parts.finish() == whole.finish()
        assert parts.text_json() == whole.text_json()
        assert parts.first_token_at == (0.0 if cut > known_at else 1.0)


def test_the_first_token_is_the_first_text_not_the_opening_of_the_chat() -> None:
    opening = CHAT.index(b"\n\n") + 2
    collected = answer(CHAT[:opening])
    assert collected.first_token_at is None
    collected.feed(CHAT[opening:], 8.0)
    assert collected.first_token_at == 8.0


def test_the_usage_of_the_real_engine_is_read() -> None:
    assert answer(CHAT).finish() == Usage(prompt_tokens=344, output_tokens=6, cached_tokens=320)
    assert answer(COMPLETION).finish() == Usage(prompt_tokens=100, output_tokens=80, cached_tokens=0)


def test_continuous_usage_gives_the_last_count() -> None:
    assert answer(recorded("4b SSE continuous_usage_stats")).finish() == Usage(344, 3, 320)


def test_the_text_is_all_deltas_joined() -> None:
    assert json.loads(answer(SHORT).text_json()) == ' "a\\ü\n'


@pytest.mark.parametrize("stream", [CHAT, COMPLETION], ids=["chat", "completion"])
def test_the_text_of_the_real_engine_is_read(stream: bytes) -> None:
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    expected = "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices)
    assert json.loads(answer(stream).text_json()) == expected
    assert expected


def test_text_that_looks_like_an_event_stays_text() -> None:
    tricky = '"usage":{"prompt_tokens":1} "content":"x" "finish_reason":"abort"'
    collected = answer(delta(tricky) + USAGE + DONE)
    assert collected.finish() == Usage(9, 2, 4)
    assert json.loads(collected.text_json()) == tricky


def test_an_engine_that_reports_no_cached_tokens_leaves_them_unknown() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    assert answer(delta("a") + usage + DONE).finish().cached_tokens is None


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "cut"),
        (delta("a"), "cut"),
        (delta("a") + USAGE + DONE[:-4], "cut"),
        (delta("a") + DONE, "no usage"),
        (delta("", "abort") + USAGE + DONE, "aborted"),
        (delta("a") + event({"usage": {"prompt_tokens": None}}) + DONE, "unreadable usage"),
        (
            delta("a")
            + event({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": 7}})
            + DONE,
            "unreadable",
        ),
        (delta("a") + b'data: {"usage":{"prompt\n\n' + DONE, "unreadable usage"),
    ],
)
def test_a_stream_that_is_no_whole_answer_says_why(stream: bytes, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        answer(stream).finish()


def test_an_endless_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipick_sim.traffic.sse.MAX_ANSWER_BYTES", 1000)
    with pytest.raises(AnswerError, match="longer than 1000 bytes"):
        answer(*[delta("a")] * 100)
